"""The bus inside one process: publishing, backpressure, dead letters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any, Protocol

from loom_host.privacy import ASKED, DEFAULT, KEY, level_of
from loom_sdk.errors import BusError
from loom_sdk.events import Event, QoS, set_source, set_topic
from loom_sdk.topics import check_pattern

from .dead_letter import DEAD_LETTER, letter_of
from .inbox import FULL, QUEUED, Inbox, Pending
from .routes import Route, RouteTable
from .stats import TopicStats, TopicTable
from .subscription import Subscription

logger = logging.getLogger(__name__)

YIELD_EVERY = 512
"""Publishes after which the loop gets a turn, so that a publisher in a tight loop that never has
to wait (Realtime, nobody listening) starves nobody."""
OWN_TOPICS = "loom."
"""The host's own notices: nobody need listen to them."""


class PublishSpan(Protocol):
    """What the bus needs of the span of one publish."""

    @property
    def traceparent(self) -> str: ...
    def set(self, key: str, value: int) -> None: ...
    def end(self) -> None: ...


OnPublish = Callable[[str, Event], PublishSpan]
OnDispatch = Callable[[str, float], None]


class MemoryBus:
    """Publish and subscribe by topic, on one event loop, without a task, lock or copy per event.

    Args:
        publish_wait_ms: longest time one publish waits for full subscriptions.
        source: written into events that name none, and into dead letters.
        on_publish: begins a span, from topic and event, for every event whose trace is sampled;
            receivers get the event below that span.
        on_dispatch: called with a subscription's name and the seconds from publish to receive,
            for one event in 64.
    """

    def __init__(
        self,
        publish_wait_ms: float = 250,
        source: str = "host",
        on_publish: OnPublish | None = None,
        on_dispatch: OnDispatch | None = None,
    ) -> None:
        self.closed = False
        self._wait_s = publish_wait_ms / 1000
        self._source = source
        self._on_publish = on_publish
        self._on_dispatch = on_dispatch
        self.settle: Callable[[], Awaitable[object]] | None = None
        """Awaited by a publish whose event was logged: returns when the log will last."""
        self._logged = 0
        self._published = 0
        self._topics = TopicTable()
        self._table = RouteTable(self._topics)
        self._routes = self._table.known

    async def publish(self, topic: str, event: Event) -> int:
        """Deliver to every matching subscription with room, then wait for the full ones.

        Waits at most `publish_wait_ms`; what then finds no room becomes a dead letter.

        Returns:
            The number of subscriptions that have the event in their queue.

        Raises:
            BusError: the topic is malformed or the bus is closed.
        """
        route = self._routes.get(topic) or self._route(topic)
        event = self._stamp(topic, event)
        span = self._begin(topic, event) if event.traceparent else None
        if span is not None:
            event = replace(event, traceparent=span.traceparent)
        delivered, logged = 0, self._logged
        try:
            delivered, full = self._spread(route, event)
            if full:
                delivered += await self._wait(route, event, full)
            if self._logged != logged and self.settle is not None:
                await self.settle()
        finally:
            if span is not None:
                span.set("delivered", delivered)
                span.end()
        self._published += 1
        if not self._published % YIELD_EVERY:
            await asyncio.sleep(0)
        return delivered

    def publish_nowait(self, topic: str, event: Event) -> int:
        """As `publish`, but what finds no room becomes a dead letter at once."""
        route = self._routes.get(topic) or self._route(topic)
        event = self._stamp(topic, event)
        span = self._begin(topic, event) if event.traceparent else None
        if span is not None:
            event = replace(event, traceparent=span.traceparent)
        delivered, full = self._spread(route, event)
        for inbox in full:
            inbox.give_up(event, "queue_full")
        if span is not None:
            span.set("delivered", delivered)
            span.end()
        return delivered

    def subscribe(
        self,
        pattern: str,
        *,
        qos: QoS = QoS.BATCHED,
        types: Iterable[str] = (),
        filter: Callable[[Event], bool] | None = None,
        capacity: int | None = None,
        name: str = "",
        manual_ack: bool = False,
    ) -> Subscription:
        """Hear a pattern from now on, until the subscription is closed.

        Args:
            types: only events of these types; empty for all.
            filter: only events for which it is true; it runs inside publish, so keep it short.
            capacity: queue size, by default 64 Realtime, 1024 Batched, 4096 Background.
            name: shown in statistics and dead letters, by default the pattern.
            manual_ack: take events by `take()`, and answer each.

        Raises:
            BusError: the pattern or capacity is malformed, or the bus is closed.
        """
        check_pattern(pattern)
        self._check_open()
        subscription = Subscription(
            self,
            pattern,
            qos=qos,
            types=types,
            filter=filter,
            capacity=capacity,
            name=name,
            manual_ack=manual_ack,
        )
        self._table.add(subscription)
        return subscription

    def attach(self, subscription: Subscription) -> None:
        """Hear with a subscription that was made elsewhere. Raises BusError as `subscribe`."""
        check_pattern(subscription.pattern)
        self._check_open()
        self._table.add(subscription)

    def wanted(self, topic: str) -> bool:
        """Whether anybody would get an event of this topic. Raises BusError: it is malformed."""
        if self.closed:
            return False
        return bool((self._routes.get(topic) or self._table.find(topic)).subscriptions)

    def subscriptions(self) -> list[Subscription]:
        """All that are open, oldest first."""
        return self._table.subscriptions()

    def stats(self) -> dict[str, Any]:
        """Plain numbers: `topics` by name, `subscriptions` as a list. See docs/BACKPRESSURE.md."""
        return {
            "topics": self._topics.as_dict(),
            "subscriptions": [item.stats() for item in self.subscriptions()],
        }

    async def aclose(self) -> None:
        """Close every subscription; later use raises BusError."""
        self.closed = True
        for subscription in self.subscriptions():
            subscription.close()
        self._routes.clear()

    # What subscriptions ask of their bus

    def dropped(self, event: Event, reason: str) -> None:
        self._topics.of(event.topic).drop(reason)

    def dispatched(self, subscription: str, seconds: float) -> None:
        if self._on_dispatch is not None:
            self._on_dispatch(subscription, seconds)

    def logged(self) -> None:
        """An event went into a log that outlives the process."""
        self._logged += 1

    def unsubscribe(self, subscription: Subscription) -> None:
        self._table.remove(subscription)

    def dead_letter(self, event: Event, reason: str, subscription: str) -> None:
        """Publish what could not be delivered; never waits, and a dead letter makes no other."""
        if self.closed or event.topic == DEAD_LETTER:
            return
        route = self._routes.get(DEAD_LETTER) or self._route(DEAD_LETTER)
        if not route.subscriptions:
            route.stats.published += 1
            route.stats.unrouted += 1
            return
        letter = letter_of(event, reason, subscription, self._source)
        for inbox in self._spread(route, letter)[1]:
            inbox.give_up(letter, "queue_full")

    # How an event is delivered

    def _stamp(self, topic: str, event: Event) -> Event:
        if event.topic != topic:
            if event.topic:
                return replace(event, topic=topic)
            # Fresh from its publisher: nobody else has seen it, so writing is safe and cheap.
            set_topic(event, topic)
        if not event.source:
            set_source(event, self._source)
        return event

    def _begin(self, topic: str, event: Event) -> PublishSpan | None:
        """The span of a publish whose trace is sampled."""
        if self._on_publish is None or not event.traceparent.endswith("-01"):
            return None
        return self._on_publish(topic, event)

    def _spread(self, route: Route, event: Event) -> tuple[int, list[Inbox]]:
        """Put the event where there is room; returns how often, and who is full and not lagging."""
        stats = route.stats
        stats.published += 1
        delivered = 0
        full: list[Inbox] = []
        metadata, heard = event.metadata, route.subscriptions
        if metadata and (KEY in metadata or ASKED in metadata):
            heard = _cleared(heard, level_of(metadata))
        for subscription in heard:
            outcome = subscription.offer(event)
            if outcome == QUEUED:
                delivered += 1
            elif outcome == FULL:
                full.append(subscription)
        stats.delivered += delivered
        if not route.subscriptions:
            self._unrouted(stats, event)
        return delivered, [i for i in full if not self._refuse(i, event)] if full else full

    def _refuse(self, inbox: Inbox, event: Event) -> bool:
        if inbox.lagging:
            inbox.give_up(event, "lagging")
        return inbox.lagging

    def _unrouted(self, stats: TopicStats, event: Event) -> None:
        stats.unrouted += 1
        if stats.unrouted == 1 and not event.topic.startswith(OWN_TOPICS):
            logger.warning("nobody subscribes to %s: its events are lost", event.topic)

    async def _wait(self, route: Route, event: Event, full: list[Inbox]) -> int:
        pending = Pending(event, full)
        for inbox in full:
            inbox.wait_for_room(pending)
        timer = asyncio.get_running_loop().call_later(self._wait_s, pending.finish)
        reason = "publisher_cancelled"
        try:
            await pending.future
            reason = "publish_wait"
        finally:
            timer.cancel()
            pending.over = True
            route.stats.delivered += pending.delivered
            for inbox in pending.waiting:
                if reason == "publish_wait":
                    inbox.lag()
                inbox.give_up(event, reason)
        return pending.delivered

    def _route(self, topic: str) -> Route:
        self._check_open()
        return self._table.find(topic)

    def _check_open(self) -> None:
        if self.closed:
            raise BusError("the bus is closed: the host has stopped")


def _cleared(heard: tuple[Subscription, ...], level: int) -> tuple[Subscription, ...]:
    """Those that may read a label of this level."""
    if level <= DEFAULT:
        return heard
    return tuple(item for item in heard if item.reads is None or item.reads(level))
