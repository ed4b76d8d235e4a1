"""One non-blocking socket on the loop that carries frames; neither side can make the loop wait."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from .frames import Frame, FrameError, Splitter

_RECEIVE = 1 << 16
_FRAMES_A_TURN = 32
"""What the other side may make this one do in one turn of the loop."""


class FramePipe:
    """Reads and writes until `close`.

    Args:
        limit: longest frame that is read, in bytes.
        on_frame: takes every frame; may raise FrameError.
        on_end: told once, with the FrameError, or None when the other side hung up.
    """

    def __init__(
        self,
        sock: socket.socket,
        limit: int,
        on_frame: Callable[[Frame], None],
        on_end: Callable[[FrameError | None], None],
    ) -> None:
        sock.setblocking(False)
        self._socket, self._on_frame, self._on_end = sock, on_frame, on_end
        self._frames = Splitter(limit)
        self._unsent = bytearray()
        self._more: asyncio.Handle | None = None
        self._closed = self._over = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._read)

    def send(self, data: bytes) -> None:
        """Send now or as soon as the socket takes it; after the end nothing."""
        if self._over:
            return
        if not self._unsent:
            data = data[self._write(data) :]
            if not data or self._over:
                return
            self._loop.add_writer(self._socket, self._write_more)
        self._unsent += data

    def _write(self, data: bytes | bytearray) -> int:
        try:
            return self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self._end(None)
            return 0

    def _write_more(self) -> None:
        del self._unsent[: self._write(self._unsent)]
        if not self._unsent and not self._over:
            self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        try:
            part = self._socket.recv(_RECEIVE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            part = b""
        if part:
            self._frames.feed(part)
            self._take()
        else:
            self._end(None)

    def _take(self) -> None:
        """Work off what has come; the rest waits for the next turn, and reading with it."""
        try:
            for _ in range(_FRAMES_A_TURN):
                frame = None if self._over else self._frames.next()
                if frame is None:
                    return
                self._on_frame(frame)
        except FrameError as error:
            self._end(error)
            return
        self._loop.remove_reader(self._socket)
        self._more = self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        if not self._over:
            self._loop.add_reader(self._socket, self._read)
            self._take()

    def stop(self) -> None:
        """Neither read nor write any more."""
        if not self._over:
            self._over = True
            self._unsent.clear()
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            if self._more is not None:
                self._more.cancel()

    def _end(self, error: FrameError | None) -> None:
        if not self._over:
            self.stop()
            self._on_end(error)

    def close(self) -> None:
        self.stop()
        self._socket.close()
