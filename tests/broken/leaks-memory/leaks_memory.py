"""It keeps 50 KB of every call."""

from __future__ import annotations

import os

from loom_sdk import Context, Plugin, capability


class LeaksMemory(Plugin):
    def __init__(self) -> None:
        super().__init__()
        self._kept: list[bytes] = []

    @capability("leaks-memory.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        self._kept.append(os.urandom(50_000))
        return {"text": text.upper()}
