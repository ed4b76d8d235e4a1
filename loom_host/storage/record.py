"""Records of sessions: files of JSON lines that can be read while they are written.

    {"loom": "events", "version": 1, "started_ms": 1763930000000, "topics": ["transcript", "vad.>"]}
    {"after_ms": 12.5, "event": {"type": ..., "topic": ..., "metadata": {...}, "payload": BASE64}}

`after_ms` counts from the beginning of the record; of an event only what differs from its default
is written. Lines end with a newline, so the rest of one that was cut off is known for what it is.
Readers pass over keys that they do not know.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from loom_sdk.errors import StorageError
from loom_sdk.events import Event

from .event_codec import event_from, event_header

VERSION = 1


@dataclass(frozen=True, slots=True)
class Recorded:
    """One event of a record."""

    after_ms: float
    """Since the record began."""
    event: Event


@dataclass(slots=True)
class Record:
    """What a file holds."""

    started_ms: int
    """Unix time in milliseconds."""
    topics: tuple[str, ...]
    """Patterns of what was recorded."""
    events: list[Recorded]
    cut_off: bool = False
    """Whether the last line is not whole and was left out."""


def plain_event(event: Event) -> dict[str, Any]:
    """As JSON, the payload in base64."""
    return event_header(event) | {"payload": base64.b64encode(event.payload).decode()}


def event_of(plain: Mapping[str, Any]) -> Event:
    """Raises StorageError where it is no event."""
    try:
        payload = base64.b64decode(plain.get("payload", ""), validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise StorageError(f"a payload is no base64: {error}") from error
    return event_from(plain, payload)


def first_line(started_ms: int, topics: Iterable[str]) -> str:
    head = {"loom": "events", "version": VERSION, "started_ms": started_ms, "topics": [*topics]}
    return json.dumps(head) + "\n"


def event_line(after_ms: float, plain: Mapping[str, Any]) -> str:
    """A line of an event as `plain_event` gives it."""
    return json.dumps({"after_ms": round(after_ms, 3), "event": plain}) + "\n"


def read_record(file: IO[bytes], name: str) -> Record:
    """Read all of it; a last line that was cut off is left out.

    Raises:
        StorageError: it is no record, or a line of it is damaged; tells which.
    """
    lines = _lines(file)
    head, whole = next(lines, (b"", False))
    record = _begun(head, name)
    for number, (line, whole) in enumerate(lines, 2):
        if not whole:
            record.cut_off = True
            break
        try:
            row = json.loads(line)
            record.events.append(Recorded(float(row["after_ms"]), event_of(row["event"])))
        except (ValueError, KeyError, TypeError, AttributeError, StorageError) as error:
            raise StorageError(f"{name} line {number} is damaged: {error}") from error
    return record


def _lines(file: IO[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Lines, each with whether it is whole."""
    for line in file:
        yield line, line.endswith(b"\n")


def _begun(line: bytes, name: str) -> Record:
    try:
        head = json.loads(line)
        if head["loom"] != "events":
            raise ValueError("it is something else")
        if head["version"] != VERSION:
            raise StorageError(
                f"{name} is a record of version {head['version']}, this host reads {VERSION}: "
                "upgrade loom-host"
            )
        return Record(int(head["started_ms"]), tuple(map(str, head["topics"])), [])
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{name} is no record of events: {error}; `loom events record FILE` makes one"
        ) from error
