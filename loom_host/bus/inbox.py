"""The bus's end of a subscription: its queue, who waits for room in it, who waits for events."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Protocol

from loom_sdk.errors import BusError
from loom_sdk.events import Event, QoS

from .queue import PriorityQueue, clamp
from .stats import state_of

logger = logging.getLogger(__name__)

CAPACITY: dict[QoS, int] = {QoS.REALTIME: 64, QoS.BATCHED: 1024, QoS.BACKGROUND: 4096}
"""Queue sizes of the Rust project."""
PROBE = 63
"""Latency is measured on every 64th event: `matched & PROBE == 0`."""

SKIPPED, QUEUED, FULL = 0, 1, 2
"""What `offer` did: not for this one (or dropped), in the queue, no room."""


class Owner(Protocol):
    """What an inbox needs of its bus."""

    def dropped(self, event: Event, reason: str) -> None: ...
    def dead_letter(self, event: Event, reason: str, subscription: str) -> None: ...
    def dispatched(self, subscription: str, seconds: float) -> None: ...
    def logged(self) -> None: ...


class Pending:
    """One publish that waits for room in one or more full subscriptions."""

    __slots__ = ("delivered", "event", "future", "over", "waiting")

    def __init__(self, event: Event, full: list[Inbox]) -> None:
        self.event = event
        self.waiting = set(full)
        """Subscriptions that have neither taken the event nor closed."""
        self.delivered = 0
        self.over = False
        """The publisher has stopped waiting; admit nothing any more."""
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, inbox: Inbox, delivered: bool) -> None:
        self.waiting.discard(inbox)
        self.delivered += delivered
        if not self.waiting:
            self.finish()

    def finish(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class Inbox:
    """A bounded queue that one subscription's receivers empty and the bus fills."""

    def __init__(
        self,
        owner: Owner,
        name: str,
        *,
        qos: QoS,
        types: Iterable[str] = (),
        filter: Callable[[Event], bool] | None = None,
        capacity: int | None = None,
    ) -> None:
        if capacity is not None and capacity < 1:
            raise BusError(f"capacity of {name!r} must be at least 1, not {capacity}")
        self.qos = qos
        self.name = name
        self.capacity = capacity or CAPACITY[qos]
        self.reads: Callable[[int], bool] | None = None
        """Whether it may get an event that bears a label of privacy; None: any."""
        self.lagging = False
        """Set when a publisher waited in vain; cleared when less than half full."""
        self.closed = False
        self.matched = self.delivered = 0
        self.dropped: dict[str, int] = {}
        """Events that never reached the receiver, by reason."""
        self._owner = owner
        self._types = frozenset(types)
        self._filter = filter
        self._queue: PriorityQueue[Event] = PriorityQueue()
        self._getters: deque[asyncio.Future[None]] = deque()
        self._pending: PriorityQueue[Pending] | None = None
        self._watch_room = False
        self._probe: Event | None = None
        self._probe_at = 0.0

    def offer(self, event: Event) -> int:
        """Put an event into the queue if it fits the subscription and there is room."""
        if self._types and event.type not in self._types:
            return SKIPPED
        if self._filter is not None and not self._passes(event):
            return SKIPPED
        self.matched += 1
        queue = self._queue
        if queue.size >= self.capacity:
            return self._crowd_out(event) if self.qos is QoS.REALTIME else FULL
        queue.push(event.priority, event)
        if not self.matched & PROBE:
            self._probe, self._probe_at = event, perf_counter()
        if self._getters:
            self._wake()
        return QUEUED

    def wait_for_room(self, pending: Pending) -> None:
        """Admit `pending.event`, offered before and refused, as soon as there is room."""
        if self._pending is None:
            self._pending = PriorityQueue()
        self._pending.push(pending.event.priority, pending)
        self._watch_room = True

    def give_up(self, event: Event, reason: str) -> None:
        """Count an event that found no room, and make it a dead letter."""
        self._drop(event, reason)
        self._owner.dead_letter(event, reason, self.name)

    def lag(self) -> None:
        """A publisher waited in vain: nobody waits again until the queue is below half."""
        if self.closed:
            return
        if not self.lagging:
            logger.warning(
                "subscription %s is lagging: %d events wait; until it has caught up, what finds "
                "no room goes to loom.dead_letter",
                self.name,
                self.depth,
            )
        self.lagging = self._watch_room = True

    def _passes(self, event: Event) -> bool:
        assert self._filter is not None
        try:
            return bool(self._filter(event))
        except Exception as exc:
            if "filter_error" not in self.dropped:
                logger.warning("filter of subscription %s failed: %r", self.name, exc)
            self.matched += 1
            self._drop(event, "filter_error")
            return False

    def _crowd_out(self, event: Event) -> int:
        """Realtime and full: the oldest of the lowest priority goes, which may be the new one."""
        if clamp(event.priority) < self._queue.lowest():
            self._drop(event, "overflow")
            return SKIPPED
        self._drop(self._queue.pop_lowest(), "evicted")
        self._queue.push(event.priority, event)
        return QUEUED

    def _drop(self, event: Event, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        self._owner.dropped(event, reason)

    def _wake(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return

    def _pop(self) -> Event:
        event = self._queue.pop()
        self.delivered += 1
        if self._watch_room:
            self._made_room()
        if event is self._probe:
            self._probe = None
            self._owner.dispatched(self.name, perf_counter() - self._probe_at)
        return event

    def _made_room(self) -> None:
        while self._pending is not None and self._pending.mask:
            pending = self._pending.pop()
            if not pending.over:
                self._queue.push(pending.event.priority, pending.event)
                pending.settle(self, delivered=True)
                return
        if self.lagging and self._queue.size * 2 < self.capacity:
            self.lagging = False
        self._watch_room = self.lagging

    async def _wait(self) -> None:
        getter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._getters.append(getter)
        try:
            await getter
        except asyncio.CancelledError:
            # Woken and cancelled at once: the event must not be left lying, wake another.
            if getter.cancelled():
                self._getters.remove(getter)
            else:
                self._wake()
            raise

    def close(self) -> None:
        """Iterations end; what is queued is counted as `closed`."""
        if self.closed:
            return
        self.closed = True
        for event in self._queue.drain():
            self._drop(event, "closed")
        for pending in self._pending.drain() if self._pending else ():
            if not pending.over:
                self._drop(pending.event, "closed")
                pending.settle(self, delivered=False)
        while self._getters:
            self._wake()

    @property
    def depth(self) -> int:
        """Events that wait for their first delivery."""
        return self._queue.size

    @property
    def state(self) -> str:
        """`normal`, `pressured` (80% and above), `full` or `lagging`."""
        return state_of(self._queue.size, self.capacity, self.lagging)
