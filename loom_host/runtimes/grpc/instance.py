"""One running child as the host sees it: its calls in flight, its health and its end."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc

from loom_host.runtimes.base import Declaration, HostServices, PluginSpec, Usage
from loom_sdk import Call, Event, Result, wire
from loom_sdk._proto import plugin_pb2 as pb
from loom_sdk._proto import plugin_pb2_grpc as pb_grpc
from loom_sdk.errors import (
    LoomError,
    PluginCrashed,
    PluginError,
    PluginUnhealthy,
    QuotaExceeded,
)
from loom_sdk.status import TOKEN_KEY

from .process import ChildProcess
from .translate import from_grpc, output_exceeded

CANCEL_GRACE_S = 0.2
"""For a cancelled call to end; with the kill after it, a deadline's error is out within 250 ms."""
HEALTH_TIMEOUT_S = 5.0
DEATH_NOTICE_S = 0.5
"""A lost connection mostly precedes the news of the process's end by a few milliseconds."""

ENFORCEMENT = {
    "memory": "partial: the child is watched by resident memory, what it starts by RLIMIT_DATA",
    "cpu": "unenforced: needs cgroups",
    "deadline_ms": "enforced",
    "concurrency": "enforced",
    "rate": "enforced",
    "output_bytes": "enforced",
    "log_bytes": "enforced",
    "storage_bytes": "enforced",
    "processes": "unenforced: needs cgroups",
    "open_files": "enforced",
    "network": "unenforced: needs a sandbox",
    "filesystem": "unenforced: needs a sandbox",
}


class GrpcInstance:
    """A child process behind `PluginInstance`. Made by `GrpcRuntime.start`."""

    def __init__(
        self,
        spec: PluginSpec,
        services: HostServices,
        child: ChildProcess,
        channel: grpc.aio.Channel,
        token: str,
        release: Callable[[], None],
    ) -> None:
        self.declaration = Declaration()
        self.enforcement: Mapping[str, str] = ENFORCEMENT
        self.child, self.channel = child, channel
        self._spec, self._services, self._release = spec, services, release
        self._stub: Any = pb_grpc.PluginStub(channel)
        self._metadata = ((TOKEN_KEY, token),)
        self._calls: set[Any] = set()
        self._closing = False
        self._winding: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        child.exited.add_done_callback(self._on_exit)

    def declare(self, meta: Any) -> None:
        """Take what the plugin said at Init. Raises PluginError when it says another id."""
        if meta.id and meta.id != self._spec.id:
            raise PluginError(f"it calls itself {meta.id!r}, its manifest says {self._spec.id!r}")
        self.declaration = Declaration(
            tuple(map(wire.capability_from_proto, meta.capabilities)),
            tuple(map(wire.subscription_from_proto, meta.subscriptions)),
        )

    async def invoke(self, call: Call) -> Result:
        """As `PluginInstance.invoke`.

        Raises:
            QuotaExceeded: output_bytes, or memory when the child was killed for it.
            PluginCrashed: the child ended; the message quotes its last lines.
        """
        request = wire.call_to_proto(call)
        sent = 0
        start = lambda: self._stub.Invoke(request, **self._with)  # noqa: E731
        async with self._in_flight(call.id, start, call.remaining_ms) as rpc:
            async for message in rpc:
                sent += wire.size_of(message)
                if sent > self._spec.quotas.output_bytes:
                    raise output_exceeded(self._spec.id, self._spec.quotas.output_bytes, sent)
                if not message.item:
                    return wire.result_from_proto(message)
                await self._services.emit(call.id, wire.item_from_proto(message))
        raise PluginError(
            f"{self._spec.id}: {call.capability} ended without a result", plugin_id=self._spec.id
        )

    async def handle_event(self, event: Event) -> int:
        request = wire.event_to_proto(event)
        start = lambda: self._stub.HandleEvent(request, **self._with)  # noqa: E731
        async with self._in_flight(event.id, start, self._spec.quotas.deadline_ms) as rpc:
            return wire.response_from_proto(await rpc)

    async def health(self) -> str:
        if self.child.exited.done():
            return self.child.exited.result()
        try:
            status = await self._stub.Health(
                pb.HealthRequest(), timeout=HEALTH_TIMEOUT_S, **self._with
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return ""
            return from_grpc(error, self._spec.id).message
        return "" if status.healthy else status.message or "unhealthy, no reason given"

    async def wait_exit(self) -> str:
        return await asyncio.shield(self._ended)

    async def aclose(self, grace_s: float) -> None:
        """Shutdown, then SIGTERM, then SIGKILL, all within `grace_s` seconds; idempotent."""
        self._closing = True
        try:
            if grace_s > 0 and not self.child.exited.done():
                await self._ask_to_stop(grace_s)
        finally:
            await asyncio.shield(self._finish())

    def usage(self) -> Usage:
        self.child.read_memory()
        return Usage(self.child.memory, self.child.peak_memory, self.child.pid)

    @property
    def _with(self) -> dict[str, Any]:
        return {"metadata": self._metadata}

    async def _ask_to_stop(self, grace_s: float) -> None:
        """Three quarters of the time for Shutdown and the exit after it, the rest for SIGTERM."""
        began = time.monotonic()
        asked = 0.75 * grace_s
        request = pb.ShutdownRequest(grace_ms=int(asked * 1000))
        with suppress(grpc.aio.AioRpcError, TimeoutError):
            async with asyncio.timeout(asked):
                await self._stub.Shutdown(request, **self._with)
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
        await self.channel.close(None)
        self._release()

    def _on_exit(self, exited: asyncio.Future[str]) -> None:
        for rpc in tuple(self._calls):
            rpc.cancel()
        if not self._closing and not self._ended.done():
            self._ended.set_result(exited.result())

    @asynccontextmanager
    async def _in_flight(
        self, call_id: str, start: Callable[[], Any], remaining_ms: int
    ) -> AsyncIterator[Any]:
        """One RPC: ended by the child's death, by cancellation or by its own end; errors typed."""
        deadline = time.monotonic() + remaining_ms / 1000
        if self._closing or self.child.exited.done():
            raise PluginUnhealthy(f"{self._spec.id} is not running", plugin_id=self._spec.id)
        rpc = None
        try:
            rpc = start()
            self._calls.add(rpc)
            yield rpc
        except asyncio.CancelledError:
            if self.child.exited.done() and not _was_cancelled():
                raise self._death() from None
            if rpc is not None:
                rpc.cancel()
            await self._give_up(call_id, deadline - time.monotonic())
            raise
        except (grpc.aio.AioRpcError, grpc.aio.BaseError) as error:
            raise await self._explain(error) from error
        finally:
            self._calls.discard(rpc)
            if rpc is not None:
                rpc.cancel()

    async def _explain(self, error: Exception) -> LoomError:
        translated = from_grpc(error, self._spec.id, self._spec.quotas.output_bytes)
        if isinstance(translated, PluginUnhealthy):
            with suppress(TimeoutError):
                async with asyncio.timeout(DEATH_NOTICE_S):
                    await asyncio.shield(self.child.exited)
        return self._death() if self.child.exited.done() else translated

    def _death(self) -> LoomError:
        """Why every call in flight ended."""
        child, plugin_id = self.child, self._spec.id
        if child.over_memory:
            limit, used = self._spec.quotas.memory, child.peak_memory
            return QuotaExceeded(
                f"{plugin_id}: out of memory, used {used} bytes, quota memory is {limit}: "
                "raise it in loom.toml or give the plugin less to do",
                plugin_id=plugin_id,
                quota="memory",
                limit=limit,
                used=used,
            )
        text = f"{plugin_id} ended during the call ({child.exited.result()}){child.tail()}"
        return PluginCrashed(text, plugin_id=plugin_id)

    async def _give_up(self, call_id: str, left_s: float) -> None:
        """Out of time: stop it now. Else nobody wants the answer: it may end in its own time."""
        if left_s <= CANCEL_GRACE_S:
            await self._wind_down(call_id, CANCEL_GRACE_S)
            return
        task = asyncio.create_task(self._wind_down(call_id, left_s))
        self._winding.add(task)
        task.add_done_callback(self._winding.discard)

    async def _wind_down(self, call_id: str, grace_s: float) -> None:
        """After a cancellation: the child must stop working on the call, or be stopped."""
        reason = f"killed: a cancelled call did not stop within {grace_s * 1000:.0f} ms"
        try:
            async with asyncio.timeout(grace_s):
                while await self._still_runs(call_id):  # noqa: ASYNC110  # it is the child's state
                    await asyncio.sleep(0.01)
        except TimeoutError:
            self.child.kill(reason)
            await asyncio.shield(self.child.exited)
        except asyncio.CancelledError:
            self.child.kill(reason)
            raise

    async def _still_runs(self, call_id: str) -> bool:
        """A child that does not report its calls is believed to have stopped."""
        if self.child.exited.done():
            return False
        try:
            status = await self._stub.Health(pb.HealthRequest(), **self._with)
        except (grpc.aio.AioRpcError, grpc.aio.BaseError):
            return False
        return call_id in wire.running_ids(status.message)


def _was_cancelled() -> bool:
    """Whether somebody cancelled the current task, rather than only its RPC."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
