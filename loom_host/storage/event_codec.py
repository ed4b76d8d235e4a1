"""An `Event` as plain data and as bytes; whatever fields it has are kept, those to come as well.

As bytes (values of the event log): length of the header in 4 bytes, big endian; the header, JSON
without the payload; the payload as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from loom_sdk.errors import StorageError
from loom_sdk.events import Event

_PLAIN = Event("", id="", timestamp_ms=0)
_DEFAULTS = {item.name: getattr(_PLAIN, item.name) for item in fields(Event)}
_NAMES = tuple(name for name in _DEFAULTS if name != "payload")
_LENGTH = 4


def event_header(event: Event) -> dict[str, Any]:
    """All but the payload; fields that have their default are left out."""
    header: dict[str, Any] = {}
    for name in _NAMES:
        value = getattr(event, name)
        if value != _DEFAULTS[name]:
            header[name] = _plain(value)
    return header


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    return value


def event_from(header: Mapping[str, Any], payload: bytes) -> Event:
    """The event again; fields that this version does not know are passed over.

    Raises:
        StorageError: it is no event.
    """
    try:
        known: dict[str, Any] = {"type": "", "id": "", "timestamp_ms": 0}
        known |= {name: _typed(name, value) for name, value in header.items() if name in _NAMES}
        return Event(payload=payload, **known)
    except (TypeError, ValueError, AttributeError) as error:
        raise StorageError(f"what was stored is no event: {error}") from error


def _typed(name: str, value: Any) -> Any:
    """JSON has lists where an event has tuples and sets."""
    kind = type(_DEFAULTS[name])
    if isinstance(value, bool) is not issubclass(kind, bool):
        raise TypeError(f"{name} is {value!r}")
    if issubclass(kind, Mapping):
        return {str(key): str(item) for key, item in value.items()}
    if isinstance(value, str) is not issubclass(kind, str):
        raise TypeError(f"{name} is {value!r}")
    return kind(value)


def pack_event(event: Event) -> bytes:
    header = json.dumps(event_header(event), separators=(",", ":")).encode()
    return len(header).to_bytes(_LENGTH, "big") + header + event.payload


def unpack_event(data: bytes) -> Event:
    """Raises StorageError where the bytes are no event."""
    end = _LENGTH + int.from_bytes(data[:_LENGTH], "big")
    try:
        header = json.loads(data[_LENGTH:end])
    except ValueError as error:
        raise StorageError(f"what was stored is no event: {error}") from error
    if not isinstance(header, dict):
        raise StorageError(f"what was stored is no event: {header!r}")
    return event_from(header, data[end:])
