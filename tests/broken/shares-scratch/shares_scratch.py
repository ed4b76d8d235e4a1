"""Calls at once share one attribute, and get each other's answers."""

from __future__ import annotations

import time

from loom_sdk import Context, Plugin, capability


class SharesScratch(Plugin):
    def __init__(self) -> None:
        super().__init__()
        self._text = ""

    @capability("shares-scratch.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        self._text = text
        time.sleep(0.02)
        return {"text": self._text.upper()}
