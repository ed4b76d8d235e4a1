"""Its output schema says that length is an integer, it answers a text."""

from __future__ import annotations

from loom_sdk import Context, Plugin, capability


class LiesAboutOutput(Plugin):
    @capability("lies-about-output.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        return {"text": text.upper(), "length": str(len(text))}
