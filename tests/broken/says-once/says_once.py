"""At Init its capability has effects once, in plugin.toml none."""

from __future__ import annotations

from loom_sdk import Context, Plugin, capability


class SaysOnce(Plugin):
    @capability("says-once.upper", effects="once")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        return {"text": text.upper()}
