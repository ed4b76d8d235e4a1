"""A slow call never looks whether it was cancelled."""

from __future__ import annotations

import time

from loom_sdk import Context, Plugin, capability


class IgnoresCancel(Plugin):
    @capability("ignores-cancel.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        if text == "wait":
            time.sleep(4)
        return {"text": text.upper()}
