"""Sees events at the moment of publishing, in that order, whatever their priorities."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from loom_sdk.events import Event, QoS
from loom_sdk.topics import covers, matches

from .memory import MemoryBus


class Tap:
    """Calls `hear` for every event on topics that fit, once, until it is closed.

    Args:
        hear: runs inside publish: it may only note the event.
    """

    def __init__(
        self, bus: MemoryBus, patterns: Iterable[str], name: str, hear: Callable[[Event], None]
    ) -> None:
        self.patterns = narrowed(patterns)
        self._hear = hear
        self._subscriptions = [
            bus.subscribe(
                pattern,
                qos=QoS.REALTIME,
                filter=partial(self._pass, self.patterns[:number]),
                name=f"{name}:{pattern}",
            )
            for number, pattern in enumerate(self.patterns)
        ]

    def _pass(self, earlier: list[str], event: Event) -> bool:
        """The filter of a subscription that never queues anything."""
        if not any(matches(pattern, event.topic) for pattern in earlier):  # else it was heard there
            self._hear(event)
        return False

    def fits(self, topic: str) -> bool:
        return any(matches(pattern, topic) for pattern in self.patterns)

    def close(self) -> None:
        for subscription in self._subscriptions:
            subscription.close()
        self._subscriptions.clear()


def narrowed(patterns: Iterable[str]) -> list[str]:
    """Without those that another one covers."""
    found: list[str] = []
    for pattern in patterns:
        if not any(covers(other, pattern) for other in found):
            found = [other for other in found if not covers(pattern, other)] + [pattern]
    return found
