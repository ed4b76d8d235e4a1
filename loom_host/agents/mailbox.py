"""An agent's mailbox: one bounded queue behind all topics that it hears."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from time import perf_counter

from loom_host.bus import CAPACITY, Delivery
from loom_host.bus.inbox import FULL, PROBE, QUEUED, SKIPPED
from loom_host.bus.queue import PriorityQueue, clamp
from loom_host.bus.stats import state_of
from loom_host.bus.subscription import Bus, Subscription
from loom_sdk import Event, QoS
from loom_sdk.errors import StorageError

from .journal import Journal

log = logging.getLogger("loom.agents")


@dataclass(slots=True)
class Entry:
    """An event that waits in a mailbox."""

    event: Event
    inlet: Inlet
    number: int = 0
    """In the agent's log; 0 where it has none."""
    since: float = 0.0


class Mailbox:
    """What comes through all inlets of one agent, by priority, first in first out inside each.

    Realtime events have a lane of their own: where it is full the oldest of the lowest priority
    goes. The other lane makes publishers wait, and logs what it takes where there is a journal.

    Args:
        capacity: of each lane; 0 for the bus's sizes.
    """

    def __init__(self, capacity: int, journal: Journal | None = None) -> None:
        self.journal = journal
        self.inlets: list[Inlet] = []
        self._capacity = capacity
        self._firm: PriorityQueue[Entry] = PriorityQueue()
        self._soft: PriorityQueue[Entry] = PriorityQueue()
        self._getter: asyncio.Future[None] | None = None
        self._again = False
        """Whether there may be something to deliver again."""
        self._newest: Event | None = None
        self._through: Inlet | None = None

    @property
    def size(self) -> int:
        return self._firm.size + self._soft.size

    def capacity(self, qos: QoS) -> int:
        return self._capacity or CAPACITY[qos]

    def lane(self, qos: QoS) -> PriorityQueue[Entry]:
        """Where what comes through inlets of that QoS waits."""
        return self._soft if qos is QoS.REALTIME else self._firm

    def offer(self, event: Event, inlet: Inlet) -> int:
        """As `Inbox.offer`."""
        if self._newest is event and self._through is not inlet:  # as `has`, without a call
            return SKIPPED
        inlet.matched += 1
        lane = inlet.lane
        if lane.size >= inlet.capacity:
            if lane is self._firm:
                return FULL
            if clamp(event.priority) < lane.lowest():
                inlet.lose(event, "overflow")
                return SKIPPED
            evicted = lane.pop_lowest()
            evicted.inlet.queued -= 1
            evicted.inlet.lose(evicted.event, "evicted")
        if self.journal is not None:
            return self.put(event, inlet)
        self.restore(event, inlet, 0)
        return QUEUED

    def has(self, event: Event, inlet: Inlet) -> bool:
        """Whether it came just now through another inlet, which matches it, too."""
        return self._newest is event and self._through is not inlet

    def put(self, event: Event, inlet: Inlet) -> int:
        """Take an event for which there is room. It is in the log when this returns."""
        number = 0
        if self.journal is not None and inlet.lane is self._firm:
            try:
                number = self.journal.append(event)
                inlet.logged()
            except StorageError as error:
                log.error("%s: %s", inlet.name, error.message)
                inlet.give_up(event, "storage_error")
                return SKIPPED
        self.restore(event, inlet, number)
        return QUEUED

    def restore(self, event: Event, inlet: Inlet, number: int) -> None:
        """Take an event that the log has, or that needs none."""
        self._newest, self._through = event, inlet
        inlet.lane.push(event.priority, Entry(event, inlet, number, perf_counter()))
        inlet.queued += 1
        if self._getter is not None:
            self._wake()

    def _wake(self) -> None:
        getter, self._getter = self._getter, None
        if getter is not None and not getter.done():
            getter.set_result(None)

    def look_again(self) -> None:
        """An inlet has something to be delivered again."""
        self._again = True
        self._wake()

    async def take(self) -> tuple[Inlet, Delivery, float]:
        """The next event, first what is delivered again; the seconds that it waited.

        For one receiver.
        """
        while True:
            if self._again:
                for inlet in self.inlets:
                    if again := inlet.take_again():
                        return inlet, again, 0.0
                self._again = False
            if self._firm.mask or self._soft.mask:
                return self._pop()
            self._getter = asyncio.get_running_loop().create_future()
            await self._getter

    def _pop(self) -> tuple[Inlet, Delivery, float]:
        soft = self._soft.mask.bit_length() >= self._firm.mask.bit_length()
        entry = (self._soft if soft else self._firm).pop()
        for inlet in self.inlets:
            inlet.made_room()
        waited = perf_counter() - entry.since
        return entry.inlet, entry.inlet.hand_out(entry, waited), waited

    def without(self, inlet: Inlet) -> list[Entry]:
        """Take out what came through a inlet."""
        lane = inlet.lane
        entries = lane.drain()
        for entry in entries:
            if entry.inlet is not inlet:
                lane.push(entry.event.priority, entry)
        return [entry for entry in entries if entry.inlet is inlet]


class Inlet(Subscription):
    """A topic that fills a mailbox: a subscription whose queue is the mailbox's."""

    def __init__(
        self,
        owner: Bus,
        pattern: str,
        mailbox: Mailbox,
        *,
        qos: QoS,
        types: tuple[str, ...],
        name: str,
    ) -> None:
        room = mailbox.capacity(qos)
        super().__init__(
            owner, pattern, qos=qos, types=types, capacity=room, name=name, manual_ack=True
        )
        self.mailbox, self.lane, self.queued = mailbox, mailbox.lane(qos), 0
        self._numbers: dict[int, int] = {}
        mailbox.inlets.append(self)

    def offer(self, event: Event) -> int:
        if self._types and event.type not in self._types:
            return SKIPPED
        return self.mailbox.offer(event, self)

    def lose(self, event: Event, reason: str) -> None:
        """Count an event that found no room and is not worth a dead letter."""
        self._drop(event, reason)

    def logged(self) -> None:
        """The log took an event: its publisher waits until that will last."""
        self._owner.logged()

    def _wake(self) -> None:
        self.mailbox.look_again()

    def made_room(self) -> None:
        """Admit who waits, as far as there is room."""
        if not self._watch_room:
            return
        waiting = self._pending
        while waiting and waiting.mask and self.lane.size < self.capacity:
            pending = waiting.pop()
            if pending.over:
                continue
            if twin := self.mailbox.has(pending.event, self):
                self.matched -= 1
            taken = not twin and self.mailbox.put(pending.event, self) == QUEUED
            pending.settle(self, delivered=taken)
        if self.lagging and self.lane.size * 2 < self.capacity:
            self.lagging = False
        self._watch_room = self.lagging or bool(waiting and waiting.mask)

    def take_again(self) -> Delivery | None:
        return self._ledger.take_again()

    def hand_out(self, entry: Entry, waited: float = 0.0) -> Delivery:
        """An entry that left the queue after so many seconds, to be acknowledged."""
        self.queued -= 1
        self.delivered += 1
        if not self.delivered & PROBE:
            self._owner.dispatched(self.name, waited)
        delivery = self._ledger.take(entry.event)
        if entry.number:
            self._numbers[delivery.sequence] = entry.number
        return delivery

    def number_of(self, delivery: Delivery) -> int:
        """Of the event in the log; 0 where it is not there."""
        return self._numbers.get(delivery.sequence, 0) if self._numbers else 0

    def ack(self, delivery: Delivery) -> None:
        """It is handled, and the log knows it."""
        self._ledger.ack(delivery)
        if self._numbers:
            self._numbers.pop(delivery.sequence, None)

    def nack(self, delivery: Delivery, reason: str = "not acknowledged", last: str = "") -> None:
        super().nack(delivery, reason, last)
        if not self._ledger.waiting:
            self._forget(delivery)

    def dead_letter(self, delivery: Delivery, reason: str) -> None:
        super().dead_letter(delivery, reason)
        self._forget(delivery)

    def _forget(self, delivery: Delivery) -> None:
        number, journal = self._numbers.pop(delivery.sequence, 0), self.mailbox.journal
        if number and journal is not None:
            try:
                journal.drop(number)
            except StorageError as error:  # it is delivered again after the next start
                log.error("%s: %s", self.name, error.message)

    def reject_all(self, reason: str) -> int:
        """As of any subscription; what the log has stays there, for the next start."""
        if self.mailbox.journal is not None and self.qos is not QoS.REALTIME:
            return 0
        found = [self.hand_out(entry) for entry in self.mailbox.without(self)]
        while again := self._ledger.take_again():
            found.append(again)
        for delivery in found:
            self.dead_letter(delivery, reason)
        return len(found)

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        for entry in self.mailbox.without(self):
            self._drop(entry.event, "closed")
        self.queued = 0
        self.mailbox.inlets.remove(self)

    @property
    def depth(self) -> int:
        """Events of this topic that wait for their first delivery."""
        return self.queued

    @property
    def state(self) -> str:
        """Of the mailbox: `normal`, `pressured`, `full` or `lagging`."""
        return state_of(self.lane.size, self.capacity, self.lagging)
