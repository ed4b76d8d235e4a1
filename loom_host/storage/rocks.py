"""RocksDB through rocksdict; nothing else imports it.

Checked with rocksdict 0.3.29: `write`, `get` and `Checkpoint` hold the GIL, `flush`, `flush_wal`
and `compact_range` release it. So a write, about 10 us into the kernel's hands, is done where it is
asked for (a thread would hold up the event loop just as long), and what waits for the disk is done
in a thread, once for all who wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loom_sdk.errors import StorageError

from .store import Batch

log = logging.getLogger("loom.storage")

INFO_LOGS_KEPT = 3
"""RocksDB writes a new LOG at every open."""


class RocksStore:
    """A folder with a RocksDB, opened at first use, since most hosts store nothing.

    Args:
        fsync: `save` and `settle` wait until the disk has what was written. Without, what was
            written survives a kill of the process, and the last seconds may be lost where the
            machine itself fails.
    """

    def __init__(self, folder: Path, *, fsync: bool = False) -> None:
        self.folder = folder
        self._fsync = fsync
        self._opened: Any = None
        self._new_batch: Any = None
        self._syncing: asyncio.Task[None] | None = None
        self._waiting: asyncio.Future[None] | None = None

    @property
    def _db(self) -> Any:
        if self._opened is None:
            from rocksdict import Options, Rdict, WriteBatch

            options = Options(raw_mode=True)
            options.set_keep_log_file_num(INFO_LOGS_KEPT)
            with self._mapped("opened"):
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._opened = Rdict(str(self.folder), options)
            self._new_batch = WriteBatch
        return self._opened

    @contextlib.contextmanager
    def _mapped(self, done: str) -> Iterator[None]:
        try:
            yield
        except (StorageError, GeneratorExit):
            raise
        except Exception as error:  # rocksdict raises plain Exception
            raise StorageError(_explain(self.folder, done, str(error))) from error

    def get(self, key: bytes) -> bytes | None:
        with self._mapped("read"):
            value = self._db.get(key)
        return bytes(value) if value is not None else None

    def put(self, key: bytes, value: bytes) -> None:
        with self._mapped("written"):
            self._db[key] = value

    def delete(self, key: bytes) -> None:
        with self._mapped("written"):
            self._db.delete(key)

    def write(self, batch: Batch) -> None:
        db = self._db
        try:
            if len(batch) == 1 and (only := batch.operations[0])[1] is not None:
                db[only[0]] = only[1]  # a batch of its own, at three quarters of the time
            else:
                db.write(self._raw(batch))
        except Exception as error:  # rocksdict raises plain Exception
            raise StorageError(_explain(self.folder, "written", str(error))) from error

    def _raw(self, batch: Batch) -> Any:
        raw = self._new_batch(raw_mode=True)
        for key, value in batch.operations:
            if value is None:
                raw.delete(key)
            else:
                raw.put(key, value)
        return raw

    async def save(self, batch: Batch) -> None:
        self.write(batch)
        if self._fsync:
            await self._synced()

    async def settle(self) -> None:
        if self._fsync and self._opened is not None:
            await self._synced()

    async def _synced(self) -> None:
        """One sync of the log for all that wait; who comes while one runs waits for the next."""
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop().create_future()
        if self._syncing is None:
            self._syncing = asyncio.create_task(self._sync())
        await asyncio.shield(self._waiting)

    async def _sync(self) -> None:
        while (waiting := self._waiting) is not None:
            self._waiting = None
            try:
                await asyncio.to_thread(self._sync_log)
            except BaseException as error:
                waiting.set_exception(error)
                waiting.exception()  # who gave up waiting leaves it unread
            else:
                waiting.set_result(None)
        self._syncing = None

    def _sync_log(self) -> None:
        with self._mapped("synced"):
            self._db.flush_wal(True)

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        with self._mapped("read"):
            for key, value in self._db.items(from_key=max(prefix, start)):
                if not key.startswith(prefix):
                    return
                yield bytes(key), bytes(value)

    def erase(self, prefix: bytes) -> None:
        from rocksdict import BottommostLevelCompaction, CompactOptions

        options = CompactOptions()
        options.set_bottommost_level_compaction(BottommostLevelCompaction.force())
        with self._mapped("compacted"):
            self._db.flush(True)  # the log of writes holds the values, too: a flush ends it
            self._db.compact_range(prefix, after(prefix), compact_opt=options)

    def checkpoint(self, folder: Path) -> None:
        """A consistent copy as it is now, by hard links, in a new folder. Slow: use a thread."""
        from rocksdict import Checkpoint

        with self._mapped("copied"):
            self._db.flush(True)  # without the GIL; else the checkpoint does it, and holds it
            Checkpoint(self._db).create_checkpoint(str(folder))

    def close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            try:
                opened.close()
            except Exception as error:  # after a failed write; the log of writes has the rest
                log.error("%s", _explain(self.folder, "closed", str(error)))


def after(prefix: bytes) -> bytes:
    """The first key behind all that have the prefix."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\xff" * (len(prefix) + 1)


def _explain(folder: Path, done: str, reason: str) -> str:
    what = f"the store at {folder} cannot be {done}: {reason}"
    if "lock hold" in reason or ("lock " in reason and "LOCK" in reason):
        return f"{what}; another host is using it: stop that one, or set host.data_dir"
    if "No space left" in reason or "Disk quota" in reason:
        return f"{what}; free space on that disk, then restart the host"
    if "Corruption" in reason or "checksum" in reason or "No such file" in reason:
        return f"{what}; its files are damaged: stop the host and run `loom storage restore BACKUP`"
    return f"{what}; see the file LOG in that folder"
