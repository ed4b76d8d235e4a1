"""Isolation `thread`: a guest in a thread of the host, and how that thread waits for the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from loom_host.quotas import HELD_BY_HOST
from loom_host.runtimes.base import HostServices
from loom_host.runtimes.threads import Job, Worker
from loom_sdk.bridge import Bridge
from loom_sdk.errors import PluginLoadError
from loom_sdk.port import SpanRecord

from .cell import STOP_GRACE_S, Tally
from .contract import Loaded
from .engine import Engine
from .keeper import Keeper
from .preopens import Preopen
from .ticket import TELLS_AHEAD, Stopped, Ticket
from .traps import Limits

T = TypeVar("T")


class GuestPort(Bridge):
    """The host API as a guest's thread sees it: every wait ends with the call's ticket."""

    def __init__(self, services: HostServices, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(services, loop)
        self.ticket = Ticket("")
        self._told = 0

    def log(self, level: str, message: str, attributes: Mapping[str, str], call_id: str) -> None:
        self._pace()
        super().log(level, message, attributes, call_id)

    def span(self, span: SpanRecord, call_id: str) -> None:
        self._pace()
        super().span(span, call_id)

    def _pace(self) -> None:
        """Let the loop catch up, now and then, with what is not waited for."""
        self._told += 1
        if self._told % TELLS_AHEAD == 0:
            self._wait(asyncio.sleep(0))

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
            ticket.stop("deadline")  # whole milliseconds were waited: it may be a part of one early
            raise Stopped(ticket.check()) from error
        finally:
            ticket.waiting(None)


_ENFORCED = ("deadline_ms", "memory", "tables", "cpu", "fuel", "processes", "open_files")


def _enforcement(folders: bool) -> dict[str, str]:
    held = dict.fromkeys((*_ENFORCED, *HELD_BY_HOST), "enforced")
    if folders:
        held["open_files"] = "unenforced: files that it opens are the host's; use a process"
    return held


class ThreadCell:
    """The guest runs in a daemon thread of the host."""

    def __init__(
        self,
        name: str,
        limits: Limits,
        engine: Engine,
        load: Callable[[], Loaded],
        services: HostServices,
        preopens: tuple[Preopen, ...] = (),
    ) -> None:
        loop = asyncio.get_running_loop()
        self._preopens = preopens
        self._name, self._limits, self._engine, self._loaded = name, limits, engine, load
        self._new_port: Callable[[], GuestPort] = lambda: GuestPort(services, loop)
        self._worker = Worker(f"loom-{name}")
        self._keeper: Keeper | None = None
        self._tally = Tally()
        self.enforcement: Mapping[str, str] = _enforcement(bool(preopens))
        self.layers: Mapping[str, str] = {}

    @property
    def fit(self) -> bool:
        return self._keeper is not None and self._keeper.fit

    async def call(self, name: str, argument: Any, ticket: Ticket) -> Any:
        job = self._worker.submit(lambda: self._run(name, argument, ticket))
        try:
            return await job.future
        except asyncio.CancelledError:
            self._engine.stop(ticket, "cancelled")
            await self._let_go(job)
            raise

    def _run(self, name: str, argument: Any, ticket: Ticket) -> Any:
        """In the worker."""
        if self._keeper is None:
            self._load(ticket)
        keeper = self._keeper
        assert keeper is not None
        try:
            return keeper.run(name, argument, ticket)
        finally:
            self._tally.cpu_s += ticket.cpu_used_s()
            self._tally.fuel += ticket.fuel_used
            self._tally.starts, self._tally.peak = keeper.starts, keeper.peak

    def _load(self, ticket: Ticket) -> None:
        loaded = self._loaded()
        if ticket.reason:
            raise PluginLoadError(f"{self._name} was {ticket.reason} while it loaded")
        self._keeper = Keeper(self._engine, loaded, self._limits, self._new_port, self._preopens)
        ticket.restart()  # a first build may take longer than that

    async def _let_go(self, job: Job) -> None:
        """Wait for a stopped guest; abandon its thread when it does not come back."""
        try:
            await job.wait(STOP_GRACE_S)
        finally:
            if not job.returned:
                self._abandon()

    def _abandon(self) -> None:
        self._tally.abandoned += 1
        self._worker.stop()
        self._worker = Worker(f"loom-{self._name}")
        if self._keeper is not None:
            self._keeper = self._keeper.successor()

    def stop(self, ticket: Ticket, reason: str) -> None:
        self._engine.stop(ticket, reason)

    async def rest(self, ticket: Ticket) -> None:
        """Nothing: an idle thread costs less than its guest's state is worth."""

    def tally(self) -> Tally:
        self._tally.memory = 0 if self._keeper is None else self._keeper.memory_bytes()
        self._tally.peak = max(self._tally.peak, self._tally.memory)
        return self._tally

    async def aclose(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            await self._worker.submit(keeper.close).wait(STOP_GRACE_S)
        self._worker.stop()
        self._worker.join(0.05)
