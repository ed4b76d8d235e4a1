"""Keys of the event log: ordered by topic, then by the time of logging, then by number.

    log/event/TOPIC\\0 + milliseconds (8 bytes, big endian) + number (8 bytes, big endian)
    log/topic/TOPIC    events and bytes of that topic (8 bytes each)
    log/last           the last position: milliseconds and number

In a topic `%` and the NUL byte are percent-encoded, so that NUL ends it and no topic's range
reaches into that of a longer one. A *position* is the last 16 bytes of a key: of two events the one
that was logged first has the smaller one, whatever their topics.
"""

from __future__ import annotations

EVENTS, TOPICS, LAST, ALL = b"log/event/", b"log/topic/", b"log/last", b"log/"
POSITION_BYTES = 16
TIME_MAX = 2**64 - 1


def position(time_ms: int, number: int) -> bytes:
    return time_ms.to_bytes(8, "big") + number.to_bytes(8, "big")


def position_parts(at: bytes) -> tuple[int, int]:
    """Milliseconds and number."""
    return int.from_bytes(at[:8], "big"), int.from_bytes(at[8:], "big")


def topic_prefix(topic: str) -> bytes:
    return EVENTS + _escaped(topic) + b"\0"


def event_key(topic: str, at: bytes) -> bytes:
    return topic_prefix(topic) + at


def key_parts(key: bytes) -> tuple[str, bytes]:
    """Topic and position of an event's key."""
    return _plain(key[len(EVENTS) : -POSITION_BYTES - 1]), key[-POSITION_BYTES:]


def topic_key(topic: str) -> bytes:
    return TOPICS + _escaped(topic)


def topic_of(key: bytes) -> str:
    return _plain(key[len(TOPICS) :])


def _escaped(topic: str) -> bytes:
    return topic.replace("%", "%25").replace("\0", "%00").encode()


def _plain(topic: bytes) -> str:
    return topic.decode().replace("%00", "\0").replace("%25", "%")
