"""Its deadline is 500 ms, and a call takes 900."""

from __future__ import annotations

import time

from loom_sdk import Context, Plugin, capability


class SlowerThanPromised(Plugin):
    @capability("slower-than-promised.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        if text == "cat":
            time.sleep(0.9)
        return {"text": text.upper()}
