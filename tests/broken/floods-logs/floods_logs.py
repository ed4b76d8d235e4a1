"""One call logs more than its log quota."""

from __future__ import annotations

from loom_sdk import Context, Plugin, capability


class FloodsLogs(Plugin):
    @capability("floods-logs.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        for number in range(40):
            print(f"step {number}", "." * 500)
        return {"text": text.upper()}
