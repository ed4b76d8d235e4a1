"""A slow call blocks its event loop, so that health is not answered meanwhile."""

from __future__ import annotations

import time

from loom_sdk import AsyncContext, Plugin, capability


class BlocksHealth(Plugin):
    @capability("blocks-health.upper", effects="none")
    async def upper(self, ctx: AsyncContext, text: str) -> dict[str, str]:
        if text == "wait":
            time.sleep(2.5)  # noqa: ASYNC251  # the fault
        return {"text": text.upper()}
