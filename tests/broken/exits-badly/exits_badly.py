"""It ends with exit code 3."""

from __future__ import annotations

import atexit
import os

from loom_sdk import Context, Plugin, capability


class ExitsBadly(Plugin):
    def start(self, ctx: Context) -> None:
        atexit.register(os._exit, 3)

    @capability("exits-badly.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        return {"text": text.upper()}
