"""It adds a handler to the root logger of the process that it lives in."""

from __future__ import annotations

import logging

from loom_sdk import Context, Plugin, capability


class ChangesRootLogger(Plugin):
    def start(self, ctx: Context) -> None:
        logging.getLogger().addHandler(logging.NullHandler())

    @capability("changes-root-logger.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        return {"text": text.upper()}
