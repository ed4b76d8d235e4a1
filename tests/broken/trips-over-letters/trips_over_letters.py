"""It cannot write other letters than those of ASCII, which its schema allows."""

from __future__ import annotations

from loom_sdk import Context, Plugin, capability


class TripsOverLetters(Plugin):
    @capability("trips-over-letters.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        text.encode("ascii")
        return {"text": text.upper()}
