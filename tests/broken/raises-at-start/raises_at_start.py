"""It reads at its start a file that is not in its folder."""

from __future__ import annotations

from pathlib import Path

from loom_sdk import Context, Plugin, capability


class RaisesAtStart(Plugin):
    def __init__(self) -> None:
        super().__init__()
        self._words = ""

    def start(self, ctx: Context) -> None:
        self._words = Path(__file__).with_name("words.txt").read_text()

    @capability("raises-at-start.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        return {"text": text.upper()}
