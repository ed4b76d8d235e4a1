"""One replica of a remote plugin: kept connected, with its calls in flight and their ends."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import grpc

from loom_host.runtimes.base import NotReached, PluginSpec
from loom_sdk import Call, Event, Result
from loom_sdk.errors import LoomError, PluginCrashed, PluginUnhealthy

from .connect import Connector, Line
from .pending import LinkLost
from .resolve import Address
from .session import Session
from .translate import from_grpc

T = TypeVar("T")
log = logging.getLogger("loom.remote")

BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.1, 10.0
STEADY_S = 10.0
"""A Session that lasted so long ends the backoff."""
CANCEL_GRACE_S = 0.2
"""For a cancelled call to end before its caller is let go; a deadline's error is out in 250 ms."""
STUCK_S = 2.0
"""For work that was given up to end, over the network; then its Session is ended."""
LOST = (LinkLost, grpc.aio.AioRpcError, grpc.aio.BaseError)


class Ended(Exception):
    """Why the host ended a Session."""


def backoff_s(attempt: int) -> float:
    """Delay before attempt `attempt` (from 1): doubling, plus up to half of it at random."""
    delay = min(BACKOFF_FIRST_S * 2.0 ** min(attempt - 1, 16), BACKOFF_MOST_S)
    return delay * (1 + random.random() / 2)


class Replica:
    """One address, from `start` to `aclose`.

    Args:
        on_change: told after every change of `state`.
    """

    def __init__(
        self,
        address: Address,
        spec: PluginSpec,
        connector: Connector,
        on_change: Callable[[], None],
    ) -> None:
        self.address = address
        self.state = "connecting"
        """`connecting`, `ready`, `draining` (no new calls) or `closed`."""
        self.problem: LoomError | None = None
        """Why it is not ready; None before the first attempt has ended."""
        self.unwell = ""
        """What it last said of its health."""
        self.memory = 0
        """Bytes, as it last said."""
        self.outstanding = 0
        """Calls and events that it works on, those given up too."""
        self.line: Line | None = None
        self._spec, self._connector, self._on_change = spec, connector, on_change
        self._idle = asyncio.Event()
        self._idle.set()
        self._retiring = False
        self._winding: set[asyncio.Task[None]] = set()
        self._closings: set[asyncio.Task[None]] = set()
        self._life: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        return self.state == "ready"

    @property
    def up(self) -> bool:
        """Whether there is a Session."""
        return self.line is not None

    @property
    def over(self) -> bool:
        """Whether nothing of it is left to wait for."""
        return self._life is None or self._life.done()

    def start(self) -> None:
        self._life = asyncio.create_task(self._live())

    async def invoke(self, call: Call) -> Result:
        """As `PluginInstance.invoke`. Raises PluginCrashed when the replica is lost."""
        line = self._line()
        return await self._serve(line, call.id, line.session.invoke(call), call.remaining_ms)

    async def handle_event(self, event: Event) -> int:
        line = self._line()
        limit_ms = self._spec.quotas.deadline_ms
        return await self._serve(line, event.id, line.session.handle_event(event), limit_ms)

    def retire(self) -> None:
        """Give it nothing new; end the Session after what it works on, and do not come back."""
        self._retiring = True
        if self.line is None:
            if self._life is not None:
                self._life.cancel()
            self._become("closed")
        elif self.ready:
            self._become("draining")
            self._later(self._end_when_idle(self.line.session, "its name has it no more"))

    async def aclose(self, grace_s: float) -> None:
        """Shutdown within `grace_s` seconds, then the end. Idempotent."""
        self._retiring = True
        if self.line is not None and grace_s > 0:
            with suppress(*LOST, TimeoutError):
                async with asyncio.timeout(0.75 * grace_s):
                    await self.line.session.shutdown(int(750 * grace_s))
        tasks = [task for task in (self._life, *self._winding) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*self._closings)
        self.state = "closed"

    # -- life

    async def _live(self) -> None:
        attempt = 0
        while not self._retiring:
            began = time.monotonic()
            try:
                line = await self._connector.open(self.address)
            except LoomError as error:
                self.problem = error
                self._become("connecting")
            else:
                reason = await self._watch(line)
                self.problem = PluginUnhealthy(
                    f"{self._spec.id} at {self.address}: {reason}", plugin_id=self._spec.id
                )
                log.warning("%s", self.problem.message)
                self._become("closed" if self._retiring else "connecting")
                attempt = 0 if time.monotonic() - began > STEADY_S else attempt
            attempt += 1
            if not self._retiring:
                await asyncio.sleep(backoff_s(attempt))

    async def _watch(self, line: Line) -> str:
        """Serve over this line until it ends: the reason."""
        self.line, self.problem, self.unwell = line, None, ""
        watchers = [
            asyncio.create_task(self._beat(line.session)),
            asyncio.create_task(self._heed(line)),
        ]
        log.info("%s at %s is ready", self._spec.id, self.address)
        self._become("ready")
        try:
            await asyncio.wait({line.session.lost})
            return self._why(line.session)
        finally:
            self.line = None
            closing = asyncio.create_task(_close(line, watchers))  # whoever cancels this one
            self._closings.add(closing)
            closing.add_done_callback(self._closings.discard)
            await asyncio.shield(closing)

    async def _beat(self, session: Session) -> None:
        """Half of the keepalive between two questions, the other half for an answer."""
        half_s = self._connector.endpoint.keepalive_s / 2
        try:
            while True:
                async with asyncio.timeout(half_s):
                    status = await session.health()
                self.memory = status.memory_bytes
                self.unwell = (
                    "" if status.healthy else status.message or "unhealthy, no reason given"
                )
                await asyncio.sleep(half_s)
        except TimeoutError:
            session.lose(Ended(f"it answered nothing for {half_s:g} s"))
        except LinkLost:
            return

    async def _heed(self, line: Line) -> None:
        """The other side shuts down: what it has is still served, then it is left."""
        await line.going_away()
        if not line.session.lost.done():
            self._become("draining")
            await self._end_when_idle(line.session, "it shuts down")

    async def _end_when_idle(self, session: Session, why: str) -> None:
        await self._idle.wait()
        session.lose(Ended(why))

    def _why(self, session: Session) -> str:
        error = session.lost.result() if session.lost.done() else None
        if error is None:
            return "it ended its Session"
        if isinstance(error, Ended):
            return str(error)
        return f"connection lost ({from_grpc(error, str(self.address)).message})"

    def _become(self, state: str) -> None:
        self.state = state
        self._on_change()

    # -- calls

    def _line(self) -> Line:
        if self.line is None:
            text = f"{self._spec.id} at {self.address} is not connected"
            raise NotReached(text, plugin_id=self._spec.id)
        return self.line

    async def _serve(
        self, line: Line, call_id: str, work: Coroutine[Any, Any, T], remaining_ms: int
    ) -> T:
        deadline = time.monotonic() + remaining_ms / 1000
        line.flights.enter(call_id)
        self.outstanding += 1
        self._idle.clear()
        try:
            return await work
        except asyncio.CancelledError:
            if deadline - time.monotonic() <= CANCEL_GRACE_S:
                with suppress(TimeoutError):
                    async with asyncio.timeout(CANCEL_GRACE_S):
                        await line.session.stopped(call_id)
            raise
        except LOST as error:
            raise PluginCrashed(
                f"{self._spec.id} at {self.address} was lost during the call: "
                f"{self._why(line.session)}",
                plugin_id=self._spec.id,
            ) from error
        finally:
            line.flights.leave(call_id)
            if line.session.works_on(call_id):
                left_s = max(deadline - time.monotonic(), 0.0)
                self._later(self._wind_down(line.session, call_id, left_s + STUCK_S))
            else:
                self._free()

    def _free(self) -> None:
        self.outstanding -= 1
        if not self.outstanding:
            self._idle.set()

    async def _wind_down(self, session: Session, call_id: str, grace_s: float) -> None:
        """After a cancellation: the replica must stop working on it, or loses its Session."""
        try:
            async with asyncio.timeout(grace_s):
                await session.stopped(call_id)
        except TimeoutError:
            session.lose(Ended(f"a cancelled call did not stop within {grace_s:.1f} s"))
        finally:
            self._free()

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._winding.add(task)
        task.add_done_callback(self._winding.discard)


async def _close(line: Line, watchers: list[asyncio.Task[None]]) -> None:
    for watcher in watchers:
        watcher.cancel()
    await asyncio.gather(*watchers, return_exceptions=True)
    await line.aclose()
