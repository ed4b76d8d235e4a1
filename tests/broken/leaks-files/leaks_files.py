"""It opens a file at every call and never closes it."""

from __future__ import annotations

import os

from loom_sdk import Context, Plugin, capability


class LeaksFiles(Plugin):
    @capability("leaks-files.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        os.open(__file__, os.O_RDONLY)
        return {"text": text.upper()}
