"""The last log entries of each plugin, and who follows them as they come."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

Entry = dict[str, Any]

RING = 1000
"""Entries kept per plugin."""
RING_BYTES = 1024**2
"""Memory that these may take, about; the last entry is kept whatever its length."""
ENTRY_BYTES = 500
"""What an entry takes beside the characters of its texts."""
PLUGINS_MAX = 256
"""The entries of plugins beyond so many are kept with the host's own."""


class Kept:
    """A queue of entries with an end to its size: the oldest make room for the newest."""

    def __init__(self, most: int = RING, most_bytes: int = RING_BYTES) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._entries: deque[tuple[int, Entry]] = deque()
        self._bytes = 0

    def add(self, entry: Entry) -> int:
        """How many had to make room."""
        size = ENTRY_BYTES + sum(len(str(value)) for value in entry.values())
        self._entries.append((size, entry))
        self._bytes += size
        gone = 0
        while len(self._entries) > self._most or (
            self._bytes > self._most_bytes and len(self._entries) > 1
        ):
            self._bytes -= self._entries.popleft()[0]
            gone += 1
        return gone

    def entries(self) -> list[Entry]:
        return [entry for _, entry in self._entries]

    def take(self) -> list[Entry]:
        """All of them; none is left."""
        taken = self.entries()
        self._entries.clear()
        self._bytes = 0
        return taken


class Follower:
    """Entries for one reader as they come. One that is slow misses some and holds up nobody.

    Made by `Ring.follow` in the event loop of its reader.

    Args:
        plugin: whose; None for those of all plugins, without the host's own.
        level: the least that it wants, a number of `logging`.
    """

    def __init__(self, plugin: str | None, level: int) -> None:
        self._plugin, self._level = plugin, level
        self._kept = Kept()
        self._missed = 0
        self._lock = Lock()
        self._loop = asyncio.get_running_loop()
        self._came = asyncio.Event()

    def wants(self, plugin: str, level: int) -> bool:
        whose = bool(plugin) if self._plugin is None else plugin == self._plugin
        return whose and level >= self._level

    def offer(self, entry: Entry) -> None:
        """From any thread."""
        with self._lock:
            self._missed += self._kept.add(entry)
        if not self._came.is_set():
            self._loop.call_soon_threadsafe(self._came.set)

    async def take(self) -> tuple[int, list[Entry]]:
        """Waits for entries: those that came, and how many were missed before them."""
        await self._came.wait()
        self._came.clear()
        with self._lock:
            missed, self._missed = self._missed, 0
            return missed, self._kept.take()


class Ring(logging.Handler):
    """Keeps the last entries of each plugin; the host's own are under the empty name.

    Args:
        entry: makes an entry of a record.
    """

    def __init__(self, entry: Callable[[logging.LogRecord], Entry]) -> None:
        super().__init__()
        self._kept: dict[str, Kept] = {}
        self._followers: list[Follower] = []
        self._entry = entry

    def emit(self, record: logging.LogRecord) -> None:
        try:
            entry = self._entry(record)
        except Exception:
            self.handleError(record)
            return
        plugin = str(entry.get("plugin", ""))
        for follower in self._followers:
            if follower.wants(plugin, record.levelno):
                follower.offer(entry)
        if plugin not in self._kept and len(self._kept) >= PLUGINS_MAX:
            plugin = ""
        self._kept.setdefault(plugin, Kept()).add(entry)

    def entries(self, plugin: str | None) -> list[Entry]:
        """Sorted by time; None for all plugins and the host."""
        names = list(self._kept) if plugin is None else [plugin]
        found = [e for name in names if name in self._kept for e in self._kept[name].entries()]
        return sorted(found, key=lambda entry: str(entry["time"]))

    def follow(self, plugin: str | None, level: int) -> tuple[list[Entry], Follower]:
        """What is there and who tells of what comes: between the two nothing is lost."""
        follower = Follower(plugin, level)
        with self._held():
            self._followers.append(follower)
            return [e for e in self.entries(plugin) if _wanted(follower, e)], follower

    def unfollow(self, follower: Follower) -> None:
        with self._held():
            self._followers.remove(follower)

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Nothing is emitted meanwhile."""
        self.acquire()
        try:
            yield
        finally:
            self.release()


def _wanted(follower: Follower, entry: Entry) -> bool:
    level = logging.getLevelNamesMapping()[entry["level"].upper()]
    return follower.wants(str(entry.get("plugin", "")), level)
