"""A time limit for a block of a coroutine: what `asyncio.timeout` does, at half its cost."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadline:
    """Cancels the task that is inside the `with` block when the time is up.

    The block then raises TimeoutError, or what `end` was given. A cancellation from elsewhere
    passes through.
    """

    __slots__ = ("_cancelling", "_handle", "_late", "_loop", "_seconds", "_task", "_why")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._late = False
        self._why: Exception | None = None

    def __enter__(self) -> Deadline:
        loop = self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._handle = loop.call_later(self._seconds, self._expire)
        return self

    def restart(self, seconds: float) -> None:
        """The time is up so many seconds from now instead. Inside the block only."""
        self._handle.cancel()
        self._handle = self._loop.call_later(seconds, self._expire)

    def end(self, why: Exception) -> None:
        """End the block with this error now, unless it has been ended already."""
        if not self._late:
            self._why = why
            self._handle.cancel()
            self._expire()

    def _expire(self) -> None:
        self._late = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._handle.cancel()
        ours = self._late and self._task.uncancel() <= self._cancelling
        self._late = True  # whoever still holds it must not cancel what comes after the block
        if ours and isinstance(error, asyncio.CancelledError):
            raise self._why or TimeoutError() from error
