"""It says from the start on that it is not well."""

from __future__ import annotations

from loom_sdk import Context, Plugin, capability


class SickFromStart(Plugin):
    def health(self) -> str:
        return "its words are missing"

    @capability("sick-from-start.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        return {"text": text.upper()}
