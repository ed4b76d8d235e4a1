"""What travels: a frozen `Event`, and how a subscription wants it (`QoS`)."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import IntEnum
from itertools import count

_ids = count()
_prefix = os.urandom(6).hex()


def new_id() -> str:
    """A process-unique id: a random prefix and a counter, 0.2 us instead of uuid4's 2 us."""
    return f"{_prefix}-{next(_ids):x}"


def fresh_id_prefix() -> None:
    """Draw the random part again: a snapshot or fork of this process would repeat ids."""
    global _prefix
    _prefix = os.urandom(6).hex()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class QoS(IntEnum):
    """How a subscription is served; the numbers are those of `QoSLevel` on the wire."""

    REALTIME = 0
    BATCHED = 1
    BACKGROUND = 2


@dataclass(frozen=True, slots=True, init=False)
class Event:
    """Something that happened. Immutable; the payload is never copied by the bus."""

    type: str
    payload: bytes = b""
    metadata: Mapping[str, str] = field(default_factory=dict)
    id: str = field(default_factory=new_id)
    timestamp_ms: int = field(default_factory=now_ms)
    """Unix time in milliseconds."""
    source: str = ""
    """Who published it. Set by the host for plugins."""
    confidence: float = 1.0
    tags: tuple[str, ...] = ()
    priority: int = 50
    """0 to 100, higher first."""
    topic: str = ""
    """Stamped by the bus."""
    traceparent: str = ""
    """W3C trace context, empty when untraced."""
    delivery_attempt: int = 1

    def __init__(
        self,
        type: str,
        payload: bytes = b"",
        metadata: Mapping[str, str] | None = None,
        id: str | None = None,
        timestamp_ms: int | None = None,
        source: str = "",
        confidence: float = 1.0,
        tags: tuple[str, ...] = (),
        priority: int = 50,
        topic: str = "",
        traceparent: str = "",
        delivery_attempt: int = 1,
    ) -> None:
        # By the slots' own setters: what `dataclass` writes for a frozen one takes twice as long.
        set_type(self, type)
        set_payload(self, payload)
        set_metadata(self, {} if metadata is None else metadata)
        set_id(self, new_id() if id is None else id)
        set_timestamp_ms(self, now_ms() if timestamp_ms is None else timestamp_ms)
        set_source(self, source)
        set_confidence(self, confidence)
        set_tags(self, tags)
        set_priority(self, priority)
        set_topic(self, topic)
        set_traceparent(self, traceparent)
        set_delivery_attempt(self, delivery_attempt)


(
    set_type, set_payload, set_metadata, set_id, set_timestamp_ms, set_source, set_confidence,
    set_tags, set_priority, set_topic, set_traceparent, set_delivery_attempt,
) = (Event.__dict__[slot.name].__set__ for slot in fields(Event))  # fmt: skip
"""Write into an event that nobody else has seen yet, such as one that its publisher just made."""

PRIORITY_MAX = 100
