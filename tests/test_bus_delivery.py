"""Tests of `loom_host.bus.delivery`: acknowledgement, redelivery, dead letters."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loom_host.bus import ATTEMPTS_MAX, DEAD_LETTER, Delivery, MemoryBus
from loom_sdk.errors import BusError
from loom_sdk.events import Event, QoS


async def publish(bus: MemoryBus, *payloads: bytes, priority: int = 50) -> None:
    for payload in payloads:
        await bus.publish("t", Event(type="test", payload=payload, priority=priority))


async def test_what_is_not_acknowledged_comes_again_first_and_in_order() -> None:
    bus = MemoryBus()
    subscription = bus.subscribe("t", manual_ack=True)
    await publish(bus, b"1", b"2", b"3")
    one, two, three = [await subscription.take() for _ in range(3)]
    await publish(bus, b"urgent", priority=100)
    subscription.ack(two)
    subscription.nack(three)
    subscription.nack(one)
    again = [await subscription.take() for _ in range(3)]
    assert [d.event.payload for d in again] == [b"1", b"3", b"urgent"]
    assert [(d.attempt, d.event.delivery_attempt) for d in again] == [(2, 2), (2, 2), (1, 1)]
    assert [d.sequence for d in again] == [1, 3, 4]
    assert again[0].event.id == one.event.id


async def test_the_third_failure_is_a_dead_letter_with_the_reason() -> None:
    bus = MemoryBus()
    letters = bus.subscribe(DEAD_LETTER)
    subscription = bus.subscribe("t", manual_ack=True, name="plugin")
    await publish(bus, b"poison", b"good")
    for attempt in range(1, ATTEMPTS_MAX + 1):
        delivery = await subscription.take()
        assert (delivery.event.payload, delivery.attempt) == (b"poison", attempt)
        subscription.nack(delivery, "the plugin crashed")
    letter = await anext(letters)
    assert (letter.payload, letter.metadata["subscription"]) == (b"poison", "plugin")
    assert letter.metadata["reason"] == "the plugin crashed in 3 attempts"
    good = await subscription.take()
    subscription.ack(good)
    stats = subscription.stats()
    assert (stats["delivered"], stats["acked"], stats["redelivered"]) == (2, 1, 2)
    assert (stats["failed"], stats["in_flight"]) == ({"attempts": 1}, 0)


async def test_nack_all_gives_back_everything_in_flight() -> None:
    bus = MemoryBus()
    subscription = bus.subscribe("t", manual_ack=True)
    await publish(bus, b"1", b"2", b"3")
    for _ in range(2):
        await subscription.take()
    assert (subscription.nack_all(), subscription.in_flight) == (2, 0)
    assert [(await subscription.take()).event.payload for _ in range(3)] == [b"1", b"2", b"3"]


async def test_realtime_events_are_not_repeated() -> None:
    bus = MemoryBus()
    subscription = bus.subscribe("t", qos=QoS.REALTIME, manual_ack=True)
    await publish(bus, b"1")
    subscription.nack(await subscription.take())
    assert subscription.stats()["failed"] == {"realtime": 1}
    assert subscription.stats()["redelivering"] == 0


async def test_a_rejected_event_is_a_dead_letter_at_once() -> None:
    bus = MemoryBus()
    letters = bus.subscribe(DEAD_LETTER)
    subscription = bus.subscribe("t", manual_ack=True)
    await publish(bus, b"1")
    subscription.dead_letter(await subscription.take(), "deadline exceeded")
    assert (await anext(letters)).metadata["reason"] == "deadline exceeded"
    assert subscription.stats()["failed"] == {"rejected": 1}


async def test_answering_twice_does_nothing() -> None:
    bus = MemoryBus()
    subscription = bus.subscribe("t", manual_ack=True)
    await publish(bus, b"1")
    delivery = await subscription.take()
    subscription.nack(delivery)
    again = await subscription.take()
    subscription.ack(delivery)  # the old answer is not one for the new attempt
    assert subscription.in_flight == 1
    subscription.ack(again)
    subscription.ack(again)
    subscription.nack(again)
    subscription.dead_letter(again, "late")
    stats = subscription.stats()
    assert (stats["acked"], stats["failed"], stats["redelivering"]) == (1, {}, 0)


async def test_a_waiting_receiver_is_woken_by_a_redelivery() -> None:
    bus = MemoryBus()
    subscription = bus.subscribe("t", manual_ack=True)
    await publish(bus, b"1")
    delivery = await subscription.take()
    waiting = asyncio.create_task(subscription.take())
    await asyncio.sleep(0)
    subscription.nack(delivery)
    async with asyncio.timeout(1):
        assert (await waiting).attempt == 2


async def test_closing_ends_deliveries_and_counts_the_unanswered() -> None:
    bus = MemoryBus()
    subscription = bus.subscribe("t", manual_ack=True)
    await publish(bus, b"1", b"2")
    seen: list[Delivery] = []

    async def receive() -> None:
        async for delivery in subscription.deliveries():
            seen.append(delivery)

    task = asyncio.create_task(receive())
    await asyncio.sleep(0)
    await bus.aclose()
    async with asyncio.timeout(1):
        await task
    assert len(seen) == 2
    assert subscription.stats()["failed"] == {"closed": 2}
    with pytest.raises(BusError, match="closed"):
        await subscription.take()
    subscription.nack(seen[0])
    assert subscription.stats()["redelivering"] == 0


async def test_each_mode_names_the_other_when_used_wrongly() -> None:
    bus = MemoryBus()
    with pytest.raises(BusError, match=r"take\(\)"):
        await anext(bus.subscribe("t", manual_ack=True))
    with pytest.raises(BusError, match=r"anext\(\)"):
        await bus.subscribe("t").take()
    with pytest.raises(BusError, match=r"anext\(\)"):
        await anext(bus.subscribe("t").deliveries())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["publish", "take", "ack", "nack", "reject", "all"]), max_size=60))
def test_every_delivered_event_is_accounted_for(steps: list[str]) -> None:
    asyncio.run(_follow(steps))


async def _follow(steps: list[str]) -> None:
    bus = MemoryBus(publish_wait_ms=1)
    subscription = bus.subscribe("t", manual_ack=True, capacity=8)
    held: list[Delivery] = []
    for number, step in enumerate(steps):
        if step == "publish":
            await publish(bus, b"%d" % number, priority=number % 3)
        elif step == "take" and (subscription.depth or subscription.stats()["redelivering"]):
            held.append(await subscription.take())
        elif step == "all":
            subscription.nack_all()
            held.clear()
        elif held and step == "ack":
            subscription.ack(held.pop())
        elif held and step == "nack":
            subscription.nack(held.pop())
        elif held and step == "reject":
            subscription.dead_letter(held.pop(), "no")
        stats = subscription.stats()
        gone = sum(stats["failed"].values())
        kept = stats["in_flight"] + stats["redelivering"]
        assert stats["delivered"] == stats["acked"] + gone + kept
        assert (
            stats["matched"] == stats["delivered"] + sum(stats["dropped"].values()) + stats["depth"]
        )
