"""Key-value storage under the host: in memory for tests, RocksDB for real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from loom_sdk.errors import StorageError


class Store(Protocol):
    """Ordered keys and values, both bytes."""

    def get(self, key: bytes) -> bytes | None: ...
    def put(self, key: bytes, value: bytes) -> None: ...
    def delete(self, key: bytes) -> None: ...
    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]: ...
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

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted((k, v) for k, v in self._data.items() if k.startswith(prefix)))

    def close(self) -> None:
        self._data.clear()


class RocksStore:
    """RocksDB through rocksdict; opened at first use, since most hosts store nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened: Any = None

    @property
    def _db(self) -> Any:
        if self._opened is None:
            from rocksdict import Options, Rdict

            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                self._opened = Rdict(str(self._folder), Options(raw_mode=True))
            except Exception as error:  # rocksdict raises plain Exception
                raise StorageError(
                    f"cannot open the store at {self._folder}: {error}; is another host using it?"
                ) from error
        return self._opened

    def get(self, key: bytes) -> bytes | None:
        value = self._db.get(key)
        return bytes(value) if value is not None else None

    def put(self, key: bytes, value: bytes) -> None:
        self._db[key] = value

    def delete(self, key: bytes) -> None:
        self._db.delete(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key, value in self._db.items(from_key=prefix):
            if not key.startswith(prefix):
                return
            yield bytes(key), bytes(value)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None


class PluginStore:
    """One plugin's own part of a store, with its quota in bytes of keys and values."""

    def __init__(self, store: Store, plugin_id: str, limit: int) -> None:
        self._store = store
        self._prefix = f"kv\0{plugin_id}\0".encode()
        self._limit = limit
        self._used: int | None = None

    @property
    def limit(self) -> int:
        return self._limit

    def used(self) -> int:
        """Bytes of keys and values; counted once, then kept."""
        if self._used is None:
            start = len(self._prefix)
            pairs = self._store.scan(self._prefix)
            self._used = sum(len(key) - start + len(value) for key, value in pairs)
        return self._used

    def get(self, key: str) -> bytes | None:
        return self._store.get(self._prefix + key.encode())

    def put(self, key: str, value: bytes) -> bool:
        """Store it; False, changing nothing, where that would go over the limit."""
        old = self.get(key)
        replaced = len(old) if old is not None else -len(key.encode())
        grown = self.used() + len(value) - replaced
        if grown > self._limit:
            return False
        self._store.put(self._prefix + key.encode(), value)
        self._used = grown
        return True

    def delete(self, key: str) -> None:
        old = self.get(key)
        if old is not None:
            self._used = self.used() - len(old) - len(key.encode())
            self._store.delete(self._prefix + key.encode())

    def keys(self, prefix: str) -> list[str]:
        start = len(self._prefix)
        found = self._store.scan(self._prefix + prefix.encode())
        return [key[start:].decode() for key, _ in found]


def store_at(data_dir: Path | None) -> Store:
    """RocksDB in the data folder; in memory where there is none."""
    return RocksStore(data_dir / "store") if data_dir else MemoryStore()
