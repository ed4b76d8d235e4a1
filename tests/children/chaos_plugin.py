"""One of the plugins of the chaos test: what it offers and hears is called as its folder is."""

from __future__ import annotations

import asyncio
from pathlib import Path

from loom_sdk import AsyncContext, Context, Event, Plugin, QoS, Result, capability, on_event

NAME = Path(__file__).resolve().parent.name


class Chaotic(Plugin):
    @capability(f"{NAME}.echo", effects="none")
    def echo(self, ctx: Context, number: int) -> Result:
        return Result({"plugin": NAME, "number": number}, ctx.payload)

    @capability(f"{NAME}.nap")
    async def nap(self, ctx: AsyncContext, number: int) -> Result:
        """Not to be repeated."""
        await asyncio.sleep(0.02)
        return Result({"plugin": NAME, "number": number}, ctx.payload)

    @capability(f"{NAME}.pour", effects="none")
    def pour(self, ctx: Context, number: int) -> Result:
        for _ in range(20):
            ctx.emit({"number": number}, bytes(1000))
        return Result({"plugin": NAME, "number": number}, ctx.payload)

    @capability(f"{NAME}.relay", effects="none")
    def relay(self, ctx: Context, number: int) -> Result:
        """Asks another plugin, which may be dead."""
        ctx.invoke(f"{self.config['peer']}.echo", {"number": number})
        return Result({"plugin": NAME, "number": number}, ctx.payload)

    @on_event(f"work.{NAME}")
    def work(self, ctx: Context, event: Event) -> None:
        ctx.publish(f"done.{NAME}", "done", metadata={"number": event.metadata["number"]})

    @on_event(f"sound.{NAME}", qos=QoS.REALTIME)
    async def sound(self, ctx: AsyncContext, event: Event) -> None:
        await asyncio.sleep(0.005)
