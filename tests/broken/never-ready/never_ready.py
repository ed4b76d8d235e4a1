"""Its start never returns."""

from __future__ import annotations

import time

from loom_sdk import Context, Plugin, capability


class NeverReady(Plugin):
    def start(self, ctx: Context) -> None:
        time.sleep(3600)

    @capability("never-ready.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        return {"text": text.upper()}
