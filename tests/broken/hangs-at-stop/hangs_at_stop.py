"""Its stop blocks for a minute."""

from __future__ import annotations

import time

from loom_sdk import AsyncContext, Plugin, capability


class HangsAtStop(Plugin):
    async def stop(self, ctx: AsyncContext) -> None:
        time.sleep(60)  # noqa: ASYNC251  # the fault

    @capability("hangs-at-stop.upper", effects="none")
    async def upper(self, ctx: AsyncContext, text: str) -> dict[str, str]:
        return {"text": text.upper()}
