"""The receiver's end of a subscription: iteration, acknowledgement, counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from loom_sdk.errors import BusError
from loom_sdk.events import Event, QoS

from .delivery import ATTEMPTS_MAX, Delivery, Ledger
from .inbox import Inbox, Owner


class Bus(Owner, Protocol):
    """What a subscription needs of its bus."""

    def unsubscribe(self, subscription: Subscription) -> None: ...


class Subscription(Inbox):
    """Made by `bus.subscribe`; use it with `async with` and `async for`, or `anext`.

    With `manual_ack=True` take events by `take()` or `async for delivery in deliveries()` and
    answer each with `ack`, `nack` or `dead_letter`. Several tasks may receive from one
    subscription; each event goes to one of them. Belongs to one event loop.
    """

    def __init__(
        self,
        owner: Bus,
        pattern: str,
        *,
        qos: QoS,
        types: Iterable[str] = (),
        filter: Callable[[Event], bool] | None = None,
        capacity: int | None = None,
        name: str = "",
        manual_ack: bool = False,
    ) -> None:
        super().__init__(
            owner, name or pattern, qos=qos, types=types, filter=filter, capacity=capacity
        )
        self._bus = owner
        self.pattern = pattern
        self.manual_ack = manual_ack
        self._ledger = Ledger()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        if self.manual_ack:
            raise BusError(f"subscription {self.name} has manual_ack: use take() and ack()")
        while not self._queue.mask:
            if self.closed:
                raise StopAsyncIteration
            await self._wait()
        return self._pop()

    async def take(self) -> Delivery:
        """The next event to be acknowledged: first what is delivered again, then by priority.

        Raises:
            BusError: the subscription is closed, or has no `manual_ack`.
        """
        if not self.manual_ack:
            raise BusError(f"subscription {self.name} acknowledges by itself: use anext()")
        while not self._ledger.waiting and not self._queue.mask:
            if self.closed:
                raise BusError(f"subscription {self.name} is closed")
            await self._wait()
        return self._ledger.take_again() or self._ledger.take(self._pop())

    def deliveries(self) -> Deliveries:
        """`take()` as an async iterator that ends when the subscription is closed."""
        return Deliveries(self)

    def ack(self, delivery: Delivery) -> None:
        """The event is done with. Answering a delivery twice does nothing."""
        self._ledger.ack(delivery)

    def nack(self, delivery: Delivery, reason: str = "not acknowledged", last: str = "") -> None:
        """Deliver the event again, first and in order; at the third time it is a dead letter.

        Realtime events are not repeated, they count as failed.

        Args:
            last: what went wrong this time: the dead letter tells it, too.
        """
        if self.qos is QoS.REALTIME:
            self._ledger.fail(delivery, "realtime")
        elif delivery.attempt < ATTEMPTS_MAX:
            if self._ledger.again(delivery):
                self._wake()
        elif self._ledger.fail(delivery, "attempts"):
            why = f" (the last: {last})" if last else ""
            text = f"{reason} in {ATTEMPTS_MAX} attempts{why}"
            self._owner.dead_letter(delivery.event, text, self.name)

    def nack_all(self, reason: str = "not acknowledged") -> int:
        """`nack` everything in flight, for a plugin that died; the number of events."""
        deliveries = self._ledger.open()
        for delivery in deliveries:
            self.nack(delivery, reason)
        return len(deliveries)

    def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """Give the event up at once, without another attempt."""
        if self._ledger.fail(delivery, "rejected"):
            self._owner.dead_letter(delivery.event, reason, self.name)

    def reject_all(self, reason: str) -> int:
        """Give up what is not in flight: queued or to be delivered again. The number of events."""
        count = 0
        while self._ledger.waiting or self._queue.mask:
            self.dead_letter(self._ledger.take_again() or self._ledger.take(self._pop()), reason)
            count += 1
        return count

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        """Unsubscribe; iterations end, what is queued or in flight is counted as `closed`."""
        if self.closed:
            return
        self._bus.unsubscribe(self)
        super().close()
        self._ledger.close()

    @property
    def in_flight(self) -> int:
        """Deliveries that are neither acknowledged nor given back."""
        return self._ledger.in_flight

    def stats(self) -> dict[str, Any]:
        """Counts: `matched` = `delivered` + sum of `dropped` + `depth` (+ publishers waiting),
        `delivered` = `acked` + sum of `failed` + `in_flight` + `redelivering`."""
        return {
            "name": self.name,
            "pattern": self.pattern,
            "qos": self.qos.name.lower(),
            "capacity": self.capacity,
            "matched": self.matched,
            "delivered": self.delivered,
            "acked": self._ledger.acked if self.manual_ack else self.delivered,
            "dropped": dict(self.dropped),
            "failed": dict(self._ledger.failed),
            "redelivered": self._ledger.redelivered,
            "redelivering": self._ledger.waiting,
            "depth": self.depth,
            "in_flight": self.in_flight,
            "state": self.state,
        }


class Deliveries:
    """Async iterator over a `manual_ack` subscription."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    def __aiter__(self) -> Deliveries:
        return self

    async def __anext__(self) -> Delivery:
        try:
            return await self._subscription.take()
        except BusError:
            if self._subscription.closed:
                raise StopAsyncIteration from None
            raise
