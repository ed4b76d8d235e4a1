"""Its start blocks the host's event loop for 500 ms."""

from __future__ import annotations

import time

from loom_sdk import AsyncContext, Plugin, capability


class BlocksLoopAtStart(Plugin):
    async def start(self, ctx: AsyncContext) -> None:
        time.sleep(0.5)  # noqa: ASYNC251  # the fault

    @capability("blocks-loop-at-start.upper", effects="none")
    async def upper(self, ctx: AsyncContext, text: str) -> dict[str, str]:
        return {"text": text.upper()}
