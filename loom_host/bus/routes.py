"""Who hears which topic: subscriptions by pattern, and what was found for topics in use."""

from __future__ import annotations

from loom_sdk.topics import check_topic, matches

from .stats import TopicStats, TopicTable
from .subscription import Subscription

ROUTES_MAX = 10_000
"""Topics whose subscriptions are remembered."""


class Route:
    """Who hears a topic, and the topic's counts."""

    __slots__ = ("stats", "subscriptions")

    def __init__(self, subscriptions: tuple[Subscription, ...], stats: TopicStats) -> None:
        self.subscriptions = subscriptions
        self.stats = stats


class RouteTable:
    """Every open subscription, numbered as it came, and the routes made of them."""

    def __init__(self, topics: TopicTable) -> None:
        self.known: dict[str, Route] = {}
        """Topic to its route, until a subscription that matches comes or goes."""
        self._topics = topics
        self._exact: dict[str, dict[Subscription, int]] = {}
        self._wild: dict[Subscription, int] = {}
        self._made = 0

    def add(self, subscription: Subscription) -> None:
        self._made += 1
        pattern = subscription.pattern
        group = self._wild if _is_wild(pattern) else self._exact.setdefault(pattern, {})
        group[subscription] = self._made
        self._forget(pattern)

    def remove(self, subscription: Subscription) -> None:
        pattern = subscription.pattern
        if _is_wild(pattern):
            self._wild.pop(subscription, None)
        elif exact := self._exact.get(pattern):
            exact.pop(subscription, None)
            if not exact:
                del self._exact[pattern]
        self._forget(pattern)

    def subscriptions(self) -> list[Subscription]:
        """All that are open, oldest first."""
        found = dict(self._wild)
        for exact in self._exact.values():
            found.update(exact)
        return sorted(found, key=found.__getitem__)

    def find(self, topic: str) -> Route:
        """The route of a topic, from now on in `known`. Raises BusError for a malformed topic."""
        check_topic(topic)
        found = dict(self._exact.get(topic, ()))
        found.update((s, n) for s, n in self._wild.items() if matches(s.pattern, topic))
        if len(self.known) >= ROUTES_MAX:
            self.known.clear()
        subscriptions = tuple(sorted(found, key=found.__getitem__))
        route = self.known[topic] = Route(subscriptions, self._topics.of(topic))
        return route

    def _forget(self, pattern: str) -> None:
        if _is_wild(pattern):
            self.known.clear()
        else:
            self.known.pop(pattern, None)


def _is_wild(pattern: str) -> bool:
    return "*" in pattern or ">" in pattern
