"""A guest that does everything a good plugin does, and everything a bad one tries."""

from __future__ import annotations

import os
import random
import socket
import time
from typing import Any

from loom_sdk import Plugin, Result, capability, on_event

_hoard: list[bytes] = []


class Hostile(Plugin):
    def start(self, ctx: Any) -> None:
        self.calls = 0
        self.heard: list[str] = []
        if self.config.get("refuse"):
            raise ValueError("told to refuse")

    @capability("t.echo", effects="none")
    def echo(self, ctx: Any, value: Any = None) -> Result:
        """Send back what came."""
        return Result({"value": value, "config": dict(self.config)}, ctx.payload, ctx.content_type)

    @capability("t.count", effects="none")
    def count(self, ctx: Any) -> int:
        self.calls += 1
        return self.calls

    @capability("t.spin", effects="none")
    def spin(self, ctx: Any) -> None:
        while True:
            pass

    @capability("t.bomb", effects="none")
    def bomb(self, ctx: Any) -> None:
        while True:
            _hoard.append(bytes(1 << 20))

    @capability("t.hoard", effects="none")
    def hoard(self, ctx: Any, size: int) -> int:
        _hoard.append(bytes(size))
        return sum(len(part) for part in _hoard)

    @capability("t.big", effects="none")
    def big(self, ctx: Any, size: int, where: str = "payload") -> Result:
        if where == "forged":  # past the SDK's own check
            from loom_sdk import guest

            guest.Guest._check_output = lambda self, used: None  # type: ignore[method-assign]
        return Result("x" * size) if where == "output" else Result(None, bytes(size))

    @capability("t.sleep", effects="none")
    def sleep(self, ctx: Any, seconds: float) -> float:
        began = time.monotonic()
        time.sleep(seconds)
        return time.monotonic() - began

    @capability("t.stream", effects="none")
    def stream(self, ctx: Any, items: int, size: int = 3) -> str:
        for index in range(items):
            ctx.emit({"index": index}, b"x" * size, "audio/pcm")
        return "done"

    @capability("t.store")
    def store(self, ctx: Any, key: str) -> list[Any]:
        before = ctx.kv.get(key)
        ctx.kv.put(key, b"value")
        ctx.kv.put("gone", b"")
        ctx.kv.delete("gone")
        return [before is None, (ctx.kv.get(key) or b"").decode(), ctx.kv.keys("")]

    @capability("t.publish")
    def publish(self, ctx: Any) -> int:
        delivered: int = ctx.publish(
            "notes", "note", b"\x00\xff", metadata={"a": "b"}, tags=("t",), confidence=0.5
        )
        return delivered

    @capability("t.nested")
    def nested(self, ctx: Any, name: str) -> Any:
        answer = ctx.invoke(name, {"x": 1}, payload=b"in")
        return [answer.output, answer.payload.decode()]

    @capability("t.fetch")
    def fetch(self, ctx: Any, url: str) -> Any:
        return ctx.http.get_json(url)

    @capability("t.secret")
    def secret(self, ctx: Any) -> str:
        text: str = ctx.secret("key")
        return text

    @capability("t.observed")
    def observed(self, ctx: Any) -> None:
        with ctx.span("inner", part="one"):
            ctx.log("hello", level="warning", n=1)
        print("printed by the guest")

    @capability("t.raise")
    def fail(self, ctx: Any) -> None:
        raise ValueError("on purpose")

    @capability("t.exit")
    def exit(self, ctx: Any) -> None:
        os._exit(3)

    @capability("t.recurse")
    def recurse(self, ctx: Any) -> Any:
        return self.recurse(ctx)

    @capability("t.random", effects="none")
    def random(self, ctx: Any) -> float:
        return random.random()

    @capability("t.ambient", effects="none")
    def ambient(self, ctx: Any) -> dict[str, Any]:
        """What a guest can reach of the machine by itself."""

        def attempt(what: Any) -> str:
            try:
                return repr(what())
            except Exception as error:
                return type(error).__name__

        return {
            "env": attempt(lambda: dict(os.environ)),
            "root": attempt(lambda: os.listdir("/")),
            "passwd": attempt(lambda: open("/etc/passwd").read()),
            "connect": attempt(lambda: socket.create_connection(("127.0.0.1", 9), 1)),
            "resolve": attempt(lambda: socket.getaddrinfo("localhost", 80)),
            "listen": attempt(lambda: socket.socket().bind(("127.0.0.1", 0))),
        }

    @capability("t.heard", effects="none")
    def what_was_heard(self, ctx: Any) -> list[str]:
        return self.heard

    @on_event("room.*", types=["word"])
    def hear(self, ctx: Any, event: Any) -> None:
        if event.payload == b"poison":
            raise ValueError("poisoned")
        self.heard.append(f"{event.topic} {event.metadata['n']} {event.payload.decode()}")
