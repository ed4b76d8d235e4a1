"""A time limit for a block of a coroutine: what `asyncio.timeout` does, at a fifth of its cost."""

from __future__ import annotations

import asyncio
import threading
from math import inf
from types import TracebackType


class Deadline:
    """Cancels the task that is inside the `with` block when the time is up.

    The block then raises TimeoutError, or what `end` was given. A cancellation from elsewhere
    passes through.
    """

    __slots__ = ("_cancelling", "_clock", "_late", "_seconds", "_task", "_why", "at")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._late = False
        self._why: Exception | None = None
        self.at = inf
        """When the time is up, on the loop's clock."""

    def __enter__(self) -> Deadline:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._clock = _clock_of(task.get_loop())
        self._clock.watch(self, self._seconds)
        return self

    def restart(self, seconds: float) -> None:
        """The time is up so many seconds from now instead. Inside the block only."""
        self._clock.watch(self, seconds)

    def end(self, why: Exception) -> None:
        """End the block with this error, unless it has been ended already.

        Called from inside the block it comes at the next await, or at the block's end: a task
        that cancels itself while it runs would take the cancellation out of the block with it.
        """
        if self._late or self._why is not None:
            return
        self._why = why
        if asyncio.current_task(self._clock.loop) is self._task:
            self._clock.loop.call_soon(self._strike)
        else:
            self.expire()

    def _strike(self) -> None:
        if not self._late:
            self.expire()

    def expire(self) -> None:
        self._clock.running.discard(self)
        self._late = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._clock.running.discard(self)
        ours = self._late and self._task.uncancel() <= self._cancelling
        self._late = True  # whoever still holds it must not cancel what comes after the block
        if ours and isinstance(error, asyncio.CancelledError):
            raise self._why or TimeoutError() from error
        if error is None and self._why is not None:
            raise self._why


class _Clock:
    """The running deadlines of one loop, and one timer, set for the earliest of them.

    Most blocks end long before their time, so a timer of their own would be made for nothing.
    """

    __slots__ = ("_at", "_timer", "loop", "running")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.running: set[Deadline] = set()
        self._at = inf
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, deadline: Deadline, seconds: float) -> None:
        at = deadline.at = self.loop.time() + seconds
        self.running.add(deadline)
        if at < self._at:
            self._set(at)

    def _set(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._at, self._timer = at, self.loop.call_at(at, self._ring)

    def _ring(self) -> None:
        self._at, self._timer = inf, None
        now = self.loop.time()
        for deadline in [deadline for deadline in self.running if deadline.at <= now]:
            deadline.expire()
        if self.running:
            self._set(min(deadline.at for deadline in self.running))


class _Here(threading.local):
    clock: _Clock | None = None


_here = _Here()


def _clock_of(loop: asyncio.AbstractEventLoop) -> _Clock:
    clock = _here.clock
    if clock is None or clock.loop is not loop:
        clock = _here.clock = _Clock(loop)
    return clock
