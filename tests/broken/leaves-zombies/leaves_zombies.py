"""Its calls start processes and never ask how they ended."""

from __future__ import annotations

import os

from loom_sdk import Context, Plugin, capability


class LeavesZombies(Plugin):
    @capability("leaves-zombies.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        os.posix_spawn("/bin/true", ["true"], {})
        return {"text": text.upper()}
