"""A test plugin that does every kind of work, well and badly."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

from loom_sdk import AsyncContext, Context, Event, Plugin, Result, capability, on_event, tool
from loom_sdk.errors import ActionFailed, InvalidArguments


@dataclass
class Point:
    x: int
    y: int = 0


def misbehave(how: str) -> None:
    if how == "raise":
        raise RuntimeError("the lab is closed")
    if how == "exit":
        sys.exit(3)
    if how == "hang":
        time.sleep(1.0)


class Lab(Plugin):
    def start(self, ctx: Context) -> None:
        assert threading.current_thread() is not threading.main_thread()
        misbehave(self.config["fail_at_start"])

    def stop(self, ctx: Context) -> None:
        misbehave(self.config["fail_at_stop"])

    @tool("lab.greet", effects="none")
    def greet(self, ctx: Context, name: str) -> dict[str, str]:
        """Greet somebody."""
        ctx.log(f"greeting {name}", level="warning", name=name)
        return {"greeting": f"{self.config['greeting']} {name}"}

    @capability("lab.agreet", effects="none")
    async def agreet(self, ctx: AsyncContext, name: str) -> dict[str, Any]:
        return {"greeting": f"hi {name}", "remaining_ms": ctx.remaining_ms()}

    @capability("lab.count", effects="none")
    def count(self, ctx: Context, to: int) -> dict[str, int]:
        for number in range(to):
            ctx.emit(number, bytes([number]), "x/number")
        return {"counted": to}

    @capability("lab.acount", effects="none")
    async def acount(self, ctx: AsyncContext, to: int, pause_s: float = 0.0) -> dict[str, int]:
        for number in range(to):
            await ctx.emit(number)
            await asyncio.sleep(pause_s)
        return {"counted": to}

    @capability("lab.reverse", effects="none")
    def reverse(self, ctx: Context) -> Result:
        return Result({"size": len(ctx.payload)}, ctx.payload[::-1], ctx.content_type)

    @capability("lab.block", effects="none")
    def block(self, ctx: Context, seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()

    @capability("lab.nap", effects="none")
    async def nap(self, ctx: AsyncContext, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "rested"

    @capability("lab.large", effects="none")
    def large(self, ctx: Context, size: int) -> Result:
        return Result(None, bytes(size))

    @capability("lab.large_item", effects="none")
    async def large_item(self, ctx: AsyncContext, size: int) -> None:
        await ctx.emit(payload=bytes(size))

    @capability("lab.unjson", effects="none")
    def unjson(self, ctx: Context) -> Any:
        return {"inside": object()}

    @capability("lab.fail")
    async def fail(self, ctx: AsyncContext, how: str) -> None:
        if how == "typed":
            raise ActionFailed("out of paper", code="NO_PAPER")
        if how == "terminal":
            raise ActionFailed("no\x1b[2J\npaper", code="NO\x1b]0;\x07")
        if how == "arguments":
            raise InvalidArguments("not that one")
        misbehave(how)

    @capability("lab.point", effects="none")
    def point(self, ctx: Context, at: Point) -> str:
        return f"{at.x},{at.y}"

    @capability("lab.spanned", effects="none")
    def spanned(self, ctx: Context) -> str:
        with ctx.span("inner", part="one"):
            pass
        return ctx.call_id

    @on_event("notes.*")
    def heard(self, ctx: Context, event: Event) -> None:
        if event.type == "bad":
            raise RuntimeError("cannot read this")
        if event.type == "nap":
            time.sleep(0.2)
        ctx.publish("echo", event.type, event.payload, metadata={"topic": event.topic})

    @on_event("anotes")
    async def aheard(self, ctx: AsyncContext, event: Event) -> None:
        if event.type == "exit":
            sys.exit(4)
        if event.type == "slow":
            await asyncio.sleep(5)
        await ctx.publish("aecho", event.type)
