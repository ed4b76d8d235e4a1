"""The output of a child, cut into lines."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress

MAX_LINE = 8192
"""Longer lines are split, in bytes."""


class Lines(asyncio.Protocol):
    """Cuts one pipe of a child into lines and hands them to `on_line`, without the newline."""

    def __init__(self, on_line: Callable[[bytes], None]) -> None:
        self._on_line = on_line
        self._rest = b""
        self._transport: asyncio.ReadTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.ReadTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._emit(line)
        while len(self._rest) > MAX_LINE:
            self._on_line(self._rest[:MAX_LINE])
            self._rest = self._rest[MAX_LINE:]

    def connection_lost(self, error: Exception | None) -> None:
        rest, self._rest = self._rest, b""
        self._emit(rest)

    def drain(self) -> None:
        """Read what the dead child left in the pipe, so that messages can quote it."""
        pipe = self._transport.get_extra_info("pipe") if self._transport is not None else None
        if pipe is None or pipe.closed:
            return
        with suppress(OSError):  # BlockingIOError: empty, and somebody else holds it open
            while data := os.read(pipe.fileno(), 65536):
                self.data_received(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _emit(self, line: bytes) -> None:
        for start in range(0, len(line), MAX_LINE):
            self._on_line(line[start : start + MAX_LINE])
