"""Plugins for the grpc tier's tests, run as real children by `python -m loom_sdk.serve`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from typing import Any

from loom_sdk import AsyncContext, Context, Event, Plugin, Result, capability, on_event
from loom_sdk.errors import DeadlineExceeded, LoomError, ModelMissing, PermissionDenied


class Echo(Plugin):
    """Whatever a well-behaved plugin does."""

    def start(self, ctx: Context) -> None:
        self.started = 1
        print("hello from stdout")
        print("x" * 20_000, file=sys.stderr)

    def stop(self, ctx: Context) -> None:
        (ctx.data_dir / "stopped").touch() if ctx.data_dir else None

    @capability("echo.json", effects="none")
    def echo(self, ctx: Context, value: Any = None) -> Any:
        """Give back the value."""
        return {"value": value, "config": dict(self.config)}

    @capability("echo.payload", effects="none")
    def payload(self, ctx: Context) -> Result:
        return Result({"size": len(ctx.payload)}, ctx.payload[::-1], ctx.content_type)

    @capability("echo.stream", effects="none")
    def stream(self, ctx: Context, count: int, size: int = 1) -> dict[str, int]:
        for index in range(count):
            ctx.emit({"index": index}, b"x" * size, "application/octet-stream")
        return {"count": count}

    @capability("echo.async")
    async def later(self, ctx: AsyncContext, count: int) -> dict[str, int]:
        for index in range(count):
            await ctx.emit({"index": index})
            await asyncio.sleep(0)
        return {"remaining_ms": ctx.remaining_ms()}

    @capability("echo.environment")
    def environment(self, ctx: Context) -> dict[str, str]:
        return dict(os.environ)

    @on_event("audio.*")
    def heard(self, ctx: Context, event: Event) -> None:
        ctx.publish("echo", "echoed", event.payload, metadata={**event.metadata, "was": event.type})

    @on_event("later.>", types=["slow"])
    async def heard_later(self, ctx: AsyncContext, event: Event) -> None:
        await ctx.publish("echo", "echoed later", event.payload)

    @on_event("bad")
    def bad(self, ctx: Context, event: Event) -> None:
        raise KeyError("nothing there")


class Asks(Plugin):
    """Uses everything that a host offers."""

    @capability("asks.everything")
    def everything(self, ctx: Context) -> dict[str, Any]:
        ctx.kv.put("key", b"value")
        ctx.kv.put("gone", b"")
        ctx.kv.delete("gone")
        with ctx.span("part", size=3):
            ctx.log("in the middle", level="debug", step=2)
        nested = ctx.invoke("other.add", {"a": 1}, payload=b"in", content_type="text/plain")
        return {
            "missing": ctx.kv.get("nothing") is None,
            "value": (ctx.kv.get("key") or b"").decode(),
            "keys": ctx.kv.keys("k"),
            "published": ctx.publish("out", "made", b"data", priority=7),
            "nested": [nested.output, nested.payload.decode(), nested.provider],
            "nested_items": [item.output for item in nested.items],
            "streamed": [item.output for item in ctx.stream("other.count")],
            "http": ctx.http.request("GET", "https://api.example/x", headers={"a": "b"}).status,
            "secret": ctx.secret("name"),
        }

    @capability("asks.everything_async")
    async def everything_async(self, ctx: AsyncContext) -> dict[str, Any]:
        await ctx.kv_put("key", b"value")
        nested = await ctx.invoke("other.add", {"a": 1})
        return {
            "value": (await ctx.kv_get("key") or b"").decode(),
            "nested": nested.output,
            "streamed": [item.output async for item in ctx.stream("other.count")],
            "secret": await ctx.secret("name"),
        }

    @capability("asks.denied")
    def denied(self, ctx: Context) -> dict[str, Any]:
        try:
            ctx.secret("forbidden")
        except PermissionDenied as error:
            return {"permission": error.permission, "message": error.message}
        raise AssertionError("the host gave a forbidden secret")

    @capability("asks.slow")
    def slow(self, ctx: Context) -> str:
        """Blocks in the host until the call is cancelled."""
        try:
            ctx.invoke("other.slow")
        except LoomError as error:
            ctx.log(f"woken by {type(error).__name__}")
            raise
        return "not reached"


class Hostile(Plugin):
    """Each capability is one way to go wrong."""

    @capability("hostile.loop")
    def loop(self, ctx: Context) -> None:
        while True:
            pass

    @capability("hostile.nap")
    def nap(self, ctx: Context, seconds: float) -> str:
        time.sleep(seconds)
        return "rested"

    @capability("hostile.wait")
    async def wait(self, ctx: AsyncContext) -> None:
        await asyncio.sleep(3600)

    @capability("hostile.block")
    async def block(self, ctx: AsyncContext) -> None:
        time.sleep(3600)  # noqa: ASYNC251  # the point: it blocks the loop

    @capability("hostile.bomb")
    def bomb(self, ctx: Context) -> None:
        held = []
        while True:
            held.append(b"x" * 4_000_000)

    @capability("hostile.grow")
    def grow(self, ctx: Context) -> None:
        """Stays below what an allocation may take, so that only the watch sees it."""
        held = [b"x" * 1_000_000 for _ in range(90)]
        time.sleep(3600)
        del held

    @capability("hostile.big")
    def big(self, ctx: Context) -> Result:
        return Result(None, bytes(100_000_000))

    @capability("hostile.flood")
    def flood(self, ctx: Context) -> None:
        while True:
            ctx.emit(None, bytes(100_000))

    @capability("hostile.exit")
    def exit(self, ctx: Context, code: int) -> None:
        print("about to exit", file=sys.stderr)
        sys.exit(code)

    @capability("hostile.die")
    def die(self, ctx: Context, signal: int) -> None:
        print("last words", file=sys.stderr)
        os.kill(os.getpid(), signal)
        time.sleep(10)

    @capability("hostile.raise")
    def fail(self, ctx: Context) -> None:
        raise ValueError("no such thing")

    @capability("hostile.stop_iteration")
    def stop_iteration(self, ctx: Context) -> None:
        next(iter(()))

    @capability("hostile.not_json")
    def not_json(self, ctx: Context) -> Any:
        return {"value": object()}

    @capability("hostile.grandchild")
    def grandchild(self, ctx: Context) -> int:
        return subprocess.Popen(["sleep", "60"]).pid


class Crowd(Plugin):
    """For many calls at once, long answers and slow ends."""

    @capability("crowd.back")
    def back(self, ctx: Context) -> Result:
        return Result(None, ctx.payload)

    @capability("crowd.late")
    async def late(self, ctx: AsyncContext, n: int) -> Result:
        await asyncio.sleep(0.001 * (n % 7))
        return Result(None, ctx.payload)

    @capability("crowd.pour")
    def pour(self, ctx: Context, count: int, size: int) -> dict[str, int]:
        for index in range(count):
            ctx.emit(None, bytes(size))
            if ctx.data_dir and index < 100:
                (ctx.data_dir / f"poured-{index}").touch()
        return {"count": count}

    @capability("crowd.talk")
    def talk(self, ctx: Context, lines: int, size: int = 0) -> None:
        for index in range(lines):
            ctx.log(f"line {index}" + "x" * size)

    @capability("crowd.asks")
    async def asks(self, ctx: AsyncContext, times: int) -> dict[str, Any]:
        await ctx.kv_put("key", b"value")
        values = await asyncio.gather(*(ctx.kv_get("key") for _ in range(times)))
        nested = [item.output async for item in ctx.stream("other.count")]
        return {"values": values.count(b"value"), "nested": nested}

    @capability("crowd.patient")
    def patient(self, ctx: Context) -> None:
        while not ctx.cancelled():
            time.sleep(0.01)
        ctx.log(f"told to stop, {ctx.remaining_ms()} ms left")

    @capability("crowd.wail")
    def wail(self, ctx: Context, size: int) -> None:
        raise ValueError("x" * size)

    @capability("crowd.expire")
    def expire(self, ctx: Context) -> None:
        raise DeadlineExceeded("no time")


class NoModel(Plugin):
    def start(self, ctx: Context) -> None:
        raise ModelMissing("model 'tiny' is not here: run `loom models pull tiny`")


class Broken(Plugin):
    def start(self, ctx: Context) -> None:
        raise RuntimeError("no device")


class ExitsAtStart(Plugin):
    def start(self, ctx: Context) -> None:
        print("cannot go on", file=sys.stderr)
        sys.exit(3)


class SlowStart(Plugin):
    def start(self, ctx: Context) -> None:
        time.sleep(60)


class Unwell(Plugin):
    def health(self) -> str:
        return "the microphone is gone"
