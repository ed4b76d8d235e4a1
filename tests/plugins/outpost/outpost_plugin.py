"""Runs on another machine, or as if: tells which replica it is and what reached it."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from loom_sdk import AsyncContext, Context, Event, Plugin, capability, on_event


class Outpost(Plugin):
    stopped: list[str] = []
    """Of the whole process, beyond the life of one object."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.calls = 0

    def stop(self, ctx: Context) -> None:
        Outpost.stopped.append("stopped")

    @capability("outpost.who")
    def who(self, ctx: Context) -> dict[str, Any]:
        self.calls += 1
        return {
            "pid": os.getpid(),
            "object": id(self),
            "calls": self.calls,
            "folders": [str(ctx.data_dir or ""), str(ctx.cache_dir or "")],
            "remaining_ms": ctx.remaining_ms(),
            "stopped": len(Outpost.stopped),
        }

    @capability("outpost.work")
    async def work(self, ctx: AsyncContext, ms: int) -> dict[str, int]:
        await asyncio.sleep(ms / 1000)
        return {"pid": os.getpid()}

    @capability("outpost.once")
    async def once(self, ctx: AsyncContext, ms: int) -> dict[str, int]:
        return await self.work(ctx, ms)

    @capability("outpost.hang")
    def hang(self, ctx: Context, stubborn: bool = False) -> None:
        """Until it is told to stop; where it is stubborn, for 20 s whatever it is told."""
        until = time.monotonic() + 20
        while time.monotonic() < until and (stubborn or not ctx.cancelled()):
            time.sleep(0.01)
        self.heard.append("told to stop")

    @capability("outpost.heard")
    def what_was_heard(self, ctx: Context) -> dict[str, Any]:
        return {"pid": os.getpid(), "heard": self.heard}

    @capability("outpost.ask")
    def ask(self, ctx: Context, topic: str) -> dict[str, Any]:
        ctx.kv.put("seen", b"from afar")
        ctx.publish(topic, "note", b"hello")
        return {"kept": (ctx.kv.get("seen") or b"").decode()}

    @on_event("notes.far")
    async def hears(self, ctx: AsyncContext, event: Event) -> None:
        self.heard.append(event.metadata.get("stream_id", ""))
