"""It has effects none, and answers otherwise when it is asked again."""

from __future__ import annotations

from loom_sdk import Context, Plugin, capability


class Remembers(Plugin):
    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    @capability("remembers.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        again = text in self._seen
        self._seen.add(text)
        return {"text": text.upper() + "!" * again}
