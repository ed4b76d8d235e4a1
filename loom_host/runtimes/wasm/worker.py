"""The thread that a guest runs in, and how that thread waits for the loop."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from loom_host.runtimes.base import HostServices
from loom_sdk.bridge import Bridge

from .ticket import Stopped, Ticket

T = TypeVar("T")


class Worker:
    """One daemon thread that runs jobs for the loop."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(answer: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(answer)
            else:
                future.set_exception(error)
                future.exception()  # an abandoned call's error is nobody's to fetch

        def job() -> None:
            answer: Any = None
            failed: BaseException | None = None
            try:
                answer = work()
            except Exception as error:
                failed = error
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, answer, failed)

        self._jobs.put(job)
        return future

    def stop(self) -> None:
        """End the thread after the jobs it has."""
        self._jobs.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait for the thread of a stopped worker whose last job is done: microseconds."""
        self._thread.join(timeout_s)


class GuestPort(Bridge):
    """The host API as a guest's thread sees it: every wait ends with the call's ticket."""

    def __init__(self, services: HostServices, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(services, loop)
        self.ticket = Ticket("")

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        ticket = self.ticket
        ticket.waiting(future.cancel)
        try:
            return future.result(ticket.remaining_ms() / 1000)
        except CancelledError as error:
            raise Stopped(ticket.check()) from error
        except TimeoutError as error:
            if future.done() and not ticket.check():
                raise
            future.cancel()
            raise Stopped(ticket.check()) from error
        finally:
            ticket.waiting(None)
