"""Which store a host has."""

from __future__ import annotations

from pathlib import Path

from .rocks import RocksStore
from .store import MemoryStore, Store

FOLDER = "store"
"""Below `host.data_dir`."""


def store_at(data_dir: Path | None, *, fsync: bool = False) -> Store:
    """RocksDB in the data folder; in memory where there is none."""
    return RocksStore(data_dir / FOLDER, fsync=fsync) if data_dir else MemoryStore()
