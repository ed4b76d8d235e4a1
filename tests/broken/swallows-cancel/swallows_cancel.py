"""A slow call catches its cancellation and goes on."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from loom_sdk import AsyncContext, Plugin, capability


class SwallowsCancel(Plugin):
    @capability("swallows-cancel.upper", effects="none")
    async def upper(self, ctx: AsyncContext, text: str) -> dict[str, str]:
        if text == "wait":
            for _ in range(8):
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.5)
        return {"text": text.upper()}
