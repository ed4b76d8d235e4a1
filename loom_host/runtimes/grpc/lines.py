"""The output of a child, cut into lines."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice

MAX_LINE = 8192
"""Longer lines are split, in bytes."""
SLICE, PAUSE_S = 100, 0.002
"""So many lines are handed over in one go; a flood waits so long before its next ones, and the
child that writes it waits for them."""
DRAIN_MOST = 1024**2
"""Bytes that are read of what a dead child left: the most that a pipe holds, see pipe(7)."""


class Lines(asyncio.Protocol):
    """Cuts one pipe of a child into lines and hands them to `on_line`, without the newline.

    None is lost, and none keeps the event loop from its other work for long.
    """

    def __init__(self, on_line: Callable[[bytes], None]) -> None:
        self._on_line = on_line
        self._rest = b""
        self._ready: deque[bytes] = deque()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.ReadTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.ReadTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._ready.extend(pieces(line))
        if len(self._rest) > MAX_LINE:
            *whole, self._rest = pieces(self._rest)
            self._ready.extend(whole)
        self._hand_over()

    def connection_lost(self, error: Exception | None) -> None:
        self._end_line()

    def _end_line(self) -> None:
        rest, self._rest = self._rest, b""
        self._ready.extend(pieces(rest) if rest else ())
        self._hand_over()

    def drain(self) -> None:
        """Read what the dead child left in the pipe, so that messages can quote it."""
        pipe = self._transport.get_extra_info("pipe") if self._transport is not None else None
        if pipe is None or pipe.closed:
            return
        left = DRAIN_MOST  # somebody else may hold it open and go on writing
        with suppress(OSError):  # BlockingIOError: empty
            while left > 0 and (data := os.read(pipe.fileno(), 65536)):
                left -= len(data)
                self.data_received(data)
        self._end_line()

    def waiting(self, count: int) -> list[bytes]:
        """The last lines that were read but not yet handed over."""
        return list(islice(self._ready, max(len(self._ready) - count, 0), None))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _hand_over(self) -> None:
        if self._timer is None:
            self._slice()

    def _slice(self) -> None:
        self._timer = None
        for _ in range(min(SLICE, len(self._ready))):
            self._on_line(self._ready.popleft())
        if self._ready:
            self._timer = self._loop.call_later(PAUSE_S, self._slice)
        if self._transport is not None:
            (self._transport.pause_reading if self._ready else self._transport.resume_reading)()


def pieces(line: bytes) -> list[bytes]:
    """A line in parts of at most MAX_LINE bytes, cut between characters of UTF-8."""
    found, start = [], 0
    while len(line) - start > MAX_LINE:
        end = start + MAX_LINE
        for back in range(4):  # a character has at most three bytes that continue it
            if line[end - back] & 0xC0 != 0x80:
                end -= back
                break
        found.append(line[start:end])
        start = end
    found.append(line[start:])
    return found
