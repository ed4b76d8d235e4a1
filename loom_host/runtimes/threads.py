"""Daemon threads that work for the loop, one job at a time each."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any

from loom_sdk.errors import ActionFailed

at_work: contextvars.ContextVar[Job | None] = contextvars.ContextVar("at_work", default=None)
"""The job of this thread, and of what it started."""


class Job:
    """One piece of work in a worker's thread; made and awaited on the loop."""

    __slots__ = ("_context", "_loop", "_returned", "_waiter", "_work", "future")

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work, self._loop = work, asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._context.run(at_work.set, self)
        self._returned = False
        self._waiter: asyncio.Future[None] | None = None
        self.future: asyncio.Future[Any] = self._loop.create_future()
        """What it gives or raises; cancelling it does not end the work."""

    def run(self) -> None:
        """In the thread."""
        answer: Any = None
        failed: BaseException | None = None
        try:
            answer = self._context.run(self._work)
        except BaseException as error:
            failed = error
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._settle, answer, failed)

    def _settle(self, answer: Any, failed: BaseException | None) -> None:
        self._returned = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self.future.done():
            return
        if failed is None:
            self.future.set_result(answer)
            return
        if not isinstance(failed, Exception):  # such as sys.exit: it would end the host's loop
            failed = ActionFailed(f"the plugin raised {failed!r}")
        self.future.set_exception(failed)
        self.future.exception()  # an abandoned call's error is nobody's to fetch

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.future.cancelled()

    @property
    def returned(self) -> bool:
        """Whether the thread has come back from it."""
        return self._returned

    async def wait(self, timeout_s: float) -> None:
        """Wait until the thread has come back, no longer than that."""
        if not self._returned:
            self._waiter = self._loop.create_future()
            await asyncio.wait({self._waiter}, timeout=timeout_s)


class Worker:
    """One daemon thread that runs jobs for the loop."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
            del job

    def submit(self, work: Callable[[], Any]) -> Job:
        job = Job(work)
        self._jobs.put(job)
        return job

    def stop(self) -> None:
        """End the thread after the jobs it has."""
        self._jobs.put(None)

    def alive(self) -> bool:
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread of a stopped worker whose last job is done: microseconds."""
        self._thread.join(timeout_s)
