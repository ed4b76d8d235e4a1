"""What becomes of an event that could not be delivered."""

from __future__ import annotations

from loom_sdk.events import Event

DEAD_LETTER = "loom.dead_letter"
"""Topic of what could not be delivered. It carries other topics' payloads: a sensitive grant."""


def letter_of(event: Event, reason: str, subscription: str, source: str) -> Event:
    """The dead letter that tells of `event`, with its payload, priority and trace."""
    return Event(
        type="dead_letter",
        payload=event.payload,
        # The original's metadata stays: it may carry a privacy label.
        metadata={
            **event.metadata,
            "reason": reason,
            "subscription": subscription,
            "original_topic": event.topic,
            "original_type": event.type,
            "event_id": event.id,
            "source": event.source,
        },
        source=source,
        tags=event.tags,
        priority=event.priority,
        topic=DEAD_LETTER,
        traceparent=event.traceparent,
    )
