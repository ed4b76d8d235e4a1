"""What a store is: ordered keys and values, written in atomic batches; and the one in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol


class Batch:
    """Puts and deletes that are written together or not at all, in the order they were added."""

    __slots__ = ("operations",)

    def __init__(self) -> None:
        self.operations: list[tuple[bytes, bytes | None]] = []
        """Keys with the value to put; None deletes the key."""

    def put(self, key: bytes, value: bytes) -> None:
        self.operations.append((key, value))

    def delete(self, key: bytes) -> None:
        """A key that is not there is no error."""
        self.operations.append((key, None))

    def __len__(self) -> int:
        return len(self.operations)


class Store(Protocol):
    """Ordered keys and values, both bytes. Every method raises StorageError where it fails."""

    def get(self, key: bytes) -> bytes | None: ...
    def put(self, key: bytes, value: bytes) -> None: ...
    def delete(self, key: bytes) -> None: ...

    def write(self, batch: Batch) -> None:
        """Write all of it or nothing. When it returns, a kill of the process loses none of it."""

    async def save(self, batch: Batch) -> None:
        """As `write`; with `[storage] fsync` it returns when the disk has it, too."""

    async def settle(self) -> None:
        """With `[storage] fsync`: return when all that was written is on the disk."""

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Pairs whose key has the prefix, in order of keys; from `start` on where it is given."""

    def erase(self, prefix: bytes) -> None:
        """Rewrite what lies below a prefix, so that deleted values leave the files. May be slow:
        call it in a thread."""

    def close(self) -> None: ...


class MemoryStore:
    """A dictionary; lost at the end."""

    def __init__(self) -> None:
        self._data: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self._data.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self._data[key] = value

    def delete(self, key: bytes) -> None:
        self._data.pop(key, None)

    def write(self, batch: Batch) -> None:
        for key, value in batch.operations:
            if value is None:
                self._data.pop(key, None)
            else:
                self._data[key] = value

    async def save(self, batch: Batch) -> None:
        self.write(batch)

    async def settle(self) -> None:
        """There is no disk."""

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        pairs = list(self._data.items())  # at once: a reader may be in another thread
        return iter(sorted((k, v) for k, v in pairs if k.startswith(prefix) and k >= start))

    def erase(self, prefix: bytes) -> None:
        """What is deleted is gone."""

    def close(self) -> None:
        self._data.clear()
