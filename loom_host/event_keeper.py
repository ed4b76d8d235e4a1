"""The event log of a running host: what is published on the chosen topics, kept in its store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

from loom_sdk import Event
from loom_sdk.errors import StorageError
from loom_sdk.events import now_ms
from loom_sdk.topics import matches

from .bus import MemoryBus
from .bus.tap import Tap
from .settings import EventLogSettings
from .storage import Batch, EventLog, Logged, Store
from .storage import log_keys as keys
from .storage.event_log import forget_waiting
from .storage.keys import AGENTS

log = logging.getLogger("loom.storage")

STEP = 64
"""Events that are written at once, about a millisecond, before others get their turn."""
WAITING_MAX = 65_536
"""Events that wait for the log; more are not logged but counted as lost."""
TRIM_S = 60.0
DAY_MS = 24 * 3600 * 1000


class EventKeeper:
    """Logs events off the publishers' path; reads, trims and forgets them.

    The bus hands an event over inside publish, in order of publishing; a task writes what has
    come together in one batch.
    """

    def __init__(self, bus: MemoryBus, store: Store, settings: EventLogSettings) -> None:
        self._bus, self._store, self._patterns = bus, store, settings.topics
        self._log = EventLog(
            store,
            max_age_ms=settings.max_age_days * DAY_MS,
            max_bytes=settings.max_bytes,
        )
        self._waiting: deque[Event] = deque()
        self._apart: set[str] = set()
        self._come = asyncio.Event()
        self._tap: Tap | None = None
        self._task: asyncio.Task[None] | None = None
        self.lost = 0
        """Events that were not logged: too many waited, or the store refused them."""

    def start(self) -> None:
        """Log from now on what is published on the topics of `[event_log]`, if any.

        Raises:
            StorageError: the store cannot be opened.
        """
        if self._patterns:
            self._log.open()
            self._tap = Tap(self._bus, self._patterns, "event-log", self._hear)
            self._task = asyncio.create_task(self._run())

    def _hear(self, event: Event) -> None:
        if event.id in self._apart:
            self._apart.discard(event.id)
        elif len(self._waiting) < WAITING_MAX:
            self._waiting.append(event)
            self._come.set()
        else:
            self._lose(1, "they come faster than they can be written")

    def _lose(self, count: int, why: str) -> None:
        if not self.lost:
            log.error("events are not logged: %s", why)
        self.lost += count

    async def _run(self) -> None:
        trimmed_at = 0.0
        loop = asyncio.get_running_loop()
        while self._tap is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TRIM_S):
                    await self._come.wait()
            self._come.clear()
            await self._write_all()
            try:
                if loop.time() - trimmed_at >= TRIM_S or self._log.too_large:
                    trimmed_at = loop.time()
                    await self.trim()
            except StorageError as error:
                log.error("the event log cannot be trimmed: %s", error)

    async def _write_all(self) -> None:
        while self._waiting:
            events = [self._waiting.popleft() for _ in range(min(STEP, len(self._waiting)))]
            self._write(events)
            await asyncio.sleep(0)

    def _write(self, events: list[Event]) -> None:
        try:
            self._log.append(events)
        except StorageError as error:
            self._lose(len(events), error.message)
        except (TypeError, ValueError) as error:  # native code may publish what no file can hold
            if len(events) > 1:
                for event in events:
                    self._write([event])
            else:
                self._lose(1, f"{events[0].topic} {events[0].type}: {error}")

    async def trim(self) -> int:
        """Delete what is too old or too much; the number of events."""
        return await _steps(self._log.trim(now_ms()))

    # -- use

    async def append(self, event: Event, batch: Batch | None = None) -> bytes:
        """Log one event, together with `batch`; returns its position when a kill cannot lose it.

        It is not logged again when it is published on a topic of `[event_log]`, so publish it
        afterwards. Raises StorageError.
        """
        position = self._log.append([event], batch)[0]
        if self._tap is not None and self._tap.fits(event.topic):
            self._apart.add(event.id)
        await self._store.settle()
        return position

    def read(
        self, pattern: str = ">", since_ms: int = 0, until_ms: int = 0, after: bytes = b""
    ) -> Iterator[Logged]:
        """Logged events on topics that fit, in order of logging; see `EventLog.read`.

        What has just been published may still be on its way: `await drained()` before.
        """
        return self._log.read(pattern, since_ms, until_ms, after)

    async def drained(self) -> None:
        """Return when all that was published before is logged."""
        await self._write_all()

    async def forget(self, match: Callable[[Event], bool], also: Iterable[bytes] = ()) -> int:
        """Delete the events that match, in a way that their bytes leave the store's files: from
        the log, and from those of durable agents, where an agent that has one in its hands or its
        mailbox handles it all the same.

        Backups and records that were made before keep them. Returns how many there were.

        Args:
            also: prefixes of keys, such as a plugin's, of which what is deleted leaves the files.
        """
        await self.drained()
        count = await _steps(self._log.forget(match))
        count += await _steps(forget_waiting(self._store, match))
        for prefix in (keys.ALL, AGENTS, *also):
            await asyncio.to_thread(self._store.erase, prefix)
        return count

    async def aclose(self) -> None:
        """Write what waits and stop."""
        if self._tap is not None:
            self._tap.close()
            self._tap = None
        if self._task is not None:
            self._come.set()  # not cancelled: what it writes is written whole
            await self._task
            self._task = None
        await self._write_all()


async def _steps(work: Iterable[int]) -> int:
    total = 0
    for count in work:
        total += count
        await asyncio.sleep(0)
    return total


def bearing(wanted: Mapping[str, str], pattern: str = ">") -> Callable[[Event], bool]:
    """Whether an event carries all these pairs, such as `session_id` or `user`, on these topics."""

    def match(event: Event) -> bool:
        fits = all(event.metadata.get(key) == value for key, value in wanted.items())
        return fits and matches(pattern, event.topic)

    return match
