"""The conformance plugin of every language, with the Python SDK."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from loom_sdk import AsyncContext, Context, Event, Plugin, Result, capability, on_event
from loom_sdk.errors import ActionFailed


class Demo(Plugin):
    def stop(self, ctx: Context) -> None:
        if ctx.data_dir is not None:
            (ctx.data_dir / "stopped").touch()

    def health(self) -> str:
        return str(self.config["unwell"])

    @capability("demo.echo", effects="none")
    def echo(self, ctx: Context, value: Any = None) -> dict[str, Any]:
        return {"value": value, "config": dict(self.config)}

    @capability("demo.reverse", effects="none")
    def reverse(self, ctx: Context) -> Result:
        return Result({"size": len(ctx.payload)}, ctx.payload[::-1], ctx.content_type)

    @capability("demo.count", effects="none")
    def count(self, ctx: Context, to: int, size: int = 1) -> dict[str, int]:
        for index in range(to):
            ctx.emit({"index": index}, b"x" * size, "application/octet-stream")
        return {"counted": to}

    @capability("demo.fail", effects="none")
    def fail(self, ctx: Context, code: str, message: str) -> None:
        raise ActionFailed(message, code=code)

    @capability("demo.bug", effects="none")
    def bug(self, ctx: Context) -> None:
        raise RuntimeError("no such thing")

    @capability("demo.wait", effects="none")
    async def wait(self, ctx: AsyncContext) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ctx.log("stopped waiting")

    @capability("demo.loop")
    def loop(self, ctx: Context) -> None:
        while True:
            pass

    @capability("demo.exit")
    def exit(self, ctx: Context, code: int) -> None:
        print("about to exit", flush=True)
        os._exit(code)

    @capability("demo.host", effects="idempotent")
    def host(self, ctx: Context) -> dict[str, Any]:
        ctx.kv.put("key", b"value")
        ctx.kv.put("gone", b"")
        ctx.kv.delete("gone")
        with ctx.span("part", size=3):
            ctx.log("in the middle", level="warning", step=2)
        value = ctx.kv.get("key")
        reversed_ = ctx.invoke("lab.reverse", payload=b"in", content_type="text/plain")
        counted = ctx.invoke("lab.count", {"to": 2})
        return {
            "missing": ctx.kv.get("nothing") is None,
            "value": (value or b"").decode(),
            "keys": ctx.kv.keys(),
            "published": ctx.publish("notes", "made", b"data", metadata={"a": "b"}, priority=7),
            "reversed": [reversed_.output, reversed_.payload.decode(), reversed_.provider],
            "items": [item.output for item in counted.items],
            "streamed": [item.output for item in ctx.stream("lab.count", {"to": 3})],
            "remaining_ms": ctx.remaining_ms(),
        }

    @capability("demo.secret", effects="none")
    def secret(self, ctx: Context, name: str) -> dict[str, str]:
        return {"secret": ctx.secret(name)}

    @capability("demo.nested", effects="none")
    def nested(self, ctx: Context) -> Any:
        return ctx.invoke("lab.nap", {"seconds": 3600}).output

    @capability("demo.environment", effects="none")
    def environment(self, ctx: Context) -> list[str]:
        return sorted(os.environ)

    @on_event("room.*")
    def heard(self, ctx: Context, event: Event) -> None:
        if event.payload == b"poison":
            raise ActionFailed("will not eat that", code="POISONED")
        if event.payload == b"crash" and event.delivery_attempt == 1:
            os._exit(9)
        metadata = {**event.metadata, "topic": event.topic, "attempt": str(event.delivery_attempt)}
        ctx.publish("notes", "heard", event.payload, metadata=metadata)
