"""How many calls and events one plugin serves at once, and how many a second."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from loom_sdk.errors import QuotaExceeded

WAITING_MAX = 1024
"""Calls and events that may wait for one plugin."""


class Spent(NamedTuple):
    """A quota without room for one call more."""

    quota: str
    limit: float
    used: float
    back_s: float | None
    """Seconds until it has; None where nobody knows."""


class Slots:
    """Concurrency and rate: how many at once, how many a second."""

    def __init__(self, plugin_id: str, limit: int, rate: float) -> None:
        self.plugin_id, self.limit, self.rate = plugin_id, limit, rate
        self.active = 0
        self._waiting: deque[asyncio.Future[bool]] = deque()
        self._closed: Callable[[], Exception] | None = None
        self._tokens, self._refilled = max(rate, 1.0), time.monotonic()

    @property
    def full(self) -> bool:
        return self.active >= self.limit

    def spend(self) -> None:
        """Take one call from the rate. Raises QuotaExceeded."""
        if not self.rate:
            return
        now = time.monotonic()
        grown = self._tokens + (now - self._refilled) * self.rate
        self._tokens, self._refilled = min(grown, max(self.rate, 1.0)), now
        if self._tokens < 1:
            raise QuotaExceeded(
                plugin_id=self.plugin_id, quota="rate", limit=self.rate, used=self.rate + 1
            )
        self._tokens -= 1

    def spent(self) -> Spent | None:
        """The quota that has no room for one call more; None where all have."""
        if self.rate:
            grown = self._tokens + (time.monotonic() - self._refilled) * self.rate
            if grown < 1:
                return Spent("rate", self.rate, self.rate + 1, (1 - grown) / self.rate)
        if len(self._waiting) >= WAITING_MAX:
            return Spent("concurrency", self.limit, self.active + WAITING_MAX, None)
        return None

    def taken(self) -> bool:
        """Take a free place, where there is one."""
        if self.active < self.limit:
            self.active += 1
            return True
        return False

    async def acquire(self) -> None:
        """Wait for a free place, first come first served.

        Raises QuotaExceeded, or as it was closed.
        """
        if self.taken():
            return
        if self._closed is not None:
            raise self._closed()
        if len(self._waiting) >= WAITING_MAX:
            raise QuotaExceeded(
                f"{self.plugin_id} is busy and {WAITING_MAX} calls wait for it already",
                plugin_id=self.plugin_id,
                quota="concurrency",
                limit=self.limit,
                used=self.active + WAITING_MAX,
            )
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            given = await future
        except asyncio.CancelledError:
            if not future.cancelled():
                if future.result():
                    self.release()
            elif future in self._waiting:
                self._waiting.remove(future)
            raise
        if not given:
            assert self._closed is not None
            raise self._closed()

    def release(self) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(True)  # the place passes on, `active` stays
                return
        self.active -= 1

    def close(self, why: Callable[[], Exception]) -> None:
        """Nobody waits any more: who does gets the error. Places in use are given back as ever."""
        self._closed = why
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(False)
