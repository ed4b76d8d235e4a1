"""Tests of `loom_host.bus`: routing, order, the three QoS, lagging, dead letters, counts."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import weakref
from dataclasses import MISSING, FrozenInstanceError, fields
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loom_host.bus import CAPACITY, DEAD_LETTER, MemoryBus, Subscription
from loom_host.bus.memory import YIELD_EVERY
from loom_host.telemetry import Tracer
from loom_sdk.errors import BusError
from loom_sdk.events import Event, QoS


def numbered(number: int, priority: int = 50, **more: Any) -> Event:
    return Event(type="test", payload=str(number).encode(), priority=priority, **more)


def numbers(events: list[Event]) -> list[int]:
    return [int(event.payload) for event in events]


def take_queued(subscription: Subscription) -> list[Event]:
    """What is queued now, without waiting."""
    return [_step(subscription) for _ in range(subscription.depth)]


def _step(subscription: Subscription) -> Event:
    try:
        subscription.__anext__().send(None)
    except StopIteration as done:
        event: Event = done.value
        return event
    raise AssertionError("the queue was empty")


async def test_publish_delivers_to_matching_subscriptions_and_says_how_many() -> None:
    bus = MemoryBus()
    async with bus.subscribe("a.*") as star, bus.subscribe("a.b") as exact, bus.subscribe("b.>"):
        assert await bus.publish("a.b", numbered(1)) == 2
        event = await anext(star)
        assert (event.topic, event.source) == ("a.b", "host")
        assert (await anext(exact)) is event


async def test_an_event_with_another_topic_is_restamped_without_touching_the_original() -> None:
    bus = MemoryBus()
    first, second = bus.subscribe("one"), bus.subscribe("two")
    event = numbered(1, source="vad")
    await bus.publish("one", event)
    await bus.publish("two", event)
    assert (await anext(first)).topic == event.topic == "one"
    again = await anext(second)
    assert (again.topic, again.source, again.id) == ("two", "vad", event.id)
    assert again.payload is event.payload


async def test_no_subscriber_is_zero_counted_and_warned_about_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus = MemoryBus()
    with caplog.at_level(logging.WARNING):
        assert [await bus.publish("a.b", numbered(n)) for n in range(3)] == [0, 0, 0]
    assert len([r for r in caplog.records if "a.b" in r.getMessage()]) == 1
    assert bus.stats()["topics"]["a.b"]["unrouted"] == 3


@pytest.mark.parametrize("topic", ["", "a..b", "a.*", "a.>", "a b"])
async def test_a_malformed_topic_is_refused(topic: str) -> None:
    with pytest.raises(BusError, match="is not a topic"):
        await MemoryBus().publish(topic, numbered(1))


@pytest.mark.parametrize(("pattern", "capacity"), [("a.>.b", None), ("", None), ("a", 0)])
def test_a_malformed_subscription_is_refused(pattern: str, capacity: int | None) -> None:
    with pytest.raises(BusError):
        MemoryBus().subscribe(pattern, capacity=capacity)


async def test_types_and_filter_select_and_a_broken_filter_only_hurts_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus = MemoryBus()
    typed = bus.subscribe("t", types=["b"])
    odd = bus.subscribe("t", filter=lambda event: int(event.payload) % 2 == 1)
    broken = bus.subscribe("t", filter=lambda event: bool(1 / 0), name="broken")
    for number in range(4):
        await bus.publish("t", Event(type="ab"[number % 2], payload=b"%d" % number))
    assert numbers(take_queued(typed)) == numbers(take_queued(odd)) == [1, 3]
    assert broken.stats()["dropped"] == {"filter_error": 4}
    assert len([r for r in caplog.records if "broken" in r.getMessage()]) == 1


@pytest.mark.parametrize("qos", list(QoS))
async def test_capacity_by_qos(qos: QoS) -> None:
    subscription = MemoryBus().subscribe("t", qos=qos)
    assert subscription.capacity == CAPACITY[qos]
    assert CAPACITY == {QoS.REALTIME: 64, QoS.BATCHED: 1024, QoS.BACKGROUND: 4096}


@pytest.mark.parametrize(
    ("queued", "incoming", "kept", "reason"),
    [
        ([50, 50, 50], 50, [1, 2, 3], "evicted"),  # the oldest of equals
        ([50, 10, 90], 50, [2, 0, 3], "evicted"),  # the lowest, though not the oldest
        ([50, 60, 90], 10, [2, 1, 0], "overflow"),  # the incoming one is the lowest
        ([10, 10, 90], 10, [2, 1, 3], "evicted"),
        ([90, 90, 90], 200, [1, 2, 3], None),  # clamped to 100, still above 90
    ],
)
async def test_realtime_drops_the_oldest_of_the_lowest_priority(
    queued: list[int], incoming: int, kept: list[int], reason: str | None
) -> None:
    bus = MemoryBus()
    subscription = bus.subscribe("t", qos=QoS.REALTIME, capacity=3)
    for number, priority in enumerate(queued):
        await bus.publish("t", numbered(number, priority))
    await asyncio.wait_for(bus.publish("t", numbered(3, incoming)), 0.05)
    left = numbers(take_queued(subscription))
    assert left == kept if reason else set(left) == set(kept)
    assert subscription.stats()["dropped"] == {reason or "evicted": 1}
    assert bus.stats()["topics"]["t"]["dropped"] == {reason or "evicted": 1}


@pytest.mark.parametrize("qos", [QoS.BATCHED, QoS.BACKGROUND])
async def test_a_full_queue_makes_the_publisher_wait_until_there_is_room(qos: QoS) -> None:
    bus = MemoryBus(publish_wait_ms=5000)
    subscription = bus.subscribe("t", qos=qos, capacity=2)
    for number in range(2):
        await bus.publish("t", numbered(number))
    waiting = asyncio.create_task(bus.publish("t", numbered(2)))
    await asyncio.sleep(0.01)
    assert (waiting.done(), subscription.state) == (False, "full")
    assert (await anext(subscription)).payload == b"0"
    assert await waiting == 1
    assert numbers(take_queued(subscription)) == [1, 2]
    assert subscription.stats()["dropped"] == {}


async def test_a_stuck_subscriber_lags_and_its_events_become_dead_letters() -> None:
    bus = MemoryBus(publish_wait_ms=30, source="host")
    letters = bus.subscribe(DEAD_LETTER)
    stuck = bus.subscribe("t", capacity=4, name="stuck")
    fine = bus.subscribe("t", name="fine")
    for number in range(4):
        await bus.publish("t", numbered(number))
    began = perf_counter()
    assert await bus.publish("t", numbered(4, source="mic", metadata={"seq": "4"})) == 1
    assert 0.02 < perf_counter() - began < 1
    assert stuck.state == "lagging"
    began = perf_counter()
    for number in range(5, 25):
        assert await bus.publish("t", numbered(number)) == 1
    assert perf_counter() - began < 0.02
    letter = await anext(letters)
    assert (letter.type, letter.payload, letter.source) == ("dead_letter", b"4", "host")
    assert letter.metadata["seq"] == "4"
    assert {k: letter.metadata[k] for k in ("reason", "subscription", "source")} == {
        "reason": "publish_wait",
        "subscription": "stuck",
        "source": "mic",
    }
    assert letter.metadata["original_topic"] == "t"
    assert letter.metadata["original_type"] == "test"
    assert stuck.stats()["dropped"] == {"publish_wait": 1, "lagging": 20}
    assert numbers(take_queued(fine)) == list(range(25))


async def test_lagging_ends_below_half_and_publishers_wait_again() -> None:
    bus = MemoryBus(publish_wait_ms=20)
    slow = bus.subscribe("t", capacity=4)
    for number in range(5):
        await bus.publish("t", numbered(number))
    assert slow.state == "lagging"
    for expected in ("lagging", "lagging", "normal"):
        await anext(slow)
        assert slow.state == expected
    for number in range(3):
        assert await bus.publish("t", numbered(number)) == 1
    waiting = asyncio.create_task(bus.publish("t", numbered(9)))
    await asyncio.sleep(0)
    await anext(slow)
    assert await waiting == 1


async def test_one_publisher_that_waits_does_not_stall_another() -> None:
    bus = MemoryBus(publish_wait_ms=2000)
    bus.subscribe("stuck", capacity=1)
    other = bus.subscribe("other")
    await bus.publish("stuck", numbered(0))
    waiting = asyncio.create_task(bus.publish("stuck", numbered(1)))
    await asyncio.sleep(0)
    began = perf_counter()
    for number in range(100):
        await bus.publish("other", numbered(number))
        await anext(other)
    assert perf_counter() - began < 0.5
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_room_is_given_to_the_waiting_publisher_of_the_highest_priority() -> None:
    bus = MemoryBus(publish_wait_ms=5000)
    subscription = bus.subscribe("t", capacity=1)
    await bus.publish("t", numbered(0))
    waiting = [asyncio.create_task(bus.publish("t", numbered(p, p))) for p in (10, 90, 50)]
    await asyncio.sleep(0)
    assert numbers([await anext(subscription) for _ in range(4)]) == [0, 90, 50, 10]
    assert await asyncio.gather(*waiting) == [1, 1, 1]


async def test_a_cancelled_publisher_leaves_no_ghost_behind() -> None:
    bus = MemoryBus(publish_wait_ms=5000)
    subscription = bus.subscribe("t", capacity=1)
    await bus.publish("t", numbered(0))
    waiting = asyncio.create_task(bus.publish("t", numbered(1)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await anext(subscription)
    assert subscription.depth == 0
    assert subscription.stats()["dropped"] == {"publisher_cancelled": 1}
    assert not subscription.lagging


async def test_a_cycle_of_handlers_does_not_deadlock() -> None:
    bus = MemoryBus(publish_wait_ms=10)
    seen = {"a": 0, "b": 0}

    async def forward(here: str, there: str) -> None:
        async for event in bus.subscribe(here, capacity=2):
            seen[here] += 1
            for _ in range(2):
                await bus.publish(there, numbered(int(event.payload) + 1))

    tasks = [asyncio.create_task(forward("a", "b")), asyncio.create_task(forward("b", "a"))]
    await asyncio.sleep(0)
    for number in range(3):
        await bus.publish("a", numbered(number))
    await asyncio.sleep(0.3)
    before = dict(seen)
    await asyncio.sleep(0.2)
    assert seen["a"] > before["a"] > 0
    assert seen["b"] > before["b"] > 0
    await bus.aclose()
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("qos", [QoS.REALTIME, None])
async def test_a_publisher_in_a_tight_loop_starves_nobody(qos: QoS | None) -> None:
    bus = MemoryBus()
    if qos is not None:
        bus.subscribe("t", qos=qos)

    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(count())
    for _ in range(10 * YIELD_EVERY):
        await bus.publish("t", numbered(0))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert turns >= 10


async def test_publish_nowait_never_waits() -> None:
    bus = MemoryBus()
    letters = bus.subscribe(DEAD_LETTER)
    subscription = bus.subscribe("t", capacity=1)
    assert [bus.publish_nowait("t", numbered(n)) for n in range(2)] == [1, 0]
    assert (await anext(letters)).metadata["reason"] == "queue_full"
    assert subscription.state == "full"


async def test_dead_letters_of_dead_letters_do_not_exist() -> None:
    bus = MemoryBus(publish_wait_ms=1)
    letters = bus.subscribe(DEAD_LETTER, capacity=1, name="letters")
    everything = bus.subscribe(">", capacity=1, name="everything")
    for number in range(10):
        await bus.publish("t", numbered(number))
    assert (letters.depth, everything.depth) == (1, 1)
    assert letters.stats()["dropped"] == {"queue_full": 8}
    assert bus.stats()["topics"][DEAD_LETTER]["published"] == 9


async def test_bus_and_subscription_end_iterations_cleanly() -> None:
    bus = MemoryBus()
    first, second = bus.subscribe("a"), bus.subscribe(">")

    async def collect(subscription: Subscription) -> list[Event]:
        return [event async for event in subscription]

    tasks = [asyncio.create_task(collect(s)) for s in (first, first, second)]
    await asyncio.sleep(0)
    await first.aclose()
    await bus.publish("a", numbered(1))
    await asyncio.sleep(0)
    await bus.aclose()
    async with asyncio.timeout(1):
        assert [len(events) for events in await asyncio.gather(*tasks)] == [0, 0, 1]
    with pytest.raises(BusError, match="closed"):
        await bus.publish("a", numbered(1))
    with pytest.raises(BusError, match="closed"):
        bus.subscribe("a")


async def test_closing_a_subscription_frees_its_publisher_and_counts_what_was_queued() -> None:
    bus = MemoryBus(publish_wait_ms=5000)
    subscription = bus.subscribe("t", capacity=2)
    for number in range(2):
        await bus.publish("t", numbered(number))
    waiting = asyncio.create_task(bus.publish("t", numbered(2)))
    await asyncio.sleep(0)
    subscription.close()
    async with asyncio.timeout(1):
        assert await waiting == 0
    assert subscription.stats()["dropped"] == {"closed": 3}


async def test_unsubscribe_touches_only_its_own_counts() -> None:
    bus = MemoryBus()
    gone, stays = bus.subscribe("t", name="gone"), bus.subscribe("t", name="stays")
    await bus.publish("t", numbered(1))
    await bus.publish("u", numbered(1))
    before = stays.stats()
    gone.close()
    stats = bus.stats()
    assert stats["subscriptions"] == [before]
    assert (stats["topics"]["t"]["delivered"], stats["topics"]["t"]["dropped"]) == (
        2,
        {"closed": 1},
    )
    assert stats["topics"]["u"] == {"published": 1, "delivered": 0, "unrouted": 1, "dropped": {}}


async def test_receivers_share_a_subscription_and_a_cancelled_one_loses_nothing() -> None:
    bus = MemoryBus()
    subscription = bus.subscribe("t")
    tasks = [asyncio.ensure_future(anext(subscription)) for _ in range(3)]
    await asyncio.sleep(0)
    await bus.publish("t", numbered(0))
    tasks[0].cancel()  # it was woken for the event, and must pass it on
    await asyncio.sleep(0)
    await bus.publish("t", numbered(1))
    async with asyncio.timeout(1):
        assert sorted(numbers(list(await asyncio.gather(*tasks[1:])))) == [0, 1]
    late = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    late.cancel()
    await asyncio.gather(*tasks[:1], late, return_exceptions=True)
    await bus.publish("t", numbered(2))
    assert numbers(take_queued(subscription)) == [2]


async def test_a_thousand_subscriptions_come_and_go_without_a_trace() -> None:
    bus = MemoryBus()
    keeper = bus.subscribe("keep")
    await bus.publish("keep", numbered(0))
    alive = []
    for number in range(1000):
        pattern = (f"t.{number}", f"t.{number}.>")[number % 2]
        async with bus.subscribe(pattern) as subscription:
            await bus.publish(f"t.{number}" if number % 2 == 0 else f"t.{number}.x", numbered(1))
            assert subscription.depth == 1
        alive.append(weakref.ref(subscription))
    del subscription
    gc.collect()
    assert sum(ref() is not None for ref in alive) == 0
    assert bus.subscriptions() == [keeper]
    assert not bus._table._wild
    assert list(bus._table._exact) == ["keep"]


async def test_hooks_see_sampled_traces_and_dispatch_times() -> None:
    tracer = Tracer()
    times: list[tuple[str, float]] = []
    bus = MemoryBus(
        on_publish=lambda topic, event: tracer.start(f"publish {topic}", event.traceparent),
        on_dispatch=lambda name, seconds: times.append((name, seconds)),
    )
    subscription = bus.subscribe("t", name="mine")
    trace = f"00-{'a' * 32}-{'b' * 16}-"
    for traceparent in ("", trace + "00", trace + "01"):
        await bus.publish("t", numbered(1, traceparent=traceparent))
    bus.publish_nowait("t", numbered(1, traceparent=trace + "01"))
    spans = tracer.finished()
    assert [(span.name, span.parent_id) for span in spans] == [("publish t", "b" * 16)] * 2
    assert [span.attributes for span in spans] == [{"delivered": 1}] * 2
    got = [event.traceparent for event in take_queued(subscription)]
    assert got == ["", trace + "00", *(span.traceparent for span in spans)]
    for number in range(64):
        await bus.publish("t", numbered(number))
        await anext(subscription)
    take_queued(subscription)
    assert [name for name, _ in times] == ["mine"]
    assert 0 <= times[0][1] < 1


PUBLISHERS = st.lists(
    st.lists(
        st.tuples(st.sampled_from(["t.a", "t.b"]), st.sampled_from([0, 10, 50, 99])), max_size=20
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(PUBLISHERS, st.integers(1, 6), st.integers(0, 40), st.sampled_from(list(QoS)))
def test_order_holds_and_no_event_is_unaccounted_for(
    publishers: list[list[tuple[str, int]]], capacity: int, takes: int, qos: QoS
) -> None:
    asyncio.run(_check_order_and_counts(publishers, capacity, takes, qos))


async def _check_order_and_counts(
    publishers: list[list[tuple[str, int]]], capacity: int, takes: int, qos: QoS
) -> None:
    bus = MemoryBus(publish_wait_ms=1)
    subscription = bus.subscribe("t.*", qos=qos, capacity=capacity)

    async def publish(who: int, events: list[tuple[str, int]]) -> None:
        for number, (topic, priority) in enumerate(events):
            await bus.publish(topic, numbered(number, priority, source=f"p{who}"))

    tasks = [asyncio.create_task(publish(n, events)) for n, events in enumerate(publishers)]
    received: list[Event] = []
    for _ in range(takes):
        await asyncio.sleep(0)
        if subscription.depth:
            received.append(await anext(subscription))
    await asyncio.gather(*tasks)
    stats = subscription.stats()
    published = sum(len(events) for events in publishers)
    assert published == stats["matched"]
    assert published == stats["delivered"] + sum(stats["dropped"].values()) + stats["depth"]
    assert stats["delivered"] == len(received)
    received += take_queued(subscription)
    lanes: dict[tuple[str, str, int], list[int]] = {}
    for event in received:
        lane = (event.source, event.topic, event.priority)
        lanes.setdefault(lane, []).append(int(event.payload))
    assert all(lane == sorted(lane) for lane in lanes.values())
    topics = bus.stats()["topics"]
    assert sum(topics[t]["published"] for t in topics if t != DEAD_LETTER) == published


async def test_a_topic_is_wanted_while_somebody_would_hear_it() -> None:
    bus = MemoryBus()
    assert not bus.wanted("a.b")
    async with bus.subscribe("a.*"):
        assert bus.wanted("a.b")
        assert not bus.wanted("b.b")
        with pytest.raises(BusError):
            bus.wanted("a..b")
    assert not bus.wanted("a.b")
    bus.subscribe("a.b")
    await bus.aclose()
    assert not bus.wanted("a.b")


def test_an_event_is_made_of_its_fields_and_then_stays_as_it_is() -> None:
    made = inspect.signature(Event).parameters
    assert list(made) == [field.name for field in fields(Event)]
    for field in fields(Event):
        if field.default_factory is MISSING:
            assert made[field.name].default == (
                inspect.Parameter.empty if field.name == "type" else field.default
            )
    values = {name: object() for name in made}
    event: Any = Event(**values)  # type: ignore[arg-type]
    assert {name: getattr(event, name) for name in made} == values
    with pytest.raises(FrozenInstanceError):
        event.topic = "elsewhere"
