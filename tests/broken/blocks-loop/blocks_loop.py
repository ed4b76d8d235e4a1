"""A call blocks the host's event loop for 500 ms."""

from __future__ import annotations

import time

from loom_sdk import AsyncContext, Plugin, capability


class BlocksLoop(Plugin):
    @capability("blocks-loop.upper", effects="none")
    async def upper(self, ctx: AsyncContext, text: str) -> dict[str, str]:
        if text == "cat":
            time.sleep(0.5)  # noqa: ASYNC251  # the fault
        return {"text": text.upper()}
