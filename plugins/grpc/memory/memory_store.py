"""What is remembered: items in order of time, their vectors, and limits to both."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memory_file import CHUNK, MemoryFile
from memory_items import Entry, Filter, Limits, Vectors

COLUMNS = "id, space, level, user, session, role, text, time_ms, metadata"
DAY_MS = 24 * 3600 * 1000
HOUR_S = 3600.0
STEP = 500
"""Items that are looked at at once for what is too much."""


class MemoryStore:
    """Safe to use from several threads. Every method raises StorageError."""

    def __init__(self, path: Path, limits: Limits | None = None, *, durable: bool = True) -> None:
        self._limits, self._lock = limits or Limits(), threading.Lock()
        self._file = MemoryFile(path, durable=durable)
        self._aged = -HOUR_S

    def close(self) -> None:
        with self._lock:
            self._file.close()

    def append(
        self, space: str, level: int, entries: Sequence[Entry], vectors: Vectors | None
    ) -> list[int]:
        """Keep the entries, all or none; their ids. Without vectors they wait for `embed`."""
        file = self._file
        with self._lock, file.writing():
            ids = [self._insert(space, level, entry) for entry in entries]
            size = sum(entry.size for entry in entries)
            file.run(
                "insert into space values (?, ?, ?) on conflict(name) do update set "
                "items = items + excluded.items, bytes = bytes + excluded.bytes",
                (space, len(ids), size),
            )
            if vectors is not None:
                self._add_vectors(ids, vectors)
            self._retain(space)
        return ids

    def _insert(self, space: str, level: int, entry: Entry) -> int:
        self._file.run(
            "insert into item(space, level, user, session, role, text, time_ms, metadata, bytes) "
            "values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                space, level, entry.user, entry.session, entry.role, entry.text, entry.time_ms,
                json.dumps(dict(entry.metadata)), entry.size,
            ),
        )  # fmt: skip
        return self._file.last_id

    # -- vectors

    def waiting(self, level: int, most: int) -> list[tuple[int, str]]:
        """Items without a vector, with their text, of at most this level of privacy."""
        with self._lock:
            found = self._file.rows(
                "select id, text from item where embedded = 0 and level <= ? order by id limit ?",
                (level, most),
            )
        return [(int(i), str(text)) for i, text in found]

    def expect(self, vectors: Vectors) -> None:
        """From now on vectors are of this model; those of another are made anew, by and by."""
        with self._lock:
            if self._file.meta("vectors") != vectors.key:
                with self._file.writing():
                    self._prepare(vectors)

    def embed(self, ids: Sequence[int], vectors: Vectors) -> None:
        """Give items their vectors, in the same order; those that are gone are passed over."""
        with self._lock, self._file.writing():
            self._add_vectors(ids, vectors)

    def _add_vectors(self, ids: Sequence[int], vectors: Vectors) -> None:
        file = self._file
        self._prepare(vectors)
        rows = {
            row[0]: row[1:]
            for row in file.rows(
                "select id, space, level from item where embedded = 0 and id in "
                "(select value from json_each(?))",
                (json.dumps(list(ids)),),
            )
        }
        for number, item in enumerate(ids):
            if item in rows:
                space, level = rows[item]
                file.run(
                    "insert into vector(rowid, space, embedding, level) values (?, ?, ?, ?)",
                    (item, space, vectors[number], level),
                )
        file.run_many("update item set embedded = 1 where id = ?", ((i,) for i in rows))

    def _prepare(self, vectors: Vectors) -> None:
        """A table for vectors of this model."""
        file, key = self._file, vectors.key
        if file.meta("vectors") == key:
            return
        file.run("drop table if exists vector")
        file.run("update item set embedded = 0 where embedded = 1")
        file.run(
            f"create virtual table vector using vec0(space text partition key, "
            f"embedding float[{vectors.dimensions}], level integer, chunk_size={CHUNK})"
        )
        file.set_meta("vectors", key)

    # -- search

    def nearest(self, query: Vectors, filter: Filter, k: int) -> list[tuple[float, dict[str, Any]]]:
        """The k items nearest to the first vector of `query`, with their cosine, best first.

        Exact: every vector of the spaces is compared.
        """
        with self._lock:
            if self._file.meta("vectors") != query.key:
                return []
            spaces = filter.spaces or tuple(
                row[0] for row in self._file.rows("select name from space")
            )
            near = [hit for space in spaces for hit in self._near(query[0], space, filter, k)]
            best = sorted(near, key=lambda hit: hit[1])[:k]
            items = {item["id"]: item for item in self._items([hit[0] for hit in best])}
        # Of two vectors of length 1 at distance d the cosine is 1 - d*d/2.
        return [(1 - d * d / 2, items[item]) for item, d in best if item in items]

    def _near(self, vector: bytes, space: str, filter: Filter, k: int) -> list[tuple[Any, ...]]:
        sql = (
            "select rowid, distance from vector where embedding match ? and k = ? and space = ? "
            "and level <= ?"
        )
        values: list[Any] = [vector, k, space, filter.level]
        if filter.narrow:
            condition, more = filter.where()
            sql += f" and rowid in (select id from item where {condition})"
            values += more
        return self._file.rows(sql, values)

    def newest(self, filter: Filter, k: int) -> list[dict[str, Any]]:
        """The k newest items, in order of time."""
        condition, values = filter.where()
        with self._lock:
            found = self._file.rows(
                f"select {COLUMNS} from item where {condition} order by time_ms desc, id desc "
                "limit ?",
                (*values, k),
            )
        return [_item(row) for row in reversed(found)]

    def _items(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        found = self._file.rows(
            f"select {COLUMNS} from item where id in (select value from json_each(?))",
            (json.dumps(list(ids)),),
        )
        return [_item(row) for row in found]

    # -- deletion

    def forget(self, filter: Filter) -> int:
        """Delete the items so that nothing of them stays in the files; how many there were."""
        condition, values = filter.where()
        with self._lock:
            with self._file.writing():
                count = self._delete(condition, values)
                if count:
                    self._file.set_meta("erase", 1)
            if self._file.meta("erase"):
                self._file.erase()
        return count

    def _delete(self, condition: str, values: Sequence[Any]) -> int:
        file = self._file
        file.run("create temp table if not exists gone(id integer primary key)")
        file.run("delete from gone")
        file.run(f"insert into gone select id from item where {condition}", values)
        if file.meta("vectors"):
            file.run(
                "delete from vector where rowid in "
                "(select id from item where embedded = 1 and id in gone)"
            )
        sizes = file.rows(
            "select space, count(*), sum(bytes) from item where id in gone group by space"
        )
        for space, items, size in sizes:
            file.run(
                "update space set items = items - ?, bytes = bytes - ? where name = ?",
                (items, size, space),
            )
        file.run("delete from space where items = 0")
        file.run("delete from item where id in gone")
        return sum(int(items) for _, items, _ in sizes)

    def _retain(self, space: str) -> None:
        """Hold the space to its limits, and once an hour everything to its age."""
        now = time.monotonic()
        if self._limits.age_days and now - self._aged >= HOUR_S:
            self._aged = now
            oldest = int(time.time() * 1000 - self._limits.age_days * DAY_MS)
            for (name,) in self._file.rows("select name from space"):
                self._delete("space = ? and time_ms < ?", (name, oldest))
        while gone := self._too_much(space):
            self._delete("id in (select value from json_each(?))", (json.dumps(gone),))

    def _too_much(self, space: str) -> list[int]:
        """The oldest items of a space that is over its limits, at most STEP of them."""
        found = self._file.rows("select items, bytes from space where name = ?", (space,))
        items, size = found[0] if found else (0, 0)
        limits, gone = self._limits, list[int]()
        if not (0 < limits.items < items or 0 < limits.bytes < size):
            return gone
        oldest = "select id, bytes from item where space = ? order by time_ms, id limit ?"
        for item, its_size in self._file.rows(oldest, (space, STEP)):
            if not (0 < limits.items < items or 0 < limits.bytes < size):
                break
            gone.append(item)
            items, size = items - 1, size - its_size
        return gone


def _item(row: tuple[Any, ...]) -> dict[str, Any]:
    item = dict(zip(COLUMNS.split(", "), row, strict=True))
    return item | {"metadata": json.loads(item["metadata"])}
