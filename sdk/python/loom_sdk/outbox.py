"""What one side of a Session has yet to write: control first, then everybody in turn."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ._proto import plugin_pb2 as pb
from .frames import BATCH_OVERHEAD, CHUNK, MAX_MESSAGE, WINDOW, Key, address, join

LANE_FRAMES = 4
"""Frames of one call that wait before its sender must wait."""


@dataclass(slots=True, eq=False)
class _Lane:
    """Frames of one key, in order."""

    key: Key
    frames: deque[tuple[bytes, bool]] = field(default_factory=deque)
    """Each with whether it is counted."""
    offset: int = 0
    """How much of the first frame is sent in chunks."""
    credit: int = WINDOW
    in_turn: bool = False
    untouched: bool = True
    """Nothing of it was sent yet."""
    kept: bool = False
    """It stays when it is empty, for its credit."""
    waiters: list[asyncio.Future[None]] = field(default_factory=list)

    def may_send(self) -> bool:
        frame, counted = self.frames[0]
        free = not (counted or len(frame) > MAX_MESSAGE) or self.key == 0  # Init
        return free or self.credit > 0

    def wake(self) -> None:
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class Outbox:
    """Has one writer, which is told by `on_ready` and takes.

    Args:
        frame: `pb.HostFrame` or `pb.PluginFrame`.
    """

    def __init__(self, frame: Any) -> None:
        self._frame = frame
        self._control: deque[bytes] = deque()
        self._lanes: dict[Key, _Lane] = {}
        self._turn: deque[_Lane] = deque()
        self.on_ready: Callable[[], None] | None = None
        """Told when there is something to take; set by the one writer."""
        self._idle: list[asyncio.Future[None]] = []
        self._closed = False

    def control(self, frame: bytes) -> None:
        """A frame of at most 64 KiB that overtakes data."""
        self._control.append(frame)
        self._wake()

    def grant(self, key: Key, frames: int) -> None:
        """Tell the other side that it may send `frames` more."""
        credit = pb.CreditFrame(frames=frames, **address(key))
        self.control(self._frame(credit=credit).SerializeToString())

    def put(self, key: Key, frame: bytes, *, counted: bool = False, last: bool = False) -> None:
        """A data frame of any size; one that is counted leaves the lane open until the last."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(key)
        lane.kept = (lane.kept or counted) and not last
        lane.frames.append((frame, counted))
        self._enter(lane)

    def end(self, key: Key, frame: bytes) -> None:
        """The last data frame of a key."""
        self.put(key, frame, last=True)

    async def room(self, key: Key) -> None:
        """Wait until a lane has room for one more frame, or is dropped."""
        while (lane := self._lanes.get(key)) is not None and len(lane.frames) >= LANE_FRAMES:
            waiter = asyncio.get_running_loop().create_future()
            lane.waiters.append(waiter)
            await waiter

    def waiting(self, key: Key) -> int:
        lane = self._lanes.get(key)
        return len(lane.frames) if lane is not None else 0

    def __len__(self) -> int:
        """How many keys and control frames wait."""
        return len(self._lanes) + len(self._control)

    def credit(self, key: Key, frames: int) -> None:
        lane = self._lanes.get(key)
        if lane is not None:
            lane.credit = min(WINDOW, lane.credit + frames)
            self._enter(lane)

    def drop(self, key: Key) -> bool:
        """Nobody waits for it any more. True when it waited here and nothing of it was sent."""
        lane = self._lanes.pop(key, None)
        if lane is None:
            return False
        unsent = bool(lane.frames) and lane.untouched
        lane.frames.clear()
        lane.wake()
        return unsent

    def take(self) -> bytes:
        """The next message; empty when there is nothing to send or no credit for it."""
        frames: list[bytes] = []
        room = MAX_MESSAGE
        while (frame := self._next(room)) is not None:
            frames.append(frame)
            room -= len(frame) + BATCH_OVERHEAD
        if len(frames) < 2:
            return frames[0] if frames else b""
        return join(frames)

    async def written(self) -> None:
        """Wait until the writer has written all that it may, or has ended."""
        if self._closed:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._idle.append(waiter)
        self._wake()
        await waiter

    def all_written(self) -> None:
        """The writer has nothing to do."""
        for waiter in self._idle:
            if not waiter.done():
                waiter.set_result(None)
        self._idle.clear()

    def close(self) -> None:
        """The writer has ended."""
        self._closed, self.on_ready = True, None
        self.all_written()

    def _wake(self) -> None:
        if self.on_ready is not None:
            self.on_ready()

    def _enter(self, lane: _Lane) -> None:
        if not lane.in_turn and lane.frames and lane.may_send():
            lane.in_turn = True
            self._turn.append(lane)
            self._wake()

    def _next(self, room: int) -> bytes | None:
        """The next frame, of at most `room` bytes."""
        if self._control:
            return self._control.popleft() if len(self._control[0]) <= room else None
        while self._turn and not self._turn[0].frames:  # dropped
            self._turn.popleft().in_turn = False
        if not self._turn or len(self._turn[0].frames[0][0]) > room < MAX_MESSAGE:
            return None
        lane = self._turn.popleft()
        lane.in_turn = False
        frame = self._cut(lane)
        lane.wake()
        self._enter(lane)
        if not lane.frames and not lane.kept:
            self._lanes.pop(lane.key, None)
        return frame

    def _cut(self, lane: _Lane) -> bytes:
        """The first frame of a lane, or the next chunk of it."""
        frame, counted = lane.frames[0]
        lane.untouched = False
        if len(frame) <= MAX_MESSAGE:
            lane.frames.popleft()
            lane.credit -= counted
            return frame
        lane.credit -= 1
        end = lane.offset + CHUNK
        data, last = frame[lane.offset : end], end >= len(frame)
        lane.offset = end
        if last:
            lane.frames.popleft()
            lane.offset = 0
        chunk = pb.ChunkFrame(data=data, last=last, **address(lane.key))
        whole: bytes = self._frame(chunk=chunk).SerializeToString()
        return whole
