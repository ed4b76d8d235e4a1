"""A slow call of it ends when it is cancelled."""

from __future__ import annotations

import asyncio

from loom_sdk import AsyncContext, Plugin, capability


class Sleeper(Plugin):
    @capability("sleeper.upper", effects="none")
    async def upper(self, ctx: AsyncContext, text: str) -> dict[str, str]:
        if text == "wait":
            await asyncio.sleep(3)  # where it is cancelled it ends here
        return {"text": text.upper()}
