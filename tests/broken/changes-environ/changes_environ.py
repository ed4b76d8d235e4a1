"""It sets a variable in the environment of the process that it lives in."""

from __future__ import annotations

import os

from loom_sdk import Context, Plugin, capability


class ChangesEnviron(Plugin):
    def start(self, ctx: Context) -> None:
        os.environ["CHANGES_ENVIRON"] = "yes"

    @capability("changes-environ.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        return {"text": text.upper()}
