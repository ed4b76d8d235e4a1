"""It has effects none, and adds to a sum that it keeps."""

from __future__ import annotations

from loom_sdk import Context, Plugin, capability


class AddsUp(Plugin):
    @capability("adds-up.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        ctx.kv.put("sum", b"%d" % (int(ctx.kv.get("sum") or 0) + 1))
        return {"text": text.upper()}
