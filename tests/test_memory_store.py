"""The file of the memory: exact search, isolation, limits, and deletion that leaves nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loom_sdk.errors import StorageError

from .support import ROOT

pytest.importorskip("apsw", reason="needs loom-host[memory]")
pytest.importorskip("sqlite_vec", reason="needs loom-host[memory]")
FOLDER = ROOT / "plugins" / "grpc" / "memory"
sys.path.append(str(FOLDER))
_items: Any = import_module("memory_items")
Entry, Filter, Limits, Vectors = _items.Entry, _items.Filter, _items.Limits, _items.Vectors
MemoryStore: Any = import_module("memory_store").MemoryStore

SIZE = 16
Array = npt.NDArray[np.float32]


def unit(count: int, seed: int = 0, size: int = SIZE) -> Array:
    rows = np.random.default_rng(seed).standard_normal((count, size)).astype("<f4")
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), "<f4")


def vectors(rows: Array, model: str = "m") -> Any:
    return Vectors(model, rows.shape[1], rows.tobytes())


def entries(*texts: str, **fields: Any) -> list[Any]:
    return [Entry(text, time_ms=i + 1, **fields) for i, text in enumerate(texts)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Any]:
    store = MemoryStore(tmp_path / "memory.sqlite", durable=False)
    yield store
    store.close()


def texts(found: list[dict[str, Any]]) -> list[str]:
    return [item["text"] for item in found]


def test_the_nearest_are_those_that_numpy_finds(store: Any) -> None:
    rows, asked = unit(700), unit(20, seed=1)
    store.append("a", 1, entries(*(str(i) for i in range(700))), vectors(rows))
    for question in asked:
        exact = np.argsort(-(rows @ question))[:10]
        found = store.nearest(vectors(question[None]), Filter(("a",)), 10)
        assert [int(item["text"]) for _, item in found] == exact.tolist()
        assert np.allclose([score for score, _ in found], (rows @ question)[exact], atol=1e-5)


def test_a_space_and_a_level_hide_the_rest(store: Any) -> None:
    rows = unit(4)
    store.append("a", 1, entries("a plain"), vectors(rows[:1]))
    store.append("a", 2, entries("a private"), vectors(rows[1:2]))
    store.append("b", 1, entries("b plain"), vectors(rows[2:3]))
    everything = vectors(rows[:1])

    def both(filter: Any) -> tuple[set[str], set[str]]:
        near = store.nearest(everything, filter, 10)
        return {item["text"] for _, item in near}, set(texts(store.newest(filter, 10)))

    assert both(Filter(("a",), 1)) == ({"a plain"},) * 2
    assert both(Filter(("a",), 3)) == ({"a plain", "a private"},) * 2
    assert both(Filter(("a", "b"), 1)) == ({"a plain", "b plain"},) * 2
    assert both(Filter((), 0)) == (set(),) * 2
    assert both(Filter(("c",), 3)) == (set(),) * 2


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ({"user": "ann"}, ["0", "2"]),
        ({"session": "s1"}, ["0", "1"]),
        ({"role": "assistant"}, ["1"]),
        ({"since_ms": 20}, ["1", "2"]),
        ({"until_ms": 20}, ["0"]),
        ({"user": "ann", "session": "s1"}, ["0"]),
        ({"ids": (2, 3)}, ["1", "2"]),
        ({"user": "' or 1=1 --"}, []),
    ],
)
def test_filters_hold_for_both_kinds(
    store: Any, filter: dict[str, Any], expected: list[str]
) -> None:
    rows = unit(3)
    kept = [
        Entry("0", "user", "ann", "s1", 10), Entry("1", "assistant", "bob", "s1", 20),
        Entry("2", "user", "ann", "s2", 30),
    ]  # fmt: skip
    store.append("a", 1, kept, vectors(rows))
    where = Filter(("a",), **filter)
    assert texts(store.newest(where, 10)) == expected
    near = store.nearest(vectors(rows[:1]), where, 10)
    assert sorted(item["text"] for _, item in near) == expected


def test_the_newest_come_in_order_of_time(store: Any) -> None:
    store.append("a", 1, [Entry(str(t), time_ms=t) for t in (5, 1, 4, 2, 3)], None)
    assert texts(store.newest(Filter(("a",)), 3)) == ["3", "4", "5"]


def test_what_waits_for_vectors_gets_them_later(store: Any) -> None:
    rows = unit(2)
    store.append("a", 1, entries("plain"), None)
    store.append("a", 2, entries("private"), None)
    assert store.waiting(1, 10) == [(1, "plain")]  # nothing stricter than asked for
    assert store.waiting(3, 10) == [(1, "plain"), (2, "private")]
    store.embed([1, 2, 99], vectors(np.vstack([rows, rows[:1]])))
    assert store.waiting(3, 10) == []
    assert [i["text"] for _, i in store.nearest(vectors(rows[1:]), Filter(("a",)), 1)] == [
        "private"
    ]


def test_vectors_of_another_model_are_made_anew(store: Any) -> None:
    store.append("a", 1, entries("x", "y"), vectors(unit(2)))
    other = vectors(unit(2, size=8), "other")
    assert store.nearest(other, Filter(("a",)), 5) == []
    store.expect(other)
    assert [text for _, text in store.waiting(1, 10)] == ["x", "y"]
    store.embed([1, 2], other)
    assert len(store.nearest(other, Filter(("a",)), 5)) == 2


def test_limits_take_the_oldest_of_that_space_alone(tmp_path: Path) -> None:
    store = MemoryStore(tmp_path / "m", Limits(items=3), durable=False)
    store.append("other", 1, entries("kept"), vectors(unit(1)))
    for number in range(7):
        store.append("a", 1, [Entry(str(number), time_ms=number + 1)], vectors(unit(1, number)))
    assert texts(store.newest(Filter(("a",)), 9)) == ["4", "5", "6"]
    assert len(store.nearest(vectors(unit(1)), Filter(("a",)), 9)) == 3
    assert texts(store.newest(Filter(("other",)), 9)) == ["kept"]
    store.append("a", 1, [Entry(str(n), time_ms=n) for n in range(10, 2000)], None)
    assert texts(store.newest(Filter(("a",)), 9)) == ["1997", "1998", "1999"]
    store.close()


def test_bytes_and_age_have_limits(tmp_path: Path) -> None:
    store = MemoryStore(tmp_path / "m", Limits(bytes=3000))
    store.append("a", 1, [Entry("x" * 1000, time_ms=t) for t in (1, 2, 3, 4)], None)
    assert [item["time_ms"] for item in store.newest(Filter(("a",)), 9)] == [3, 4]
    store.close()
    store = MemoryStore(tmp_path / "m", Limits(age_days=1))
    store.append("b", 1, [Entry("new", time_ms=2**42)], None)
    assert texts(store.newest(Filter(), 9)) == ["new"]
    store.close()


# -- deletion


def raw(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def pieces(vector: bytes) -> list[bytes]:
    """A vector may lie across the border of two pages."""
    return [vector[i : i + 16] for i in range(0, len(vector), 16)]


rows_of_text = st.lists(
    st.tuples(st.sampled_from(["ann", "bob"]), st.integers(0, 9000)), max_size=30
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(rows_of_text, min_size=1, max_size=4), st.integers(0, 99))
def test_what_is_forgotten_is_in_no_file(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[str, int]]], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("memory")
    store = MemoryStore(folder / "memory.sqlite", durable=False)
    every = unit(sum(map(len, batches)), seed)
    secret, at = [], 0
    for batch in batches:
        mine = [
            Entry(f"{user}-{at + i}-secret " + f"{user} " * (size // 4), "user", user, f"s-{user}")
            for i, (user, size) in enumerate(batch)
        ]
        rows = every[at : at + len(batch)]
        if mine:
            store.append("a", 1, mine, vectors(rows))
        secret += [
            row.tobytes() for row, (user, _) in zip(rows, batch, strict=True) if user == "ann"
        ]
        at += len(batch)
    kept = sum(user == "bob" for batch in batches for user, _ in batch)
    before = raw(folder)
    assert all(any(part in before for part in pieces(vector)) for vector in secret)
    assert store.forget(Filter(user="ann")) == len(secret)
    after = raw(folder)
    assert b"ann" not in after
    assert not any(part in after for vector in secret for part in pieces(vector))
    assert len(store.newest(Filter(), 100)) == kept
    near = store.nearest(vectors(every[:1]), Filter(("a",)), 100) if at else []
    assert len(near) == kept
    store.close()


def test_a_deletion_that_was_cut_off_ends_at_the_next_start(tmp_path: Path) -> None:
    store = MemoryStore(tmp_path / "m")
    store.append("a", 1, entries("whisper " * 500), vectors(unit(1)))
    file = store._file
    with file.writing():  # as `forget` does, and then the process is killed
        store._delete("space = 'a'", ())
        file.set_meta("erase", 1)
    assert b"whisper" in raw(tmp_path)  # in the log of writes
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in tmp_path.glob("m*"):
        (copy / path.name).write_bytes(path.read_bytes())
    store.close()
    again = MemoryStore(copy / "m")
    assert b"whisper" not in raw(copy)
    again.close()


# -- crashes and damage

WRITER = """
import sys
sys.path.append({folder!r})
from pathlib import Path
from memory_items import Entry, Vectors
from memory_store import MemoryStore
store = MemoryStore(Path(sys.argv[1]))
for number in range(10**6):
    ids = store.append("a", 1, [Entry(str(number))], Vectors("m", 4, bytes(16)))
    print(ids[0], flush=True)
"""


def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "m"
    code = WRITER.format(folder=str(FOLDER))
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline()) for _ in range(200)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in writer.stdout if line.endswith("\n")]
    store = MemoryStore(path)
    kept = store._file.rows("select id from item where embedded = 1")
    assert {row[0] for row in kept} >= set(acknowledged)
    in_index = store._file.rows("select count(*) from vector")
    assert in_index == [(len(kept),)]
    assert store._file.rows("pragma integrity_check") == [("ok",)]
    store.close()


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"this is no database " * 500)
    with pytest.raises(StorageError, match="cannot be opened.*not a database"):
        MemoryStore(tmp_path / "m")


def test_a_file_of_a_later_schema_is_left_alone(tmp_path: Path) -> None:
    store = MemoryStore(tmp_path / "m")
    store._file.run("pragma user_version = 9")
    store.close()
    with pytest.raises(StorageError, match="has schema 9, this plugin knows 1"):
        MemoryStore(tmp_path / "m")


def test_threads_share_a_store(store: Any) -> None:
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for number in range(20):
                store.append(name, 1, entries(f"{number}"), vectors(unit(1, number)))
                assert store.nearest(vectors(unit(1, number)), Filter((name,)), 1)[0][0] > 0.999
                store.newest(Filter(), 5)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(store.newest(Filter(), 100)) == 80
