"""The same capitals in all three tiers, from one source."""

from __future__ import annotations

from typing import Any

from loom_sdk import Context, Plugin, capability


class Everywhere(Plugin):
    def start(self, ctx: Context) -> None:
        ctx.kv.put("started", b"yes")

    @capability("everywhere.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, Any]:
        return {"text": text.upper(), "length": len(text)}

    @capability("everywhere.spell", effects="none")
    def spell(self, ctx: Context, text: str) -> dict[str, str]:
        """The letters one by one, then the text."""
        for letter in text:
            ctx.emit(letter)
        return {"text": text.upper()}
