"""In a process of its own it answers one thing, in the host's another."""

from __future__ import annotations

import os

from loom_sdk import Context, Plugin, capability


class DiffersByTier(Plugin):
    @capability("differs-by-tier.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        room = "own" if "LOOM_SOCKET" in os.environ else "shared"
        return {"text": text.upper(), "room": room}
