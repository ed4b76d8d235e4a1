"""A guest that tries to get at what is not its own, past the SDK where that would stop it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Any

from loom_sdk import Plugin, Result, capability, on_event
from loom_sdk.errors import ActionFailed, ErrorInfo, decode


def _raw(name: str, *arguments: Any) -> Any:
    """A host import as the bindings have it: no SDK between."""
    from componentize_py_types import Err  # type: ignore[import-not-found]  # only in a guest
    from wit_world.imports import host  # type: ignore[import-not-found]  # only in a guest

    try:
        return getattr(host, name)(*arguments)
    except Err as error:
        value = error.value
        raise decode(ErrorInfo(value.code, value.message, value.details)) from None


def _record(kind: str, /, **fields: Any) -> Any:
    from wit_world.imports import types

    return getattr(types, kind)(**fields)


class Intruder(Plugin):
    def start(self, ctx: Any) -> None:
        self.calls = 0
        self.heard: list[str] = []

    @capability("intruder.count", effects="none")
    def count(self, ctx: Any) -> int:
        self.calls += 1
        return self.calls

    @capability("intruder.try")
    def attempt(self, ctx: Any, what: str, of: str = "", text: str = "", size: int = 0) -> Any:
        return getattr(self, f"_{what}")(ctx, of, text, size)

    @on_event(">")
    def hear_all(self, ctx: Any, event: Any) -> None:
        self._hear(ctx, event)

    @on_event("audio.*")
    def hear_audio(self, ctx: Any, event: Any) -> None:
        self._hear(ctx, event)

    @on_event("room")
    def hear_room(self, ctx: Any, event: Any) -> None:
        self._hear(ctx, event)

    def _hear(self, ctx: Any, event: Any) -> None:
        if event.payload == b"leak":
            raise ValueError(f"the key is {ctx.secret('mine')}")
        self.heard.append(event.topic)

    # -- host imports

    def _heard(self, ctx: Any, *_: Any) -> list[str]:
        return self.heard

    def _publish(self, ctx: Any, topic: str, source: str, priority: int) -> int:
        delivered: int = _raw(
            "publish",
            _record(
                "Event", id="id-of-mine", type="forged", timestamp_ms=1, source=source,
                metadata=[("plugin", source)], payload=b"", confidence=2.0, tags=[],
                priority=priority, topic=topic, traceparent="", delivery_attempt=9,
            ),
        )  # fmt: skip
        return delivered

    def _invoke(self, ctx: Any, name: str, id_and_parent: str, remaining_ms: int) -> Any:
        call_id, _, arguments = id_and_parent.partition(" ")
        answer = _raw(
            "invoke",
            _record(
                "ActionCall", id=call_id, capability=name, version="", arguments=arguments or "{}",
                payload=b"", content_type="", remaining_ms=remaining_ms or 10**9, traceparent="",
                parent_call_id=call_id,
            ),
        )  # fmt: skip
        return json.loads(answer.output)

    def _emit(self, ctx: Any, output: str, text: str, size: int) -> None:
        _raw("emit", output * (size or 1), text.encode(), "")

    def _emit_flood(self, ctx: Any, of: str, text: str, size: int) -> None:
        while True:
            ctx.emit("x" * 1000)

    def _flood_get(self, ctx: Any, *_: Any) -> None:
        self._flood(lambda: ctx.kv.get("k"))

    def _flood_log(self, ctx: Any, *_: Any) -> None:
        self._flood(lambda: ctx.log("x" * 100))

    def _flood_publish(self, ctx: Any, *_: Any) -> None:
        self._flood(lambda: ctx.publish("intruder.out", "noise"))

    def _flood(self, ask: Any) -> None:
        while True:
            with contextlib.suppress(Exception):
                ask()

    def _get(self, ctx: Any, key: str, *_: Any) -> Any:
        value = ctx.kv.get(key)
        return value and value.decode()

    def _put(self, ctx: Any, key: str, text: str, size: int) -> None:
        ctx.kv.put(key, (text or "x" * size).encode())

    def _delete(self, ctx: Any, key: str, *_: Any) -> None:
        ctx.kv.delete(key)

    def _keys(self, ctx: Any, prefix: str, *_: Any) -> Any:
        return ctx.kv.keys(prefix)

    def _http(self, ctx: Any, url: str, method: str, size: int) -> Any:
        reply = ctx.http.request(method or "GET", url, body=b"x" * size)
        return [reply.status, reply.body.decode()]

    def _header(self, ctx: Any, url: str, value: str, size: int) -> Any:
        return ctx.http.request("GET", url, headers={"Authorization": value}).status

    def _secret(self, ctx: Any, name: str, *_: Any) -> int:
        return len(ctx.secret(name))

    def _log(self, ctx: Any, message: str, level: str, size: int) -> None:
        _raw("log", level or "info", message * (size or 1), [("name", "intruder")])

    def _span(self, ctx: Any, name: str, text: str, size: int) -> None:
        record = _record(
            "SpanRecord", name=name, start_offset_us=-(2**62), duration_us=2**62,
            attributes=[("plugin", text)], error="",
        )  # fmt: skip
        _raw("span", record)

    # -- secrets on their way out

    def _leak_error(self, ctx: Any, name: str, *_: Any) -> None:
        secret = ctx.secret(name)
        raise ActionFailed(f"login with {secret} failed", code="LOGIN", data={"tried": [secret]})

    def _leak_trace(self, ctx: Any, name: str, *_: Any) -> None:
        raise ValueError("bad key " + ctx.secret(name))

    def _leak_log(self, ctx: Any, name: str, *_: Any) -> None:
        ctx.log("the key is " + ctx.secret(name), level="error", key=ctx.secret(name))

    def _leak_url(self, ctx: Any, url: str, name: str, size: int) -> Any:
        return ctx.http.request("GET", f"{url}?key={ctx.secret(name)}").status

    def _leak_topic(self, ctx: Any, of: str, name: str, size: int) -> Any:
        return ctx.publish(ctx.secret(name), "x")

    # -- answers

    def _answer(self, ctx: Any, of: str, text: str, size: int) -> Any:
        return Result("x" * size)

    def _deep(self, ctx: Any, of: str, text: str, size: int) -> None:
        from loom_sdk import guest

        bound: Any = guest

        def dumps(value: Any) -> str:
            bound.json = json
            return "[" * size + "]" * size

        bound.json = type("json", (), {"dumps": staticmethod(dumps), "loads": json.loads})

    def _recurse(self, ctx: Any, of: str, text: str, size: int) -> Any:
        return self._recurse(ctx, of, text, size + 1)

    # -- quotas

    def _spin(self, ctx: Any, *_: Any) -> None:
        while True:
            pass

    def _sleep(self, ctx: Any, *_: Any) -> None:
        time.sleep(60)

    def _bomb(self, ctx: Any, *_: Any) -> None:
        hoard = []
        while True:
            hoard.append(bytes(1 << 20))

    def _exit(self, ctx: Any, *_: Any) -> None:
        os._exit(0)

    # -- files

    def _read(self, ctx: Any, path: str, *_: Any) -> str:
        with open(path) as file:
            return file.read()

    def _write(self, ctx: Any, path: str, text: str, size: int) -> int:
        with open(path, "ab") as file:
            return file.write(text.encode() or bytes(size))

    def _list(self, ctx: Any, path: str, *_: Any) -> list[str]:
        return sorted(os.listdir(path))

    def _remove(self, ctx: Any, path: str, *_: Any) -> None:
        os.remove(path)

    def _rename(self, ctx: Any, path: str, other: str, size: int) -> None:
        os.rename(path, other)

    def _symlink(self, ctx: Any, path: str, target: str, size: int) -> None:
        os.symlink(target, path)

    def _link(self, ctx: Any, path: str, target: str, size: int) -> None:
        os.link(target, path)

    def _mkdir(self, ctx: Any, path: str, *_: Any) -> None:
        os.mkdir(path)

    def _fill(self, ctx: Any, path: str, text: str, size: int) -> None:
        number = 0
        while True:
            number += 1
            with open(f"{path}/{number}", "wb") as file:
                file.write(bytes(size))

    def _truncate(self, ctx: Any, path: str, text: str, size: int) -> None:
        with open(path, "r+b") as file:
            file.truncate(size)
