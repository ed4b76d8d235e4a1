"""The event log in a store: append, read by topic and time, trim, forget.

Belongs to one event loop; only `read` and what it returns may be used in another thread.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from loom_sdk.events import Event, now_ms
from loom_sdk.topics import matches

from . import log_keys as keys
from .event_codec import pack_event, unpack_event
from .keys import AGENTS, is_agent_log
from .store import Batch, Store

STEP = 100
"""Events that one step of trimming or forgetting looks at: about a millisecond."""


@dataclass(frozen=True, slots=True)
class Logged:
    """An event of the log."""

    event: Event
    time_ms: int
    """When it was logged, Unix time in milliseconds; never less than that of an earlier one."""
    position: bytes
    """16 bytes; read on behind it with `after`."""


@dataclass(slots=True)
class TopicSize:
    """What one topic holds in the log."""

    events: int = 0
    size: int = 0
    """Bytes of keys and values."""

    def packed(self) -> bytes:
        return keys.position(self.events, self.size)


class EventLog:
    """Events of a store by topic and time.

    Args:
        max_age_ms, max_bytes: what `trim` leaves, in keys and values; 0: no limit.
    """

    def __init__(self, store: Store, *, max_age_ms: float = 0, max_bytes: int = 0) -> None:
        self._store, self._max_age_ms, self._max_bytes = store, max_age_ms, max_bytes
        self._known: dict[str, TopicSize] | None = None
        self._last = (0, 0)

    def open(self) -> None:
        """Raises StorageError where the store cannot be opened."""
        _ = self.topics

    @property
    def topics(self) -> dict[str, TopicSize]:
        """Sizes by topic."""
        if self._known is None:
            self._last = keys.position_parts(self._store.get(keys.LAST) or bytes(16))
            self._known = {
                keys.topic_of(key): TopicSize(*keys.position_parts(value))
                for key, value in self._store.scan(keys.TOPICS)
            }
        return self._known

    @property
    def size(self) -> int:
        """Bytes of keys and values."""
        return sum(topic.size for topic in self.topics.values())

    @property
    def too_large(self) -> bool:
        return 0 < self._max_bytes < self.size

    def append(self, events: Iterable[Event], batch: Batch | None = None) -> list[bytes]:
        """Log the events, together with what is in `batch`, in one write; their positions.

        Raises:
            StorageError: nothing of it was written.
        """
        batch = batch if batch is not None else Batch()
        try:
            found = self._add(events, batch)
            self._store.write(batch)
        except BaseException:
            self._known = None  # what the store has counts, not what was to be written
            raise
        return found

    def _add(self, events: Iterable[Event], batch: Batch) -> list[bytes]:
        topics, touched, found = self.topics, set[str](), []
        now = max(now_ms(), self._last[0])
        for event in events:
            self._last = (now, self._last[1] + 1)
            at = keys.position(*self._last)
            key, value = keys.event_key(event.topic, at), pack_event(event)
            batch.put(key, value)
            size = topics.setdefault(event.topic, TopicSize())
            size.events += 1
            size.size += len(key) + len(value)
            touched.add(event.topic)
            found.append(at)
        for topic in touched:
            batch.put(keys.topic_key(topic), topics[topic].packed())
        batch.put(keys.LAST, keys.position(*self._last))
        return found

    def read(
        self, pattern: str = ">", since_ms: int = 0, until_ms: int = 0, after: bytes = b""
    ) -> Iterator[Logged]:
        """Events whose topic fits the pattern, in the order in which they were logged.

        Args:
            since_ms, until_ms: from and before this time of logging; 0: no bound.
            after: only those behind this position.
        """
        start = max(keys.position(since_ms, 0), after)
        end = keys.position(until_ms or keys.TIME_MAX, 0)
        topics = [topic for topic in self.topics if matches(pattern, topic)]
        ranges = [self._range(topic, start, end) for topic in topics]
        for at, _, value in heapq.merge(*ranges):
            if at != after:
                yield Logged(unpack_event(value), keys.position_parts(at)[0], at)

    def _range(
        self, topic: str, start: bytes = b"", end: bytes = b"\xff" * 17
    ) -> Iterator[tuple[bytes, str, bytes]]:
        prefix = keys.topic_prefix(topic)
        for key, value in self._store.scan(prefix, prefix + start):
            at = key[len(prefix) :]
            if at >= end:
                return
            yield at, topic, value

    def trim(self, now: int) -> Iterator[int]:
        """Delete what is too old and, oldest first, what is too much; yields after each step how
        many events went, so that others get their turn."""
        if self._max_age_ms:
            end = keys.position(max(int(now - self._max_age_ms), 0), 0)
            for topic in list(self.topics):
                yield from self._delete(self._range(topic, end=end), lambda _: True)
        if self.too_large:
            oldest = heapq.merge(*(self._range(topic) for topic in list(self.topics)))
            for count in self._delete(oldest, lambda _: self.too_large):
                yield count
                if not self.too_large:
                    return

    def forget(self, match: Callable[[Event], bool]) -> Iterator[int]:
        """Delete the events that match, as `trim` does; their bytes go with `Store.erase`."""
        for topic in list(self.topics):
            yield from self._delete(self._range(topic), lambda value: match(unpack_event(value)))

    def _delete(
        self, found: Iterator[tuple[bytes, str, bytes]], wanted: Callable[[bytes], bool]
    ) -> Iterator[int]:
        while step := list(islice(found, STEP)):
            batch, touched, count = Batch(), set[str](), 0
            for at, topic, value in step:
                key = keys.event_key(topic, at)
                if not wanted(value) or self._store.get(key) is None:  # gone since the scan began
                    continue
                batch.delete(key)
                self.topics[topic].events -= 1
                self.topics[topic].size -= len(key) + len(value)
                touched.add(topic)
                count += 1
            if batch:
                self._note_sizes(touched, batch)
                self._write(batch)
            yield count

    def _write(self, batch: Batch) -> None:
        try:
            self._store.write(batch)
        except BaseException:
            self._known = None  # what the store has counts, not what was to be written
            raise

    def _note_sizes(self, touched: set[str], batch: Batch) -> None:
        for topic in touched:
            if self.topics[topic].events:
                batch.put(keys.topic_key(topic), self.topics[topic].packed())
            else:
                batch.delete(keys.topic_key(topic))
                del self.topics[topic]


def forget_waiting(store: Store, match: Callable[[Event], bool]) -> Iterator[int]:
    """Delete from the logs of durable agents what matches; yields as `EventLog.trim` does."""
    waiting = (pair for pair in store.scan(AGENTS) if is_agent_log(pair[0]))
    while step := list(islice(waiting, STEP)):
        batch = Batch()
        for key, value in step:
            if match(unpack_event(value)):
                batch.delete(key)
        if batch:
            store.write(batch)
        yield len(batch)
