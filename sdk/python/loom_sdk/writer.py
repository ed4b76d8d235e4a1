"""The one writer of a stream: it begins in the very step in which something is put to be written.

A task would first be woken by the loop, on both sides of every call; a coroutine that is stepped
by hand is not. In a crowd it waits one turn of the loop, so that all of it goes in one message.
`Future._asyncio_future_blocking` is asyncio's protocol between futures and tasks (checked with
Python 3.11 to 3.14; a future without it is waited for just the same).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from .outbox import Outbox


class Writer:
    """Writes what `outbox` gives, one message at a time, until it fails or is closed.

    Args:
        write: writes one message. Its failure ends the writer; the reader of the stream tells.
        crowded: whether more is about to be put, which had better travel in the same message.
    """

    def __init__(
        self,
        outbox: Outbox,
        write: Callable[[bytes], Coroutine[Any, Any, None]],
        crowded: Callable[[], bool],
    ) -> None:
        self._outbox, self._write, self._crowded = outbox, write, crowded
        self._loop = asyncio.get_running_loop()
        self._work: Coroutine[Any, Any, None] | None = None
        self._kicking = self._soon = self._closed = False
        outbox.on_ready = self._on_ready
        self.kick()

    def kick(self) -> None:
        """Begin with what is there, unless a write is under way."""
        self._soon = False
        if self._kicking:
            return
        self._kicking = True
        while self._work is None and not self._closed:
            message = self._outbox.take()
            if not message:
                self._outbox.all_written()
                break
            self._work = self._write(message)
            self._step()
        self._kicking = False

    def aclose(self) -> None:
        """Write nothing more; what is under way ends with the stream."""
        self._closed = True
        self._outbox.close()

    def _on_ready(self) -> None:
        if self._work is not None or self._kicking or self._soon:
            return
        if self._crowded():
            self._soon = True
            self._loop.call_soon(self.kick)
        else:
            self.kick()

    def _step(self) -> None:
        assert self._work is not None
        try:
            future = self._work.send(None)
        except StopIteration:
            self._work = None
        except (Exception, asyncio.CancelledError):
            self._work = None
            self.aclose()
        else:
            self._wait_for(future)

    def _wait_for(self, future: Any) -> None:
        if future is None:  # it only let others go first
            self._loop.call_soon(self._resume, None)
            return
        future._asyncio_future_blocking = False
        future.add_done_callback(self._resume)

    def _resume(self, _: Any) -> None:
        self._step()
        self.kick()
