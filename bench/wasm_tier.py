"""The wasm tier: calls and events against Extism and the stock marshaller, and what guests cost.

(a) to (d) of the table are here, (e) and (f) in `wasm_costs.py`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from loom_host import Host
from loom_host.runtimes.wasm.cache import default_folder
from loom_host.runtimes.wasm.engine import Engine
from loom_host.runtimes.wasm.host_imports import call_record, event_record
from loom_host.runtimes.wasm.ticket import Ticket
from loom_sdk import Call, Event

from . import wasm_costs
from .table import Row, row
from .wasm_guests import SIZES, echo_host, extism_plugin, guest, json_text

ROUNDS = 9
CALLS, HOPS, EVENTS = 2000, 500, 300
CALLERS, WORK_MS = 8, 5


def us_per(times: int, work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times * 1e6


async def us_per_await(times: int, work: Callable[[], Awaitable[Any]]) -> float:
    began = time.perf_counter()
    for _ in range(times):
        await work()
    return (time.perf_counter() - began) / times * 1e6


def instance_rows(engine: Engine, peer: Any) -> list[Row]:
    """(a) A call on an instance, JSON text in and out."""
    ours, found = guest(engine), []
    for name, size in SIZES.items():
        text = json_text(size)
        record = call_record(Call("bench.echo", {})) | {"arguments": text}

        def call(record: Any = record) -> Any:
            return ours.call("invoke", (record,), Ticket(""))["output"]

        def call_peer(text: str = text) -> Any:
            return peer.call("echo", text)

        assert call() == bytes(call_peer()).decode() == text
        values, floors = [], []
        for _ in range(ROUNDS):
            values.append(us_per(CALLS, call))
            floors.append(us_per(CALLS, call_peer))
        title = f"wasm, a call on an instance, {name}"
        found.append(row(title, values, "us", peer="Extism", floors=floors, target=1.0))
    return found


async def invoke_rows(isolation: str, peer: Any, target: float) -> list[Row]:
    """(b) `host.invoke` with everything that it does; both callers hold objects, not text."""
    found = []
    async with echo_host(isolation) as host:
        for name, size in SIZES.items():
            arguments = json.loads(json_text(size))
            values, floors = [], []

            async def call(arguments: Any = arguments) -> Any:
                return await host.invoke("bench.echo", arguments)

            async def call_peer(arguments: Any = arguments) -> Any:
                text = json.dumps(arguments)
                return json.loads(bytes(await asyncio.to_thread(peer.call, "echo", text)))

            for _ in range(ROUNDS):
                values.append(await us_per_await(HOPS, call))
                floors.append(await us_per_await(HOPS, call_peer))
            found.append(
                row(
                    f"wasm, host.invoke, {isolation}, {name}",
                    values,
                    "us",
                    peer="Extism in to_thread",
                    floors=floors,
                    target=target,
                )
            )
    return found


def event_rows(engine: Engine) -> list[Row]:
    """(c) An event into a C guest, and the gain over the stock marshaller."""
    ours, stock = guest(engine), guest(engine, direct=False)
    small, large = (event_record(Event("a", bytes(size), topic="t")) for size in (640, 32 * 1024))

    def send(to: Any, record: Any) -> None:
        to.call("handle-event", (record,), Ticket(""))

    times = [us_per(EVENTS, lambda: send(ours, small)) for _ in range(ROUNDS)]
    gains = []
    for _ in range(ROUNDS):
        direct = us_per(20, lambda: send(ours, large))
        gains.append(us_per(3, lambda: send(stock, large)) / direct)
    return [
        row("wasm, event of 640 B on an instance", times, "us", target=150),
        row(
            "wasm, event of 32 KB, times as fast as stock", gains, "x", peer="stock marshaller",
            target=10, at_least=True,
        ),
    ]  # fmt: skip


async def turns_of(host: Host, milliseconds: float) -> int:
    """How many turns of the guest's loop take that long."""
    turns = 100_000
    times = []
    for _ in range(5):
        began = time.perf_counter()
        await host.invoke("bench.work", {"turns": turns})
        times.append((time.perf_counter() - began) * 1000)
    return int(turns * milliseconds / min(times))


async def parallel_row(isolation: str) -> Row:
    """(d) The throughput of 8 callers over that of one; the guest computes."""
    async with echo_host(isolation) as host:
        arguments = {"turns": await turns_of(host, WORK_MS)}

        async def caller(calls: int) -> None:
            for _ in range(calls):
                await host.invoke("bench.work", arguments)

        async def per_second(callers: int, calls: int) -> float:
            began = time.perf_counter()
            await asyncio.gather(*(caller(calls) for _ in range(callers)))
            return callers * calls / (time.perf_counter() - began)

        await per_second(CALLERS, 4)
        gains = []
        for _ in range(ROUNDS):
            one = await per_second(1, 40)
            gains.append(await per_second(CALLERS, 10) / one)
    return row(
        f"wasm, {CALLERS} callers of a {WORK_MS} ms guest, {isolation}", gains, "x",
        peer="one caller", target=1.7, at_least=True,
    )  # fmt: skip


def rows() -> list[Row]:
    engine, peer = Engine(default_folder()), extism_plugin()
    try:
        return [
            *instance_rows(engine, peer),
            *asyncio.run(invoke_rows("thread", peer, 1.3)),
            *asyncio.run(invoke_rows("process", peer, 1.8)),
            *event_rows(engine),
            asyncio.run(parallel_row("thread")),
            asyncio.run(parallel_row("process")),
            *wasm_costs.rows(),
        ]
    finally:
        engine.close()
