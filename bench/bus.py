"""The bus against `asyncio.Queue`, fan-out, and publish-to-receive latency."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import statistics
from collections.abc import Coroutine
from time import perf_counter
from typing import Any

from loom_host.bus import MemoryBus
from loom_sdk.events import Event, QoS

ROUNDS = 7
EVENTS = 30_000
FAN_OUT = 100
PAYLOAD = bytes(640)
"""One 20 ms chunk of 16 kHz mono PCM."""
METADATA = {"stream_id": "bench", "seq": "0"}
TARGET_RATIO = 0.35


def fresh(number: int) -> Event:
    """An event with its own id and time; priorities are mixed over 0 to 99."""
    return Event("bench", PAYLOAD, METADATA, priority=number * 37 % 100)


async def queue_rate() -> float:
    """The floor: build the event, pass it through `asyncio.Queue` between two tasks; events/s."""
    queue: asyncio.Queue[Event] = asyncio.Queue(1024)

    async def send() -> None:
        for number in range(EVENTS):
            await queue.put(fresh(number))

    async def receive() -> None:
        for _ in range(EVENTS):
            await queue.get()

    return await _rate(send(), receive(), EVENTS)


async def bus_rate() -> float:
    """Events/s at the one receiver: Batched, a filter, 100 unrelated subscriptions, statistics."""
    bus = MemoryBus()
    for number in range(FAN_OUT):
        bus.subscribe(f"other.{number}.>" if number % 2 else f"other.{number}")
    subscription = bus.subscribe(
        "bench.events", qos=QoS.BATCHED, filter=lambda event: event.type == "bench"
    )

    async def send() -> None:
        for number in range(EVENTS):
            await bus.publish("bench.events", fresh(number))

    async def receive() -> None:
        for _ in range(EVENTS):
            await anext(subscription)

    rate = await _rate(send(), receive(), EVENTS)
    assert bus.stats()["topics"]["bench.events"]["dropped"] == {}
    await bus.aclose()
    return rate


async def fan_out_rate() -> float:
    """Deliveries/s to 100 Batched subscribers of one topic."""
    bus = MemoryBus()
    subscriptions = [bus.subscribe("bench.events") for _ in range(FAN_OUT)]
    events = EVENTS // FAN_OUT * 4

    async def send() -> None:
        for number in range(events):
            await bus.publish("bench.events", fresh(number))

    async def receive() -> None:
        async with asyncio.TaskGroup() as group:
            for subscription in subscriptions:
                group.create_task(_take(subscription, events))

    rate = await _rate(send(), receive(), events * FAN_OUT)
    await bus.aclose()
    return rate


async def latencies() -> list[float]:
    """Microseconds from the call of publish to the receiver holding the event, one at a time."""
    bus = MemoryBus()
    subscription = bus.subscribe("bench.events")
    found: list[float] = []
    began = 0.0

    async def receive() -> None:
        async for _ in subscription:
            found.append((perf_counter() - began) * 1e6)

    task = asyncio.create_task(receive())
    await asyncio.sleep(0)
    for number in range(5000):
        event = fresh(number)
        began = perf_counter()
        await bus.publish("bench.events", event)
        await asyncio.sleep(0)
    await bus.aclose()
    await task
    return found


async def _take(subscription: Any, count: int) -> None:
    for _ in range(count):
        await anext(subscription)


async def _rate(
    send: Coroutine[Any, Any, None], receive: Coroutine[Any, Any, None], n: int
) -> float:
    gc.collect()
    began = perf_counter()
    await asyncio.gather(send, receive)
    return n / (perf_counter() - began)


def rows() -> list[dict[str, Any]]:
    """Rows of the benchmark table; each ratio is met only if its pessimistic quartile is."""
    floors: list[float] = []
    rates: list[float] = []
    for _ in range(ROUNDS):
        floors.append(asyncio.run(queue_rate()))
        rates.append(asyncio.run(bus_rate()))
    ratios = [rate / floor for rate, floor in zip(rates, floors, strict=True)]
    fans = [asyncio.run(fan_out_rate()) for _ in range(ROUNDS)]
    waits = [statistics.quantiles(asyncio.run(latencies()), n=100) for _ in range(ROUNDS)]
    floor = statistics.median(floors)
    return [
        _row(
            "bus: one publisher, one Batched subscriber",
            statistics.median(rates),
            "events/s",
            f"asyncio.Queue with the same event, {floor:.0f} events/s",
            ratio=statistics.median(ratios),
            target=f">= {TARGET_RATIO}",
            met=statistics.quantiles(ratios, n=4)[0] >= TARGET_RATIO,
        ),
        _row("bus: fan-out to 100 subscribers", statistics.median(fans), "deliveries/s"),
        _latency("p50", [wait[49] for wait in waits]),
        _latency("p99", [wait[98] for wait in waits]),
    ]


def _latency(name: str, values: list[float]) -> dict[str, Any]:
    return _row(
        f"bus: publish to receive, {name}",
        statistics.median(values),
        "us",
        "the Rust project's target, 1000 us",
        ratio=statistics.median(values) / 1000,
        target="<= 1.0",
        met=statistics.quantiles(values, n=4)[2] <= 1000,
    )


def _row(
    name: str,
    value: float,
    unit: str,
    peer: str = "",
    ratio: float | None = None,
    target: str = "",
    met: bool | None = None,
) -> dict[str, Any]:
    return {
        "name": name,
        "value": round(value, 1),
        "unit": unit,
        "peer": peer,
        "ratio": None if ratio is None else round(ratio, 3),
        "target": target,
        "met": met,
    }


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        for row in rows():
            print(" | ".join(str(value) for value in row.values()))
