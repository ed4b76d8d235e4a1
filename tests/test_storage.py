"""Storage: two stores, one behaviour; each plugin sees its own part, up to its quota."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from loom_host import Host
from loom_host.desk import Desk, card_of
from loom_host.storage import (
    Batch,
    MemoryStore,
    PluginStore,
    RocksStore,
    Store,
    agent_cursor_key,
    agent_key,
    agent_of,
    agent_prefix,
    agent_state_key,
)
from loom_sdk.errors import StorageError
from loom_sdk.port import SCHEMA_KEY

from .hosting import native_host


@pytest.fixture(params=["memory", "rocks"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else RocksStore(tmp_path / "store")
    yield made
    made.close()


def test_values_come_back(store: Store) -> None:
    assert store.get(b"a") is None
    store.put(b"a", b"1\0\xff")
    store.put(b"a", b"2")
    assert store.get(b"a") == b"2"
    store.delete(b"a")
    store.delete(b"a")
    assert store.get(b"a") is None


def test_scan_is_ordered_and_by_prefix(store: Store) -> None:
    for key in (b"b2", b"a", b"b1", b"c", b"b"):
        store.put(key, key)
    assert list(store.scan(b"b")) == [(b"b", b"b"), (b"b1", b"b1"), (b"b2", b"b2")]
    assert list(store.scan(b"x")) == []


def test_a_scan_begins_where_it_is_told(store: Store) -> None:
    for key in (b"b1", b"b2", b"b3", b"c"):
        store.put(key, key)
    assert [key for key, _ in store.scan(b"b", b"b2")] == [b"b2", b"b3"]
    assert [key for key, _ in store.scan(b"b", b"a")] == [b"b1", b"b2", b"b3"]


def test_a_batch_is_applied_in_its_order(store: Store) -> None:
    store.put(b"old", b"1")
    batch = Batch()
    batch.put(b"a", b"1")
    batch.delete(b"a")
    batch.delete(b"old")
    batch.put(b"b", b"1")
    batch.put(b"b", b"2")
    assert len(batch) == 5
    store.write(batch)
    assert list(store.scan(b"")) == [(b"b", b"2")]


async def test_with_fsync_those_who_save_at_once_share_a_sync(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "store", fsync=True)
    syncs = 0
    sync_log = store._sync_log

    def counted() -> None:
        nonlocal syncs
        syncs += 1
        sync_log()

    store._sync_log = counted  # type: ignore[method-assign]

    async def save(number: int) -> None:
        batch = Batch()
        batch.put(b"%d" % number, b"x")
        await store.save(batch)

    await asyncio.gather(*(save(number) for number in range(200)))
    assert len(list(store.scan(b""))) == 200
    assert 1 <= syncs <= 3
    await store.settle()
    store.close()


def test_what_was_deleted_leaves_the_files(tmp_path: Path) -> None:
    secret, folder = b"7ab1f0c2e9d84c55", tmp_path / "store"
    store = RocksStore(folder)
    store.put(b"a/1", secret)
    store.put(b"b/1", b"stays")
    assert _holds(folder, secret)
    store.delete(b"a/1")
    assert _holds(folder, secret), "it is still in the log of writes"
    store.erase(b"a/")
    assert not _holds(folder, secret)
    assert store.get(b"b/1") == b"stays"
    store.close()


def _holds(folder: Path, text: bytes) -> bool:
    return any(text in path.read_bytes() for path in folder.iterdir())


def test_no_agents_name_reaches_into_anothers_part() -> None:
    names = ["a", "a/state", "a/", "ä", "a%2Fstate", "b"]
    keys = [key for name in names for key in (agent_state_key(name), agent_cursor_key(name))]
    assert len({*keys}) == len(keys)
    for name in names:
        own = [key for key in keys if key.startswith(agent_prefix(name))]
        assert own == [agent_key(name, "state"), agent_key(name, "cursor")]
        assert agent_of(own[0]) == name
    assert agent_state_key("voice") == b"agent/voice/state"


def test_rocks_keeps_values_across_hosts(tmp_path: Path) -> None:
    first = RocksStore(tmp_path / "store")
    first.put(b"a", b"1")
    second = RocksStore(tmp_path / "store")
    with pytest.raises(StorageError, match="another host is using it"):
        second.get(b"a")
    first.close()
    assert second.get(b"a") == b"1"
    second.close()
    assert (tmp_path / "store").stat().st_mode & 0o077 == 0


def test_an_unused_store_makes_no_folder(tmp_path: Path) -> None:
    RocksStore(tmp_path / "store").close()
    assert not (tmp_path / "store").exists()


def test_plugins_do_not_see_each_other(store: Store) -> None:
    mine, other = PluginStore(store, "a/p", 100), PluginStore(store, "a/pp", 100)
    mine.put("k", b"mine")
    assert other.get("k") is None
    assert (mine.keys(""), other.keys("")) == (["k"], [])
    other.delete("k")
    assert mine.get("k") == b"mine"


def test_the_quota_counts_keys_and_values(store: Store) -> None:
    own = PluginStore(store, "a/p", 10)
    assert own.put("key", b"1234567")
    assert not own.put("x", b"")
    assert own.get("x") is None
    assert own.put("key", b"123")
    assert own.used() == 6
    assert not own.put("key", b"12345678")
    assert own.get("key") == b"123"
    own.delete("key")
    own.delete("key")
    assert own.used() == 0
    assert own.limit == 10


def test_data_of_a_newer_release_is_refused(store: Store) -> None:
    new, old = PluginStore(store, "a/p", 100, version=2), PluginStore(store, "a/p", 100, version=1)
    assert (new.get("k"), new.schema()) == (None, 0)
    assert list(store.scan(b"meta/")) == [], "who only reads leaves no trace"
    new.put("k", b"2")
    for use in (lambda: old.get("k"), lambda: old.put("k", b"1"), lambda: old.keys("")):
        with pytest.raises(StorageError, match=r"a/p is of version 2, .* knows version 1"):
            use()
    with pytest.raises(StorageError):
        old.delete("k")
    assert new.get("k") == b"2"


def test_a_newer_release_is_told_both_versions_and_says_when_it_is_done(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    PluginStore(store, "a/p", 100).put("k", b"1")
    new = PluginStore(store, "a/p", 100, version=3)
    assert (new.get("k"), new.get(SCHEMA_KEY)) == (b"1", b"1")
    assert "a/p has version 3 of its data, the store holds version 1" in caplog.text
    new.put("k", b"3")
    assert PluginStore(store, "a/p", 100).get("k") == b"3", "not before it says so"
    with pytest.raises(StorageError, match=r"manifest says \[storage\] version = 3"):
        new.put(SCHEMA_KEY, b"2")
    assert new.put(SCHEMA_KEY, b"3")
    assert (new.schema(), new.keys(""), new.used()) == (3, ["k"], 2)
    with pytest.raises(StorageError, match="version 3"):
        PluginStore(store, "a/p", 100).get("k")


@pytest.mark.parametrize("kept", [True, False])
def test_a_migration_in_an_agents_event_holds_once_the_event_is_kept(
    store: Store, kept: bool
) -> None:
    PluginStore(store, "acme/diary", 1000).put("a", b"old")
    newer = PluginStore(store, "acme/diary", 1000, version=2)
    desk = Desk(store, card_of("ann", {}, 1))
    keys = desk.keys_of(newer)
    keys.put("a", b"converted")
    keys.put(SCHEMA_KEY, b"2")
    assert newer.schema() == 1
    if kept:
        store.write(desk.batch())
        desk.committed()
    assert newer.schema() == PluginStore(store, "acme/diary", 1000, version=2).schema()
    assert newer.schema() == (2 if kept else 1)
    assert newer.used() == len(b"a") + len(b"converted" if kept else b"old")


def test_data_without_a_version_is_of_the_first(store: Store) -> None:
    store.put(b"kv\0a/p\0k", b"1")
    assert PluginStore(store, "a/p", 100, version=2).schema() == 1
    assert PluginStore(store, "a/q", 100, version=2).schema() == 0


async def test_a_plugin_in_a_host_is_told_the_version_of_its_data(tmp_path: Path) -> None:
    prober = {"allow": {"provide": ["*"], "storage": ["own"]}}
    async with native_host(tmp_path, prober=prober) as host:
        ask = {"what": "get", "of": SCHEMA_KEY}
        assert (await host.invoke("prober.ask", ask)).output["value"] == "0"
    async with Host(host.settings, store=_of_version_2()) as host:
        with pytest.raises(StorageError, match="test/prober is of version 2"):
            await host.invoke("prober.ask", ask)


def _of_version_2() -> MemoryStore:
    store = MemoryStore()
    store.put(b"meta/schema/test%2Fprober", b"2")
    return store


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["put", "delete"]), st.text(max_size=3), st.binary(max_size=8)),
    max_size=20,
)


@runs(max_examples=40, deadline=None)
@given(OPERATIONS)
def test_the_count_never_drifts(operations: list[tuple[str, str, bytes]]) -> None:
    store, limit = MemoryStore(), 30
    own, model = PluginStore(store, "a/p", limit), dict[str, bytes]()
    for name, key, value in operations:
        if name == "delete":
            own.delete(key)
            model.pop(key, None)
        elif own.put(key, value):
            model[key] = value
        used = sum(len(k.encode()) + len(v) for k, v in model.items())
        assert own.used() == used <= limit
    assert PluginStore(store, "a/p", limit).used() == own.used()
    assert own.keys("") == sorted(model, key=str.encode)
