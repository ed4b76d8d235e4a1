"""A call changes the umask of the process that it lives in."""

from __future__ import annotations

import os

from loom_sdk import Context, Plugin, capability


class ChangesUmask(Plugin):
    @capability("changes-umask.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        os.umask(0o077)
        return {"text": text.upper()}
