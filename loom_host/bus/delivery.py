"""Events in a receiver's hands: handed out, and not yet acknowledged."""

from __future__ import annotations

from bisect import insort
from dataclasses import replace
from typing import NamedTuple

from loom_sdk.events import Event

ATTEMPTS_MAX = 3
"""Deliveries of one event before it is a dead letter."""


class Delivery(NamedTuple):
    """An event in the hands of a `manual_ack` subscriber, until ack, nack or dead_letter."""

    event: Event
    attempt: int
    """1 to ATTEMPTS_MAX; also in `event.delivery_attempt`."""
    sequence: int
    """Number of the event's first delivery on this subscription, from 1; redelivery keeps it."""


class Ledger:
    """What one subscription has handed out and not got an answer for."""

    def __init__(self) -> None:
        self.acked = self.redelivered = 0
        self.failed: dict[str, int] = {}
        """Events that the receiver had and that were given up, by reason."""
        self._sequence = 0
        self._in_flight: dict[int, Delivery] = {}
        self._again: list[tuple[int, Delivery]] = []

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    @property
    def waiting(self) -> int:
        """Events to be delivered again."""
        return len(self._again)

    def open(self) -> list[Delivery]:
        return list(self._in_flight.values())

    def take(self, event: Event) -> Delivery:
        """Hand out an event for the first time."""
        self._sequence += 1
        delivery = Delivery(event, 1, self._sequence)
        self._in_flight[delivery.sequence] = delivery
        return delivery

    def take_again(self) -> Delivery | None:
        """The earliest event that is to be delivered again."""
        if not self._again:
            return None
        delivery = self._again.pop(0)[1]
        self.redelivered += 1
        self._in_flight[delivery.sequence] = delivery
        return delivery

    def ack(self, delivery: Delivery) -> None:
        self.acked += self._settle(delivery)

    def again(self, delivery: Delivery) -> bool:
        """Queue for another attempt; False when the delivery was answered before."""
        if not self._settle(delivery):
            return False
        attempt = delivery.attempt + 1
        event = replace(delivery.event, delivery_attempt=attempt)
        insort(self._again, (delivery.sequence, Delivery(event, attempt, delivery.sequence)))
        return True

    def fail(self, delivery: Delivery, reason: str) -> bool:
        """Give up; False when the delivery was answered before."""
        settled = self._settle(delivery)
        if settled:
            self.failed[reason] = self.failed.get(reason, 0) + 1
        return settled

    def close(self) -> None:
        """Whatever is open is given up as `closed`."""
        unanswered = len(self._in_flight) + len(self._again)
        if unanswered:
            self.failed["closed"] = unanswered
        self._in_flight.clear()
        self._again.clear()

    def _settle(self, delivery: Delivery) -> bool:
        if self._in_flight.get(delivery.sequence) is not delivery:
            return False
        del self._in_flight[delivery.sequence]
        return True
