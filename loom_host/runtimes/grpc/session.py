"""The host's side of a Session: one stream to a child, with all its calls, events and asks."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import grpc

from loom_host.runtimes.base import PluginSpec
from loom_sdk import Call, Event, Result, wire
from loom_sdk._proto import plugin_pb2 as pb
from loom_sdk.frames import address
from loom_sdk.outbox import Outbox
from loom_sdk.writer import Writer

from .asks import Asks
from .host_calls import Client
from .inbox import Inbox
from .pending import LinkLost, Pending

METHOD = "/loom.v1.Plugin/Session"
HEALTH = pb.HostFrame(health=pb.HealthRequest()).SerializeToString()


class Session:
    """One open stream, a `Link`.

    Args:
        metadata: the token.
    """

    def __init__(
        self, channel: grpc.aio.Channel, metadata: Any, spec: PluginSpec, client: Client
    ) -> None:
        self._spec, self._services = spec, client.services
        open_stream: Any = channel.stream_stream(METHOD)
        self._stream = open_stream(metadata=metadata)
        self._outbox = Outbox(pb.HostFrame)
        self._asks = Asks(client, self._outbox)
        self.inbox = Inbox(client, self._outbox, self._asks, spec.quotas.output_bytes)
        self._numbers = count(1)
        self._given_up: dict[str, asyncio.Future[None]] = {}
        self.lost: asyncio.Future[Exception | None]
        self.lost = asyncio.get_running_loop().create_future()
        """Resolved when the stream has ended, with gRPC's error or None."""
        self._writer = Writer(self._outbox, self._stream.write, lambda: len(self.inbox.pending) > 1)
        self._reader = asyncio.create_task(self._read())

    async def init(self, request: Any) -> Any:
        """The `InitResponse`. Raises AioRpcError, also where the child has no Session."""
        answer, _ = self.inbox.expect("init")
        self._outbox.end(0, pb.HostFrame(init=request).SerializeToString())
        try:
            return await answer
        except LinkLost as error:
            raise self.lost.result() or error from error

    async def invoke(self, call: Call) -> Result:
        frame = pb.HostFrame(call=wire.call_to_proto(call))
        pending = self.inbox.begin(call.id)
        self._outbox.end(call.id, frame.SerializeToString())
        try:
            while (message := await pending.next()).item:
                await self._services.emit(call.id, wire.item_from_proto(message))
                if credit := pending.window.take():
                    self._outbox.grant(call.id, credit)
        except BaseException as error:
            self._give_up(call.id, pending, error)
            raise
        return wire.result_from_proto(message)

    async def handle_event(self, event: Event) -> int:
        seq = next(self._numbers)
        frame = pb.HostFrame(event=pb.EventFrame(seq=seq, event=wire.event_to_proto(event)))
        pending = self.inbox.begin(-seq)
        self._outbox.end(-seq, frame.SerializeToString())
        try:
            response = await pending.next()
        except BaseException as error:
            self._give_up(event.id, pending, error)
            raise
        return wire.response_from_proto(response)

    async def health(self) -> Any:
        answer, fresh = self.inbox.expect("health")
        if fresh:
            self._outbox.control(HEALTH)
        return await asyncio.shield(answer)

    async def shutdown(self, grace_ms: int) -> None:
        answer, _ = self.inbox.expect("shutdown")
        request = pb.ShutdownRequest(grace_ms=grace_ms)
        self._outbox.control(pb.HostFrame(shutdown=request).SerializeToString())
        await asyncio.shield(answer)

    def works_on(self, call_id: str) -> bool:
        return call_id in self._given_up

    async def stopped(self, call_id: str) -> None:
        ended = self._given_up.get(call_id)
        if ended is not None:
            await asyncio.shield(ended)

    def lose(self, error: Exception | None = None) -> None:
        if not self.lost.done():
            self.lost.set_result(error)
            self.inbox.lose(LinkLost(f"the Session ended: {error or 'by the child'}"))

    async def aclose(self) -> None:
        self.lose()
        await self._asks.aclose()
        self._writer.aclose()
        self._stream.cancel()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    def _give_up(self, call_id: str, pending: Pending, error: BaseException) -> None:
        """Unless it is over: tell the child to stop; its answer still counts as its end."""
        key = pending.key
        if self.inbox.pending.get(key) is not pending or self.lost.done():
            return
        if self._outbox.drop(key):  # nothing of it was sent
            del self.inbox.pending[key]
            return
        ended = self._given_up[call_id] = pending.give_up()
        ended.add_done_callback(lambda _: self._given_up.pop(call_id, None))
        reason = "cancelled" if isinstance(error, asyncio.CancelledError) else str(error)[:200]
        cancel = pb.CancelFrame(reason=reason, **address(key))
        self._outbox.control(pb.HostFrame(cancel=cancel).SerializeToString())

    async def _read(self) -> None:
        failure: Exception | None = None
        try:
            while (message := await self._stream.read()) is not grpc.aio.EOF:
                self.inbox.message(message)
                if self._asks.overrun:
                    await self._outbox.written()
        except (grpc.aio.AioRpcError, grpc.aio.BaseError) as error:
            failure = error
        finally:
            self.lose(failure)
