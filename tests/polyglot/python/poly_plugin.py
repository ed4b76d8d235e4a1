"""The test plugin of tests/polyglot in Python."""

from __future__ import annotations

from typing import Any

from loom_sdk import Plugin, Result, capability, on_event
from loom_sdk.errors import ActionFailed


class Poly(Plugin):
    def start(self, ctx: Any) -> None:
        self.counted = 0

    @capability("poly.echo", effects="none")
    def echo(self, ctx: Any, value: Any = None) -> Result:
        return Result({"value": value}, ctx.payload, ctx.content_type)

    @capability("poly.count", effects="none")
    def count(self, ctx: Any) -> int:
        self.counted += 1
        return self.counted

    @capability("poly.fail", effects="none")
    def fail(self, ctx: Any, code: str, message: str) -> None:
        raise ActionFailed(message, code=code)

    @capability("poly.spin", effects="none")
    def spin(self, ctx: Any) -> None:
        while True:
            pass

    @capability("poly.log", effects="none")
    def log(self, ctx: Any, message: str) -> None:
        ctx.log(message, "warning")

    @capability("poly.store", effects="idempotent")
    def store(self, ctx: Any, key: str, value: str) -> Any:
        had = ctx.kv.get(key) is not None
        ctx.kv.put(key, value.encode())
        after, keys = ctx.kv.get(key), ctx.kv.keys(key)
        ctx.kv.delete(key)
        left = len(ctx.kv.keys(key))
        return {"had": had, "after": after.decode(), "keys": keys, "left": left}

    @capability("poly.stream", effects="none")
    def stream(self, ctx: Any, items: int) -> str:
        for index in range(items):
            ctx.emit({"index": index}, b"xxx", "text/plain")
        return "done"

    @capability("poly.nested", effects="none")
    def nested(self, ctx: Any, name: str, arguments: dict[str, Any] | None = None) -> Result:
        answer: Result = ctx.invoke(name, arguments or {}, payload=ctx.payload)
        return answer

    @capability("poly.config", effects="none")
    def settings(self, ctx: Any) -> Any:
        return dict(self.config)

    @on_event("room.*")
    def heard(self, ctx: Any, event: Any) -> None:
        if event.payload == b"poison":
            raise ActionFailed("will not eat that", code="POISONED")
        labels = {"n": event.metadata.get("n", ""), "topic": event.topic}
        ctx.publish("notes", "heard", event.payload, metadata=labels)
