"""One of its examples states an answer that it does not give."""

from __future__ import annotations

from loom_sdk import Context, Plugin, capability


class WrongExample(Plugin):
    @capability("wrong-example.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        return {"text": text.upper()}
