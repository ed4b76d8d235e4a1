"""Writes that are held back: read as if they were made, made all at once or not at all."""

from __future__ import annotations

from collections.abc import Iterator

from .store import Batch, Store


class Staged:
    """A store that stands before another and changes nothing there."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.changes: dict[bytes, bytes | None] = {}
        """By key what is to be put; None where the key is to be deleted."""

    def get(self, key: bytes) -> bytes | None:
        return self.changes[key] if key in self.changes else self._store.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self.changes[key] = value

    def delete(self, key: bytes) -> None:
        self.changes[key] = None

    def write(self, batch: Batch) -> None:
        self.changes.update(batch.operations)

    async def save(self, batch: Batch) -> None:
        self.write(batch)

    async def settle(self) -> None:
        """Nothing of it is in the store."""

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        found = dict(self._store.scan(prefix, start))
        for key, value in self.changes.items():
            if key.startswith(prefix) and key >= start:
                if value is None:
                    found.pop(key, None)
                else:
                    found[key] = value
        return iter(sorted(found.items()))

    def erase(self, prefix: bytes) -> None:
        """Nothing of it is in the store."""

    def close(self) -> None:
        self.changes.clear()

    def batch(self) -> Batch:
        """All that is held back, to be written."""
        batch = Batch()
        batch.operations.extend(self.changes.items())
        return batch
