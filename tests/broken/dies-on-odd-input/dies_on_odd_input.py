"""It ends its process when the text is empty."""

from __future__ import annotations

import os

from loom_sdk import Context, Plugin, capability


class DiesOnOddInput(Plugin):
    @capability("dies-on-odd-input.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        if not text:
            os._exit(9)
        return {"text": text.upper()}
