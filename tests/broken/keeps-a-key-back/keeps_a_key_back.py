"""Its answer lacks a key that its output schema requires, for texts without a capital."""

from __future__ import annotations

from loom_sdk import Context, Plugin, capability


class KeepsAKeyBack(Plugin):
    @capability("keeps-a-key-back.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        if text == text.lower():
            return {"text": text.upper()}
        return {"text": text.upper(), "was": text}
