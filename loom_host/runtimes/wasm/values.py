"""Component values in Python, as both marshallers give and take them.

A record is a dict by the WIT's field names, a list a list, binary `bytes`, an enum its name, flags
a tuple of names; what Python has no type for is below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MAX_BINARY = 128 * 1024**2 // 48
"""Longest `list<u8>`, 2.7 MB: wasmtime lifts each byte to a value of 48 bytes and refuses to copy
more than 128 MiB out of a guest in one call; inwards the same bound keeps the host's memory."""


class TooLarge(Exception):
    """A string or list is longer than the limit, seen before it was converted."""

    def __init__(self, size: int) -> None:
        super().__init__(f"{size} bytes")
        self.size = size


@dataclass(slots=True)
class Ok:
    """The good side of a WIT `result`."""

    value: Any = None


@dataclass(slots=True)
class Failed:
    """The error side of a WIT `result`."""

    value: Any = None


@dataclass(frozen=True, slots=True)
class Case:
    """A value of a variant."""

    name: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class Some:
    """A value of an option that is there."""

    value: Any


def bounded_binary(value: bytes) -> int:
    """Its size. Raises ValueError where it is too long to pass the border."""
    size = len(value)
    if size > MAX_BINARY:
        raise ValueError(f"{size} bytes of binary, at most {MAX_BINARY} pass at once")
    return size
