"""A call changes the working directory of the process that it lives in."""

from __future__ import annotations

import os

from loom_sdk import Context, Plugin, capability


class ChangesCwd(Plugin):
    @capability("changes-cwd.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        os.chdir("/")
        return {"text": text.upper()}
