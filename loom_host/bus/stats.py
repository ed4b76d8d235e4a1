"""What the bus counts: by topic here, by subscription in the subscription itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

TOPICS_MAX = 10_000
"""Topics counted one by one; later ones share the entry `OTHER`."""
OTHER = "(other)"


@dataclass(slots=True)
class TopicStats:
    """Counts of one topic since the bus began."""

    published: int = 0
    delivered: int = 0
    """Times an event entered a subscription's queue."""
    unrouted: int = 0
    """Events that no subscription matched by topic."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason to count. `evicted` and `closed` had been delivered to a queue before."""

    def drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def as_dict(self) -> dict[str, Any]:
        return {
            "published": self.published,
            "delivered": self.delivered,
            "unrouted": self.unrouted,
            "dropped": dict(self.dropped),
        }


class TopicTable:
    """Topic to counts, bounded to TOPICS_MAX entries and one for the rest."""

    def __init__(self, limit: int = TOPICS_MAX) -> None:
        self._limit = limit
        self._topics: dict[str, TopicStats] = {}

    def of(self, topic: str) -> TopicStats:
        """The counts of a topic, made when first asked for."""
        found = self._topics.get(topic)
        if found is None:
            if len(self._topics) >= self._limit:
                topic = OTHER
            found = self._topics.setdefault(topic, TopicStats())
        return found

    def as_dict(self) -> dict[str, dict[str, Any]]:
        return {topic: stats.as_dict() for topic, stats in self._topics.items()}


def state_of(depth: int, capacity: int, lagging: bool) -> str:
    """`lagging`, `full`, `pressured` (from 80% of the capacity) or `normal`."""
    if lagging:
        return "lagging"
    if depth >= capacity:
        return "full"
    return "pressured" if depth * 5 >= capacity * 4 else "normal"
