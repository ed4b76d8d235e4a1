"""It logs so much that the log quota makes its calls fail."""

from __future__ import annotations

from loom_sdk import Context, Plugin, capability


class LogsItselfOut(Plugin):
    @capability("logs-itself-out.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        for number in range(40):
            ctx.log(f"step {number} " + "." * 500)
        return {"text": text.upper()}
