"""The blocking port of plugin threads: every call waits for the loop, and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from loom_sdk import Call, Event, Item, Result
from loom_sdk.bridge import Bridge
from loom_sdk.errors import PermissionDenied
from loom_sdk.port import HttpResponse, SpanRecord

from .support import AsyncFakePort, FakePort


class Port(AsyncFakePort):
    """Notes on which loop it was used."""

    def __init__(self, port: FakePort) -> None:
        super().__init__(port)
        self.closed = asyncio.Event()

    async def http_request(self, method: str, *rest: Any) -> HttpResponse:
        return HttpResponse(200, {}, method.encode())

    async def stream(self, call: Call) -> AsyncIterator[Item]:
        try:
            for number in range(call.arguments["to"]):
                if number == call.arguments.get("fail_at"):
                    raise PermissionDenied("no more")
                yield Item(number)
        finally:
            self.closed.set()


async def in_thread(work: Callable[[Bridge], Any], port: Port) -> Any:
    bridge = Bridge(port, asyncio.get_running_loop())
    return await asyncio.wait_for(asyncio.to_thread(work, bridge), 5)


async def test_every_service_comes_back() -> None:
    fake = FakePort(answers={"x.y": Result(1)}, secrets={"token": "s"})
    port = Port(fake)

    def work(bridge: Bridge) -> list[Any]:
        bridge.emit("c", Item(1))
        bridge.kv_put("k", b"v")
        found = [
            bridge.publish(Event("x"), "c"),
            bridge.invoke(Call("x.y", {})).output,
            bridge.kv_get("k"),
            bridge.kv_list(""),
            bridge.http_request("GET", "u", {}, b"", 1).body,
            bridge.get_secret("token"),
        ]
        bridge.kv_delete("k")
        bridge.log("info", "text", {}, "c")
        bridge.span(SpanRecord("s", 0, 1), "c")
        return found

    assert await in_thread(work, port) == [1, 1, b"v", ["k"], b"GET", "s"]
    await asyncio.sleep(0)
    assert (fake.store, fake.logs, len(fake.spans), len(fake.items)) == ({}, ["info: text"], 1, 1)


async def test_errors_come_back_as_themselves() -> None:
    with pytest.raises(KeyError):
        await in_thread(lambda bridge: bridge.get_secret("none"), Port(FakePort()))


async def test_streams_end_with_their_reader() -> None:
    port = Port(FakePort())
    every = await in_thread(lambda b: [i.output for i in b.stream(Call("x", {"to": 3}))], port)
    assert every == [0, 1, 2]
    port = Port(FakePort())
    assert await in_thread(lambda b: next(iter(b.stream(Call("x", {"to": 3})))).output, port) == 0
    await asyncio.wait_for(port.closed.wait(), 2)
    with pytest.raises(PermissionDenied):
        await in_thread(lambda b: list(b.stream(Call("x", {"to": 3, "fail_at": 1}))), port)
