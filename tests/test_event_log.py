"""The event log: what is logged comes back by topic and time, in order, and goes away for good."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from loom_host import Host, Settings, load_settings
from loom_host.bus import MemoryBus
from loom_host.bus.tap import Tap, narrowed
from loom_host.event_keeper import EventKeeper
from loom_host.forgetting import forget
from loom_host.settings import EventLogSettings
from loom_host.storage import (
    Batch,
    EventLog,
    MemoryStore,
    PluginStore,
    RocksStore,
    Store,
    log_keys,
)
from loom_host.storage.event_codec import pack_event, unpack_event
from loom_sdk import Event
from loom_sdk.errors import ConfigError, PermissionDenied, StorageError

from .hosting import native_host, until

TEXT = st.text(max_size=8)
TOPIC = st.text(st.characters(exclude_categories=["Cs", "Zs"]), min_size=1, max_size=5)
NUMBER = st.integers(0, 2**64 - 1)
EVENTS = st.builds(
    Event, type=TEXT, payload=st.binary(max_size=30), metadata=st.dictionaries(TEXT, TEXT),
    id=TEXT, timestamp_ms=st.integers(0, 2**60), source=TEXT, confidence=st.floats(0, 1),
    tags=st.lists(TEXT, max_size=3).map(tuple), priority=st.integers(0, 100), topic=TEXT,
    traceparent=TEXT, delivery_attempt=st.integers(1, 3),
)  # fmt: skip


@given(EVENTS)
def test_an_event_comes_back_as_it_was(event: Event) -> None:
    assert unpack_event(pack_event(event)) == event


@given(st.binary(max_size=60))
def test_any_bytes_are_an_event_or_a_storage_error(data: bytes) -> None:
    try:
        assert isinstance(unpack_event(data), Event)
    except StorageError as error:
        assert "no event" in str(error)


@given(st.lists(st.tuples(TOPIC, NUMBER, NUMBER), min_size=2, max_size=2))
def test_keys_are_ordered_by_topic_and_then_by_time(parts: list[tuple[str, int, int]]) -> None:
    keys = [log_keys.event_key(t, log_keys.position(ms, n)) for t, ms, n in parts]
    for key, (topic, ms, number) in zip(keys, parts, strict=True):
        assert log_keys.key_parts(key) == (topic, log_keys.position(ms, number))
        assert key.startswith(log_keys.topic_prefix(topic))
        assert log_keys.topic_of(log_keys.topic_key(topic)) == topic
    (one, *at_one), (two, *at_two) = parts
    if one == two:
        assert (keys[0] < keys[1]) == (at_one < at_two)
    else:
        assert not keys[0].startswith(log_keys.topic_prefix(two))
        longer = [k for k in (keys[0],) if k < log_keys.topic_prefix(two)]
        behind = log_keys.event_key(two, b"\xff" * 16)
        assert bool(longer) != (keys[0] > behind), "one topic lies wholly before the other"


@pytest.fixture(params=["memory", "rocks"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else RocksStore(tmp_path / "store")
    yield made
    made.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Its one number is the time of logging in milliseconds."""
    now = [1000]
    monkeypatch.setattr("loom_host.storage.event_log.now_ms", lambda: now[0])
    return now


def texts(log: EventLog, *args: Any, **kwargs: Any) -> list[str]:
    return [entry.event.payload.decode() for entry in log.read(*args, **kwargs)]


def on(topic: str, text: str, **metadata: str) -> Event:
    return Event("e", text.encode(), metadata, topic=topic)


def filled(store: Store, clock: list[int], **limits: Any) -> EventLog:
    log = EventLog(store, **limits)
    for text, topic in enumerate(["a", "b.x", "a", "b.y", "a.x"]):
        clock[0] = 1000 + 10 * text
        log.append([on(topic, str(text))])
    return log


def test_events_are_read_by_topic_in_the_order_of_logging(store: Store, clock: list[int]) -> None:
    log = filled(store, clock)
    assert texts(log) == ["0", "1", "2", "3", "4"]
    assert texts(log, "a") == ["0", "2"]
    assert texts(log, "b.*") == ["1", "3"]
    assert texts(log, "*.x") == ["1", "4"]
    assert texts(log, "c") == []


def test_events_are_read_by_time_and_from_a_position_on(store: Store, clock: list[int]) -> None:
    log = filled(store, clock)
    assert texts(log, since_ms=1010) == ["1", "2", "3", "4"]
    assert texts(log, until_ms=1010) == ["0"]
    assert texts(log, since_ms=1010, until_ms=1030) == ["1", "2"]
    third = list(log.read())[2]
    assert third.time_ms == 1020
    assert texts(log, after=third.position) == ["3", "4"]


def test_the_log_goes_on_where_it_ended(store: Store, clock: list[int]) -> None:
    last = list(filled(store, clock).read())[-1].position
    clock[0] = 5  # the machine's clock was set back
    log = EventLog(store)
    (position,) = log.append([on("a", "5")])
    assert position > last
    assert texts(log) == ["0", "1", "2", "3", "4", "5"]
    assert {topic: size.events for topic, size in log.topics.items()} == {
        "a": 3, "a.x": 1, "b.x": 1, "b.y": 1,
    }  # fmt: skip


def test_events_and_a_batch_are_written_together(store: Store) -> None:
    batch = Batch()
    batch.put(b"agent/x/cursor", b"7")
    EventLog(store).append([on("a", "1")], batch)
    assert store.get(b"agent/x/cursor") == b"7"
    assert texts(EventLog(store)) == ["1"]


def test_what_is_too_old_goes(store: Store, clock: list[int]) -> None:
    log = filled(store, clock, max_age_ms=25)
    assert sum(log.trim(now=1045)) == 2
    assert texts(log) == ["2", "3", "4"]
    assert sum(log.trim(now=1045)) == 0
    assert sum(log.trim(now=9999)) == 3
    assert (log.topics, log.size) == ({}, 0)
    assert list(store.scan(log_keys.EVENTS)) == list(store.scan(log_keys.TOPICS)) == []


def test_what_is_too_much_goes_oldest_first(store: Store, clock: list[int]) -> None:
    log = filled(store, clock)
    small = EventLog(store, max_bytes=log.size - 1)
    assert small.too_large
    assert sum(small.trim(now=2000)) == 1
    assert texts(small) == ["1", "2", "3", "4"]
    assert not small.too_large


@pytest.mark.parametrize("count", [99, 100, 101, 250])
def test_trimming_is_done_in_steps(store: Store, clock: list[int], count: int) -> None:
    log = EventLog(store, max_age_ms=10)
    log.append(on("a", str(number)) for number in range(count))
    clock[0] = 2000
    log.append([on("a", "kept")])
    steps = []
    for number, deleted in enumerate(log.trim(now=2000)):
        steps.append(deleted)
        log.append([on("a", f"between {number}")])
    assert sum(steps) == count
    assert len(steps) == -(-count // 100)
    assert texts(log)[0] == "kept"
    assert log.topics["a"].events == 1 + len(steps)


def test_two_that_delete_at_once_count_each_event_once(store: Store, clock: list[int]) -> None:
    log = EventLog(store)
    log.append(on("a", str(number)) for number in range(250))
    total = 0
    for one, two in zip(log.forget(lambda _: True), log.forget(lambda _: True), strict=False):
        total += one + two
    assert total == 250
    assert (log.topics, texts(log)) == ({}, [])


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.sampled_from(["a", "a.b", "c"]), st.integers(0, 50)),
        st.tuples(st.just("trim"), st.just(""), st.integers(0, 200)),
        st.tuples(st.just("forget"), st.sampled_from(["a", "a.b", "c"]), st.just(0)),
        st.tuples(st.just("reopen"), st.just(""), st.just(0)),
    ),
    max_size=25,
)


@runs(max_examples=50, deadline=None)
@given(OPERATIONS)
def test_the_log_is_a_list_whatever_is_done_to_it(operations: list[tuple[str, str, int]]) -> None:
    store, now, model = MemoryStore(), 1000, list[tuple[int, str]]()
    log = EventLog(store, max_age_ms=100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("loom_host.storage.event_log.now_ms", lambda: now)
        for name, topic, number in operations:
            if name == "append":
                now += number
                log.append([on(topic, "x")])
                model.append((now, topic))
            elif name == "trim":
                now += number
                list(log.trim(now))
                model = [(at, t) for at, t in model if at >= now - 100]
            elif name == "forget":
                list(log.forget(lambda event, topic=topic: event.topic == topic))  # type: ignore[misc]
                model = [(at, t) for at, t in model if t != topic]
            else:
                log = EventLog(store, max_age_ms=100)
            assert [(e.time_ms, e.event.topic) for e in log.read()] == model
            assert sum(size.events for size in log.topics.values()) == len(model)
    assert log.size == sum(len(k) + len(v) for k, v in store.scan(log_keys.EVENTS))


# -- on a bus


def test_patterns_that_others_cover_are_left_out() -> None:
    assert narrowed(["a.b", "a.*", "c", "a.>", "c"]) == ["c", "a.>"]
    assert narrowed(["a.*", "*.b"]) == ["a.*", "*.b"]


async def test_a_tap_hears_each_event_once_in_order_of_publishing() -> None:
    bus, heard = MemoryBus(), list[bytes]()
    tap = Tap(bus, ["a.*", "*.b"], "test", lambda event: heard.append(event.payload))
    again = Event("e", b"3", priority=90)
    for topic, event in (("a.b", Event("e", b"1", priority=1)), ("c.b", Event("e", b"2")),
                         ("a.b", again), ("a.b", again), ("a.c", Event("e", b"4")),
                         ("x", Event("e", b"no"))):  # fmt: skip
        await bus.publish(topic, event)
    tap.close()
    await bus.publish("a.b", Event("e", b"late"))
    assert heard == [b"1", b"2", b"3", b"3", b"4"]
    assert bus.subscriptions() == []


@asynccontextmanager
async def keeping(store: Store, *topics: str, **limits: Any) -> AsyncIterator[EventKeeper]:
    bus = MemoryBus()
    keeper = EventKeeper(bus, store, EventLogSettings(topics, **limits))
    keeper.start()
    keeper.bus = bus  # type: ignore[attr-defined]  # for the test's own use
    yield keeper
    await keeper.aclose()


async def publish(keeper: EventKeeper, topic: str, *texts: str, **metadata: str) -> None:
    for text in texts:
        event = Event("e", text.encode(), metadata)
        await keeper.bus.publish(topic, event)  # type: ignore[attr-defined]


def logged(keeper: EventKeeper) -> list[str]:
    return [entry.event.payload.decode() for entry in keeper.read()]


async def test_what_is_published_on_chosen_topics_is_logged(store: Store) -> None:
    async with keeping(store, "a.>", "b") as keeper:
        await publish(keeper, "a.x", "1")
        await publish(keeper, "c", "no")
        await publish(keeper, "b", "2", "3")
        await until(lambda: logged(keeper) == ["1", "2", "3"])
        assert next(keeper.read("b")).event.source == "host"


async def test_what_waits_at_the_end_is_logged(store: Store) -> None:
    async with keeping(store, ">") as keeper:
        await publish(keeper, "a", *map(str, range(500)))
    assert texts(EventLog(store)) == [str(number) for number in range(500)]


async def test_an_event_that_was_appended_is_not_logged_again(store: Store) -> None:
    async with keeping(store, ">") as keeper:
        event, batch = on("a", "durable"), Batch()
        batch.put(b"k", b"v")
        position = await keeper.append(event, batch)
        assert [entry.position for entry in keeper.read()] == [position]
        await keeper.bus.publish("a", event)  # type: ignore[attr-defined]
        await publish(keeper, "a", "other")
        await keeper.drained()
        assert logged(keeper) == ["durable", "other"]
        assert store.get(b"k") == b"v"


async def test_without_topics_nothing_is_opened(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "store")
    async with keeping(store) as keeper:
        await publish(keeper, "a", "1")
    assert not (tmp_path / "store").exists()


async def test_the_log_is_trimmed_while_it_grows(store: Store) -> None:
    async with keeping(store, ">", max_bytes=2000) as keeper:
        for number in range(40):
            await publish(keeper, "a", f"{number:050}")
            await keeper.drained()
        await until(lambda: sum(len(e.event.payload) for e in keeper.read()) < 2000)
        assert logged(keeper)[-1] == f"{39:050}"


async def test_events_that_cannot_be_stored_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    class Full(MemoryStore):
        def write(self, batch: Batch) -> None:
            raise StorageError("the disk is full")

    async with keeping(Full(), ">") as keeper:
        await publish(keeper, "a", "1", "2")
        await until(lambda: keeper.lost == 2)
        assert "events are not logged: the disk is full" in caplog.text


async def test_an_event_that_no_file_can_hold_costs_only_itself() -> None:
    async with keeping(MemoryStore(), ">") as keeper:
        odd = Event("e", b"odd", {"number": object()})  # type: ignore[dict-item]
        await publish(keeper, "a", "1")
        await keeper.bus.publish("a", odd)  # type: ignore[attr-defined]
        await publish(keeper, "a", "2")
        await keeper.drained()
        assert (logged(keeper), keeper.lost) == (["1", "2"], 1)


async def test_forgetting_leaves_no_byte_in_the_files(tmp_path: Path) -> None:
    folder, secret = tmp_path / "store", "5f0e9c7da1b24c88"

    def holds(text: str) -> bool:
        return any(text.encode() in path.read_bytes() for path in folder.iterdir())

    store = RocksStore(folder)
    async with keeping(store, ">") as keeper:
        await publish(keeper, "a", secret, user="ann")
        await publish(keeper, "a", "of bob", user="bob")
        await publish(keeper, "b", "more", user="ann", note=secret)
        await keeper.drained()
        assert holds(secret)
        assert await keeper.forget(lambda event: event.metadata.get("user") == "ann") == 2
        assert not holds(secret)
        assert logged(keeper) == ["of bob"]
    store.close()
    assert not holds(secret)


async def test_what_the_asking_plugin_deleted_leaves_the_files_too(tmp_path: Path) -> None:
    folder, secret = tmp_path / "store", b"c41d8f33a90b7e12"
    store = RocksStore(folder)
    own = PluginStore(store, "acme/memory", 1000)
    own.put("ann", secret)
    own.put("bob", b"stays")
    own.delete("ann")
    async with keeping(store) as keeper:
        answer = await forget(keeper, {"metadata": {"user": "ann"}}, "acme/memory")
    assert answer == {"events": 0}
    assert not any(secret in path.read_bytes() for path in folder.iterdir())
    assert own.get("bob") == b"stays"
    store.close()


# -- in a host


async def test_a_host_logs_what_its_file_says(tmp_path: Path) -> None:
    path = tmp_path / "loom.toml"
    path.write_text(
        '[host]\ndata_dir = "data"\n[event_log]\ntopics = ["a", "b.>"]\nmax_bytes = "1MiB"\n'
    )
    began = time.time_ns() // 1_000_000
    async with Host.from_config(path) as host:
        assert host.settings.event_log.max_bytes == 1024**2
        await host.bus.publish("b.c", Event("e", b"kept", {"session_id": "7"}))
    async with Host.from_config(path) as host:
        (entry,) = host.event_log.read("b.*", since_ms=began)
        assert (entry.event.payload, entry.event.metadata) == (b"kept", {"session_id": "7"})
        answer = await host.invoke("loom.forget", {"metadata": {"session_id": "8"}})
        assert answer.output == {"events": 0}
        answer = await host.invoke("loom.forget", {"metadata": {"session_id": "7"}, "topic": "b.>"})
        assert answer.output == {"events": 1}
        assert list(host.event_log.read()) == []


async def test_a_plugin_forgets_only_where_it_is_granted(tmp_path: Path) -> None:
    ask = {"what": "invoke", "of": "loom.forget"}
    async with native_host(tmp_path, prober={"allow": {"provide": ["*"]}}) as host:
        with pytest.raises(PermissionDenied, match=r"loom\.forget"):
            await host.invoke("prober.ask", ask)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"topics": ["a b"]}, "topics: 'a b' is not a topic pattern"),
        ({"topics": "a"}, "must be a list"),
        ({"max_bytes": "much"}, "max_bytes: 'much' is not a size"),
        ({"max_age_days": -1}, "not be negative|not negative"),
        ({"topic": ["a"]}, "did you mean"),
    ],
)
def test_a_wrong_table_is_told(table: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_settings(None, {"event_log": table})


def test_by_default_nothing_is_logged() -> None:
    assert Settings().event_log.topics == ()


async def test_logging_leaves_the_loop_to_others(tmp_path: Path) -> None:
    """However many events wait, they are written in small batches."""
    store = RocksStore(tmp_path / "store")
    async with keeping(store, ">") as keeper:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        bus: MemoryBus = keeper.bus  # type: ignore[attr-defined]
        for number in range(2000):
            bus.publish_nowait("a", Event("e", b"%d" % number))
        counting = asyncio.create_task(count())
        turns = 0
        await keeper.drained()
        counting.cancel()
        assert turns >= 10
    store.close()
