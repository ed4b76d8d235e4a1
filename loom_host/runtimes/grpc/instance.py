"""One running child as the host sees it: its calls in flight, its health and its end."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import grpc

from loom_host.runtimes.base import Declaration, NotReached, PluginSpec, Usage
from loom_sdk import Call, Event, Result
from loom_sdk.errors import (
    LoomError,
    PluginCrashed,
    PluginUnhealthy,
    QuotaExceeded,
)

from .enforcement import enforcement_of
from .flights import Flights
from .link import Link
from .pending import LinkLost
from .process import ChildProcess
from .sandbox import profile_of
from .translate import from_grpc

T = TypeVar("T")

CANCEL_GRACE_S = 0.2
"""For a cancelled call to end; with the kill after it, a deadline's error is out within 250 ms."""
KILL_NOTICE_S = 0.01
"""Within which a killed child is mostly gone; whose call was out of time waits no longer."""
HEALTH_TIMEOUT_S = 5.0
DEATH_NOTICE_S = 0.5
"""A lost connection mostly precedes the news of the process's end by a few milliseconds."""


class GrpcInstance:
    """A child process behind `PluginInstance`. Made by `GrpcRuntime.start`."""

    asleep = False

    def __init__(
        self,
        spec: PluginSpec,
        child: ChildProcess,
        channel: grpc.aio.Channel,
        flights: Flights,
        release: Callable[[], None],
    ) -> None:
        self.declaration = Declaration()
        self.layers: Mapping[str, str] = child.layers
        self.enforcement: Mapping[str, str] = enforcement_of(
            profile_of(spec),
            child.layers,
            network=child.shares_network,
            counts_processes=child.sandbox is not None and child.sandbox.counts_processes,
        )
        self.child, self.channel = child, channel
        self._spec, self._flights, self._release = spec, flights, release
        self._link: Link | None = None
        self._closing = False
        self._winding: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        child.ending.add_done_callback(self._on_ending)

    def connect(self, link: Link) -> None:
        """Take the link over which the child answered Init."""
        self._link = link

    def lost(self) -> None:
        """The child ended its Session: nothing can be asked of it any more."""
        if not self._closing:
            self._later(self._expect_end())

    async def _expect_end(self) -> None:
        await asyncio.wait({self.child.exited}, timeout=DEATH_NOTICE_S)
        self.child.kill("killed: it ended its Session with the host")

    async def wake(self) -> None:
        """A child that is connected is awake; one that has ended is started by the supervisor."""

    async def invoke(self, call: Call) -> Result:
        """As `PluginInstance.invoke`.

        Raises:
            QuotaExceeded: output_bytes, or memory when the child was killed for it.
            PluginCrashed: the child ended; the message quotes its last lines.
        """
        link = self._connected()
        return await self._serve(call.id, link.invoke(call), call.remaining_ms)

    async def handle_event(self, event: Event) -> int:
        link = self._connected()
        return await self._serve(event.id, link.handle_event(event), self._spec.quotas.deadline_ms)

    async def health(self) -> str:
        if self.child.ending.done():
            return self.child.ending.result()
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                status = await self._connected().health()
        except TimeoutError:
            return f"did not answer a health check within {HEALTH_TIMEOUT_S:g} s"
        except (LinkLost, grpc.aio.AioRpcError, grpc.aio.BaseError) as error:
            return from_grpc(error, self._spec.id).message
        except PluginUnhealthy as error:
            return error.message
        return "" if status.healthy else status.message or "unhealthy, no reason given"

    async def wait_exit(self) -> str:
        return await asyncio.shield(self._ended)

    async def aclose(self, grace_s: float) -> None:
        """Shutdown, then SIGTERM, then SIGKILL, all within `grace_s` seconds; idempotent."""
        self._closing = True
        try:
            if grace_s > 0 and not self.child.ending.done():
                await self._ask_to_stop(grace_s)
        finally:
            await asyncio.shield(self._finish())

    def usage(self) -> Usage:
        self.child.read_memory()
        child = self.child
        return Usage(child.memory, child.peak_memory, child.pid, {"cpu_s": child.cpu_s()})

    @property
    def winding(self) -> int:
        """Calls that were given up and that the child still works on."""
        return len(self._winding)

    async def _ask_to_stop(self, grace_s: float) -> None:
        """Three quarters of the time for Shutdown and the exit after it, the rest for SIGTERM."""
        began = time.monotonic()
        asked = 0.75 * grace_s
        lost = (LinkLost, grpc.aio.AioRpcError, grpc.aio.BaseError)
        with suppress(*lost, TimeoutError):
            async with asyncio.timeout(asked):
                if self._link is not None:
                    await self._link.shutdown(int(asked * 1000))
                await asyncio.shield(self.child.exited)
        if not self.child.exited.done():
            self.child.signal_group(signal.SIGTERM)
            with suppress(TimeoutError):
                async with asyncio.timeout(grace_s - (time.monotonic() - began)):
                    await asyncio.shield(self.child.exited)

    async def _finish(self) -> None:
        for task in tuple(self._winding):
            task.cancel()
        await asyncio.gather(*self._winding, return_exceptions=True)
        await self.child.aclose()
        if self._link is not None:
            await self._link.aclose()
        await self.channel.close(None)
        self._release()

    def _on_ending(self, ending: asyncio.Future[str]) -> None:
        if self._link is not None:
            self._link.lose()
        if not self._closing and not self._ended.done():
            self._ended.set_result(ending.result())

    def _connected(self) -> Link:
        if self._closing or self._link is None or self.child.ending.done():
            raise NotReached(f"{self._spec.id} is not running", plugin_id=self._spec.id)
        return self._link

    async def _serve(self, call_id: str, work: Awaitable[T], remaining_ms: int) -> T:
        """One call or event: what ends it early is typed, and the child made to stop."""
        deadline = time.monotonic() + remaining_ms / 1000
        self._flights.enter(call_id)
        try:
            with self.child.metered():
                return await work
        except asyncio.CancelledError:
            await self._give_up(call_id, deadline - time.monotonic())
            raise
        except (LinkLost, grpc.aio.AioRpcError, grpc.aio.BaseError) as error:
            raise await self._explain(error) from error
        except LoomError:
            if self._link is not None and self._link.works_on(call_id):
                left_s = deadline - time.monotonic()
                self._later(self._wind_down(call_id, max(left_s, CANCEL_GRACE_S)))
            raise
        finally:
            self._flights.leave(call_id)

    async def _explain(self, error: Exception) -> LoomError:
        translated = from_grpc(error, self._spec.id, self._spec.quotas.output_bytes)
        if isinstance(translated, PluginUnhealthy):
            with suppress(TimeoutError):
                async with asyncio.timeout(DEATH_NOTICE_S):
                    await asyncio.shield(self.child.ending)
        return self._death() if self.child.ending.done() else translated

    def _death(self) -> LoomError:
        """Why every call in flight ended."""
        child, plugin_id = self.child, self._spec.id
        if (over := child.exceeded) is not None:
            return QuotaExceeded(
                f"{plugin_id}: {over}: raise quota {over.quota} in loom.toml or {over.advice}",
                plugin_id=plugin_id,
                quota=over.quota,
                limit=over.limit,
                used=over.used,
            )
        text = f"{plugin_id} ended during the call ({child.ending.result()}){child.tail()}"
        return PluginCrashed(text, plugin_id=plugin_id)

    async def _give_up(self, call_id: str, left_s: float) -> None:
        """Out of time: stop it now. Else nobody wants the answer: it may end in its own time."""
        if left_s <= CANCEL_GRACE_S:
            await self._wind_down(call_id, CANCEL_GRACE_S)
            return
        self._later(self._wind_down(call_id, left_s))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._winding.add(task)
        task.add_done_callback(self._winding.discard)

    async def _wind_down(self, call_id: str, grace_s: float) -> None:
        """After a cancellation: the child must stop working on the call, or be stopped."""
        reason = f"killed: a cancelled call did not stop within {grace_s * 1000:.0f} ms"
        assert self._link is not None
        try:
            async with asyncio.timeout(grace_s):
                await self._link.stopped(call_id)
        except TimeoutError:
            self.child.kill(reason)
            await asyncio.wait({self.child.exited}, timeout=KILL_NOTICE_S)
        except asyncio.CancelledError:
            self.child.kill(reason)
            raise
