"""Its output schema says strnig where it means string."""

from __future__ import annotations

from loom_sdk import Context, Plugin, capability


class BadSchema(Plugin):
    @capability("bad-schema.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        return {"text": text.upper()}
