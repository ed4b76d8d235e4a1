"""Frames of a Session as both sides read them: batches, chunks and credit; all of it pure.

What a frame belongs to is its *key*: the id of a call (text), the number of a host call (above 0),
of an event (below 0), or 0 for what belongs to none. The rules are in `plugin.proto`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ._proto import plugin_pb2 as pb

MAX_MESSAGE = 65_536
"""Bytes of one message of the stream, with all frames in its batch."""
CHUNK = MAX_MESSAGE - 512
"""Bytes of data in a chunk; the rest is for its id."""
WINDOW = 32
"""Counted frames that may be sent beyond what the receiver has taken."""
CREDIT_EVERY = WINDOW // 2
MAX_ASKS = 64
"""Host calls that may be unanswered."""

_BATCH_TAG = bytes([15 << 3 | 2])
BATCH_OVERHEAD = 4
"""Tag and length of a frame in a batch."""

Key = str | int


def key_of(message: Any) -> Key:
    """The key of a chunk, credit or cancel frame."""
    return str(message.call_id) or int(message.seq) or -int(message.event)


def address(key: Key) -> dict[str, Any]:
    """The reverse of `key_of`, as fields."""
    if isinstance(key, str):
        return {"call_id": key}
    return {"seq": key} if key > 0 else {"event": -key}


def owner(frame: Any) -> Key:
    """The key of what a frame says that it belongs to."""
    kind = frame.WhichOneof("frame")
    inner = getattr(frame, kind) if kind else None
    if isinstance(inner, pb.ActionCall):
        return str(inner.id)
    if isinstance(inner, pb.ActionResult):
        return str(inner.call_id)
    if isinstance(inner, pb.HostCall | pb.HostReply):
        return int(inner.seq)
    if isinstance(inner, pb.EventFrame | pb.AckFrame):
        return -int(inner.seq)
    return key_of(inner) if isinstance(inner, pb.ChunkFrame) else 0


def join(frames: list[bytes]) -> bytes:
    """One message out of serialized frames."""
    first, *more = frames
    parts = [first]
    for frame in more:
        parts += (_BATCH_TAG, _varint(len(frame)), frame)
    return b"".join(parts)


def split(kind: Any, message: bytes) -> Iterator[Any]:
    """The frames of a message. Raises protobuf's DecodeError."""
    frame = kind.FromString(message)
    yield frame
    yield from frame.batch


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


@dataclass(slots=True)
class Window:
    """The receiver's side of the credit of one key."""

    open: int = WINDOW
    taken: int = 0

    def received(self) -> bool:
        """False when the sender had no credit for it."""
        self.open -= 1
        return self.open >= 0

    def take(self) -> int:
        """Count a frame as taken; how much credit is to be granted now."""
        self.taken += 1
        if self.taken < CREDIT_EVERY:
            return 0
        credit, self.taken = self.taken, 0
        self.open += credit
        return credit


@dataclass(slots=True)
class _Parts:
    data: bytearray = field(default_factory=bytearray)
    window: Window = field(default_factory=Window)


class Assembly:
    """Joins chunks. `held` is how many bytes wait for their rest."""

    def __init__(self, grant: Callable[[Key, int], None]) -> None:
        self._grant = grant
        self._parts: dict[Key, _Parts] = {}
        self.held = 0

    def add(self, chunk: Any, key: Key) -> bytes | None:
        """The whole frame with its last chunk, else None.

        Grants credit for all chunks but the last, which counts as taken when the frame is.
        """
        parts = self._parts.get(key)
        if parts is None:
            parts = self._parts[key] = _Parts()
        parts.data += chunk.data
        self.held += len(chunk.data)
        credit = parts.window.taken if chunk.last else parts.window.take()
        if credit and key != 0:  # those of Init are not counted
            self._grant(key, credit)
        if not chunk.last:
            return None
        self.drop(key)
        return bytes(parts.data)

    def size(self, key: Key) -> int:
        parts = self._parts.get(key)
        return len(parts.data) if parts is not None else 0

    def drop(self, key: Key) -> bool:
        """Whether there was something."""
        parts = self._parts.pop(key, None)
        if parts is None:
            return False
        self.held -= len(parts.data)
        return True
