"""It is called idempotent, and keeps one entry more at each repeat."""

from __future__ import annotations

from loom_sdk import Context, Plugin, capability


class CountsTwice(Plugin):
    @capability("counts-twice.upper", effects="idempotent")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        number = len(ctx.kv.keys("calls/"))
        ctx.kv.put(f"calls/{number}", b"x")
        return {"text": text.upper()}
