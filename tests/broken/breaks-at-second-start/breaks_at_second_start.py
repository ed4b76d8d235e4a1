"""It does not start over the data of an earlier start."""

from __future__ import annotations

from loom_sdk import Context, Plugin, capability


class BreaksAtSecondStart(Plugin):
    def start(self, ctx: Context) -> None:
        if ctx.kv.get("lock") is not None:
            raise RuntimeError("another one runs: its lock is there")
        ctx.kv.put("lock", b"held")

    @capability("breaks-at-second-start.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        return {"text": text.upper()}
