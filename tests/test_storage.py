"""Storage: two stores, one behaviour; each plugin sees its own part, up to its quota."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from loom_host.storage import MemoryStore, PluginStore, RocksStore, Store
from loom_sdk.errors import StorageError


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


def test_rocks_keeps_values_across_hosts(tmp_path: Path) -> None:
    first = RocksStore(tmp_path / "store")
    first.put(b"a", b"1")
    second = RocksStore(tmp_path / "store")
    with pytest.raises(StorageError, match="is another host using it"):
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
