"""`Port` for a child's threads: every call waits for the loop, and wakes when it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from .bridge import Bridge
from .errors import DeadlineExceeded
from .port import AsyncPort
from .running import current

T = TypeVar("T")


class BlockingPort(Bridge):
    """The port of the threads in which `def` methods run."""

    def __init__(self, port: AsyncPort, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(port, loop)
        self.log, self.span = port.log, port.span  # type: ignore[method-assign]

    def cancelled(self, call_id: str) -> bool:
        """Whether the host gave up on the call that this thread serves."""
        running = current.running
        return running is not None and running.id == call_id and running.cancelled

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        running = current.running
        if running is None:
            return future.result()
        running.waiting.add(future)
        if running.cancelled:
            future.cancel()
        try:
            return future.result()
        except CancelledError:
            raise DeadlineExceeded("the host cancelled this call") from None
        finally:
            running.waiting.discard(future)
