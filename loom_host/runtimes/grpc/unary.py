"""A `Link` by unary calls, for children without Session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from loom_host.runtimes.base import HostServices, PluginSpec
from loom_sdk import Call, Event, Result, wire
from loom_sdk._proto import plugin_pb2 as pb
from loom_sdk._proto import plugin_pb2_grpc as pb_grpc
from loom_sdk.errors import PluginError

from .pending import LinkLost
from .translate import output_exceeded


class Unary:
    """The first five calls of `service Plugin`."""

    def __init__(
        self, channel: grpc.aio.Channel, metadata: Any, spec: PluginSpec, services: HostServices
    ) -> None:
        self._spec, self._services = spec, services
        self._stub: Any = pb_grpc.PluginStub(channel)
        self._with = {"metadata": metadata}
        self._calls: set[Any] = set()
        self._lost = False

    async def init(self, request: Any) -> Any:
        return await self._stub.Init(request, **self._with)

    async def invoke(self, call: Call) -> Result:
        request = wire.call_to_proto(call)
        limit, sent = self._spec.quotas.output_bytes, 0
        async with self._in_flight(lambda: self._stub.Invoke(request, **self._with)) as rpc:
            async for answer in rpc:
                message = self._readable(answer, call.capability)
                sent += wire.size_of(message)
                if sent > limit:
                    raise output_exceeded(self._spec.id, limit, sent)
                if not message.item:
                    return wire.result_from_proto(message)
                await self._services.emit(call.id, wire.item_from_proto(message))
        raise PluginError(
            f"{self._spec.id}: {call.capability} ended without a result", plugin_id=self._spec.id
        )

    async def handle_event(self, event: Event) -> int:
        request = wire.event_to_proto(event)
        async with self._in_flight(lambda: self._stub.HandleEvent(request, **self._with)) as rpc:
            return wire.response_from_proto(self._readable(await rpc, event.topic))

    async def health(self) -> Any:
        """A child without Health is believed to be well."""
        try:
            status = await self._stub.Health(pb.HealthRequest(), **self._with)
            return self._readable(status, "Health")
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return pb.HealthStatus(healthy=True)
            raise

    async def shutdown(self, grace_ms: int) -> None:
        await self._stub.Shutdown(pb.ShutdownRequest(grace_ms=grace_ms), **self._with)

    def _readable(self, message: Any, what: str) -> Any:
        """Raises PluginError for None, which grpc.aio gives where it cannot parse a message."""
        if message is None:
            raise PluginError(
                f"{self._spec.id} answered {what} with bytes that are no message of plugin.proto: "
                "send what the proto says, and text in UTF-8",
                plugin_id=self._spec.id,
            )
        return message

    def works_on(self, call_id: str) -> bool:
        return False  # it reports its calls only where it is asked

    async def stopped(self, call_id: str) -> None:
        """A child that does not report its calls is believed to have stopped."""
        while not self._lost:
            try:
                status = await self.health()
            except (grpc.aio.AioRpcError, grpc.aio.BaseError):
                return
            if call_id not in wire.running_ids(status.message):
                return
            await asyncio.sleep(0.01)

    def lose(self, error: Exception | None = None) -> None:
        self._lost = True
        for rpc in tuple(self._calls):
            rpc.cancel()

    async def aclose(self) -> None:
        self.lose()

    @asynccontextmanager
    async def _in_flight(self, start: Callable[[], Any]) -> AsyncIterator[Any]:
        """One RPC, ended by `lose`, by cancellation or by its own end."""
        if self._lost:
            raise LinkLost("the child has ended")
        rpc = start()
        self._calls.add(rpc)
        try:
            yield rpc
        except asyncio.CancelledError:
            if self._lost and not _was_cancelled():
                raise LinkLost("the child has ended") from None
            raise
        finally:
            self._calls.discard(rpc)
            rpc.cancel()


def _was_cancelled() -> bool:
    """Whether somebody cancelled the current task, rather than only its RPC."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
