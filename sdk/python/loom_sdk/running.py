"""One call or event that a child serves, as the parts of its server share it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from . import wire
from .errors import DeadlineExceeded, QuotaExceeded
from .frames import Key


@dataclass(slots=True)
class Running:
    """One call or event being served, known to the thread that serves it as `current.running`."""

    id: str
    limit: int = 0
    """Quota output_bytes, 0 for none."""
    write: Callable[[Any], Awaitable[None]] | None = None
    """Writes one message of the answer; None for an event, which has no answer."""
    plugin_id: str = ""
    key: Key = 0
    """In a Session."""
    sent: int = 0
    cancelled: bool = False
    waiting: set[Future[Any]] = field(default_factory=set)
    """What the serving thread waits for at the host."""
    task: asyncio.Task[None] | None = None
    """Serves it where the method is async."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def cancel(self) -> None:
        """Wake whoever serves it; its next host call is refused."""
        self.cancelled = True
        for future in tuple(self.waiting):
            future.cancel()
        if self.task is not None:
            self.task.cancel()

    def make_room(self, size: int) -> None:
        """Raises QuotaExceeded when `size` more bytes of answer would be over output_bytes."""
        used = self.sent + size
        if self.limit and used > self.limit:
            raise QuotaExceeded(
                f"{self.plugin_id}: the answer has {used} bytes, quota output_bytes is "
                f"{self.limit}: answer in less, or raise the quota in loom.toml",
                plugin_id=self.plugin_id,
                quota="output_bytes",
                limit=self.limit,
                used=used,
            )

    def count(self, message: Any) -> None:
        """Raises QuotaExceeded when the answer grows over output_bytes."""
        size = wire.size_of(message)
        self.make_room(size)
        self.sent += size

    async def send(self, message: Any) -> None:
        """Raises QuotaExceeded when the answer grows over output_bytes."""
        self.count(message)
        if self.cancelled or self.write is None:
            raise DeadlineExceeded("the host cancelled this call")
        async with self.lock:  # two writes at once would break the stream
            await self.write(message)


class _Current(threading.local):
    running: Running | None = None


current = _Current()
