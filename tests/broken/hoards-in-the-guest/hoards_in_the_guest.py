"""In the sandbox, too, it keeps 50 KB of every call."""

from __future__ import annotations

from loom_sdk import Context, Plugin, capability


class HoardsInTheGuest(Plugin):
    def __init__(self) -> None:
        super().__init__()
        self._kept: list[bytes] = []

    @capability("hoards-in-the-guest.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        self._kept.append(b"x" * 50_000)
        return {"text": text.upper()}
