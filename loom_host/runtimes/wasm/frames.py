"""What passes between the host and a worker process: length-prefixed frames of byte fields.

    size u32 | kind u8 | fields u8 | number u32 | length u32 of each field | the fields

`size` counts all that follows it; integers are little-endian. Whoever reads trusts nothing: a frame
over the limit, or whose lengths do not add up, is a FrameError, and the host then ends the worker.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

REQUEST, ANSWER, REFUSAL, STOP = 1, 2, 3, 4
"""Host to worker: run an export; the answer to an ASK, or its error; end the request."""
DONE, FAILED, ASK, TELL, CODE = 16, 17, 18, 19, 20
"""Worker to host: a request's end; a host import that is waited for, or not; compiled code."""

OUT_OF_MEMORY = 71
"""Exit code of a worker whose own memory is spent, beside the guest's."""
CHUNK = 1024**2
"""Longest piece of compiled code in a frame."""
OVERHEAD = 64 * 1024
"""What a frame may have beside its largest field."""
_HEAD = struct.Struct("<IBBI")
_PREFIX = struct.Struct("<I")
_AFTER_SIZE = _HEAD.size - _PREFIX.size


class FrameError(Exception):
    """The other side does not speak the protocol."""


class Frame(NamedTuple):
    """One message; `number` is that of the request or of the ASK."""

    kind: int
    number: int
    fields: list[bytes]


def pack(kind: int, number: int, fields: Sequence[bytes] = ()) -> bytes:
    """A frame as bytes. Raises struct.error beyond 255 fields or 4 GiB."""
    lengths = [len(field) for field in fields]
    size = _AFTER_SIZE + 4 * len(lengths) + sum(lengths)
    head = struct.pack(f"<IBBI{len(lengths)}I", size, kind, len(lengths), number, *lengths)
    return b"".join((head, *fields))


class Splitter:
    """Cuts a stream of bytes into frames.

    Args:
        limit: longest frame, in bytes after its size.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        self._data += data

    def __iter__(self) -> Iterator[Frame]:
        """The frames that are complete. Raises FrameError."""
        while (frame := self.next()) is not None:
            yield frame

    def next(self) -> Frame | None:
        """Raises FrameError."""
        if len(self._data) < _PREFIX.size:
            return None
        (size,) = _PREFIX.unpack_from(self._data)
        if not _AFTER_SIZE <= size <= self._limit:
            raise FrameError(f"a frame of {size} bytes, at most {self._limit} are allowed")
        end = _PREFIX.size + size
        if len(self._data) < end:
            return None
        frame = _parse(self._data, end)
        del self._data[:end]
        return frame


def _parse(data: bytearray, end: int) -> Frame:
    _, kind, count, number = _HEAD.unpack_from(data)
    at = _HEAD.size + 4 * count
    if at > end:
        raise FrameError("a frame that is shorter than its list of fields")
    fields = []
    with memoryview(data) as view:
        for length in struct.unpack_from(f"<{count}I", data, _HEAD.size):
            fields.append(bytes(view[at : at + length]))
            at += length
            if at > end:
                raise FrameError("a field that ends behind its frame")
    if at != end:
        raise FrameError("a frame that is longer than its fields")
    return Frame(kind, number, fields)
