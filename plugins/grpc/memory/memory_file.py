"""The file of the memory: SQLite with sqlite-vec, opened so that deleted bytes leave it.

Checked with apsw 3.54 (its own SQLite, so that no machine's build matters; Python's `sqlite3` can
often not load extensions) and sqlite-vec 0.1.9.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loom_sdk.errors import PluginLoadError, StorageError

SCHEMA = 1
PAGE_BYTES = 4096
CHUNK = 64
"""Vectors that sqlite-vec keeps in one value; a space takes at least one such: 96 KB with 384
dimensions. Larger ones search no faster."""
TABLES = """
create table if not exists meta(key text primary key, value) without rowid;
create table if not exists space(
  name text primary key, items integer not null, bytes integer not null) without rowid;
create table if not exists item(
  id integer primary key autoincrement, space text not null, level integer not null,
  user text not null, session text not null, role text not null, text text not null,
  time_ms integer not null, metadata text not null, bytes integer not null,
  embedded integer not null default 0);
create index if not exists item_time on item(space, time_ms, id);
create index if not exists item_session on item(session, time_ms);
create index if not exists item_user on item(user);
create index if not exists item_to_embed on item(level, id) where embedded = 0;
"""


class MemoryFile:
    """One connection; whoever uses it holds the store's lock.

    Args:
        durable: an append is acknowledged when the disk has it, else when a kill of the process
            cannot lose it.
    """

    def __init__(self, path: Path, *, durable: bool) -> None:
        """Raises PluginLoadError, and StorageError where the file is damaged or another's."""
        try:
            import apsw
            import sqlite_vec
        except ImportError as error:
            raise PluginLoadError(
                f"{error.name} is not installed: run `pip install 'loom-host[memory]'`"
            ) from error
        self.path, self._apsw = path, apsw
        with self._mapped("opened"):
            path.touch(mode=0o600)
            self._db = apsw.Connection(str(path))
            self._db.enable_load_extension(True)
            self._db.load_extension(sqlite_vec.loadable_path())
            self._db.enable_load_extension(False)
            self._db.set_busy_timeout(5000)
            self._settings(durable)
            self._check_schema()
            self._db.execute(TABLES)
            if self.meta("erase"):  # a kill came between a deletion and its end
                self.erase()

    def _settings(self, durable: bool) -> None:
        for line in (
            f"page_size = {PAGE_BYTES}",
            "journal_mode = wal",
            f"synchronous = {'full' if durable else 'normal'}",
            "secure_delete = on",  # what is deleted is overwritten with zeros
            "temp_store = memory",  # no temporary file has a copy
            "cache_size = -16384",
            "mmap_size = 2147418112",  # the most that SQLite takes; a search is a third faster
        ):
            self._db.execute(f"pragma {line}")

    def _check_schema(self) -> None:
        found = self._db.execute("pragma user_version").fetchone()[0]
        if found not in (0, SCHEMA):
            raise StorageError(
                f"{self.path} has schema {found}, this plugin knows {SCHEMA}: use the version of "
                "the plugin that wrote it, or move the file away"
            )
        self._db.execute(f"pragma user_version = {SCHEMA}")

    @contextmanager
    def _mapped(self, done: str) -> Iterator[None]:
        try:
            yield
        except (self._apsw.Error, OSError) as error:
            raise StorageError(
                f"the memory at {self.path} cannot be {done}: {error}; see its disk and whether "
                "another host uses it"
            ) from error

    @contextmanager
    def writing(self) -> Iterator[None]:
        """All that is written inside is kept, or nothing. Raises StorageError."""
        with self._mapped("written"), self._db:
            yield

    def rows(self, sql: str, values: Any = ()) -> list[tuple[Any, ...]]:
        """Raises StorageError."""
        with self._mapped("read"):
            return self._db.execute(sql, values).fetchall()

    def run(self, sql: str, values: Any = ()) -> None:
        self._db.execute(sql, values)

    def run_many(self, sql: str, rows: Any) -> None:
        self._db.executemany(sql, rows)

    @property
    def last_id(self) -> int:
        return int(self._db.last_insert_rowid())

    def meta(self, key: str) -> Any:
        """None where there is none."""
        found = self._db.execute("select value from meta where key = ?", (key,)).fetchone()
        return found[0] if found else None

    def set_meta(self, key: str, value: Any) -> None:
        self._db.execute("insert or replace into meta values (?, ?)", (key, value))

    def erase(self) -> None:
        """Rewrite the file without what was deleted, and empty its log. Raises StorageError.

        `secure_delete` has overwritten what was deleted; the copies that SQLite leaves in the gaps
        of a page when it moves rows to another one end here.
        """
        with self._mapped("rewritten"):
            self._db.execute("vacuum")
            busy = self._db.execute("pragma wal_checkpoint(truncate)").fetchone()[0]
            if busy:
                raise StorageError(
                    f"the log of {self.path} is in use, so that deleted text is still in it: "
                    "forget again, or restart the plugin"
                )
            self._db.execute("delete from meta where key = 'erase'")

    def close(self) -> None:
        with self._mapped("closed"):
            self._db.close()
