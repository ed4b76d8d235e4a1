"""The host as contexts in a child see it: what both transports share, and `HostPort`, the unary."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import grpc

from . import wire
from ._proto import plugin_pb2 as pb
from ._proto import plugin_pb2_grpc as pb_grpc
from .calls import Call, Item, Result
from .errors import LoomError, PluginError
from .events import Event
from .port import HttpResponse, SpanRecord
from .running import Running
from .status import TOKEN_KEY, error_from_status

OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)
"""The host bounds sizes by quota; gRPC's own 4 MB would break audio."""
MAX_RECORDS = 1024
"""Log lines and spans that may wait for the host; more are dropped and counted."""


class RemotePort:
    """`AsyncPort` over the methods of `service Host`, however they travel."""

    def __init__(self, running: Mapping[str, Running]) -> None:
        self._running = running
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._dropped = 0

    async def _ask(self, method: str, request: Any) -> Any:
        """The reply of one method. Raises the LoomError that the host raised."""
        raise NotImplementedError

    def _messages(self, request: Any) -> AsyncGenerator[Any, None]:
        """The replies to an `ActionCall`."""
        raise NotImplementedError

    def _post(self, method: str, message: Any) -> None:
        """Send a log line or a span, on the loop."""
        raise NotImplementedError

    async def publish(self, event: Event, call_id: str) -> int:
        message = pb.PublishRequest(event=wire.event_to_proto(event), call_id=call_id)
        return int((await self._ask("Publish", message)).delivered)

    async def invoke(self, call: Call) -> Result:
        items: list[Item] = []
        request = wire.call_to_proto(call)
        request.idempotent_id = bool(call.id)
        messages = self._messages(request)
        try:
            async for message in messages:
                if not message.item:
                    result = wire.result_from_proto(message)
                    result.items = items
                    return result
                items.append(wire.item_from_proto(message))
        finally:
            await messages.aclose()
        raise PluginError(f"the host ended {call.capability} without a result")

    async def stream(self, call: Call) -> AsyncIterator[Item]:
        messages = self._messages(wire.call_to_proto(call, stream=True))
        try:
            async for message in messages:
                if message.item:
                    yield wire.item_from_proto(message)
                else:
                    wire.result_from_proto(message)
        finally:
            await messages.aclose()  # left early: the host is told now

    async def emit(self, call_id: str, item: Item) -> None:
        running = self._running.get(call_id)
        if running is None or running.write is None:
            await self._ask("Emit", wire.emit_to_proto(call_id, item))
        else:
            running.make_room(len(item.payload))  # before it is copied
            await running.send(wire.item_to_proto(call_id, item))

    async def kv_get(self, key: str) -> bytes | None:
        reply = await self._ask("KvGet", pb.KvRequest(key=key))
        return reply.value if reply.found else None

    async def kv_put(self, key: str, value: bytes) -> None:
        await self._ask("KvPut", pb.KvRequest(key=key, value=value))

    async def kv_delete(self, key: str) -> None:
        await self._ask("KvDelete", pb.KvRequest(key=key))

    async def kv_list(self, prefix: str) -> list[str]:
        return list((await self._ask("KvList", pb.KvRequest(key=prefix))).keys)

    async def http_request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout_ms: int
    ) -> HttpResponse:
        message = pb.HttpCall(
            method=method,
            url=url,
            headers=wire.headers_to_proto(headers),
            body=body,
            timeout_ms=timeout_ms,
        )
        return wire.http_from_proto(await self._ask("HttpRequest", message))

    async def get_secret(self, name: str) -> str:
        return str((await self._ask("GetSecret", pb.SecretRequest(name=name))).value)

    def log(self, level: str, message: str, attributes: Mapping[str, str], call_id: str) -> None:
        text = message.encode("utf-8", "replace").decode()
        self._record(
            "Log",
            pb.LogRecord(level=level, message=text, call_id=call_id, attributes=attributes),
        )

    def span(self, span: SpanRecord, call_id: str) -> None:
        self._record("Span", wire.span_to_proto(span, call_id))

    def _record(self, method: str, message: Any) -> None:
        if threading.get_ident() == self._thread:
            self._post(method, message)
        else:
            self._loop.call_soon_threadsafe(self._post, method, message)

    def _tell_dropped(self) -> Any:
        """The log line that says how many records were dropped."""
        text = f"{self._dropped} log lines or spans came too fast and were dropped"
        self._dropped = 0
        return pb.LogRecord(level="warning", message=text)

    async def flush(self) -> None:
        """Wait until the host has the log lines and spans, where they could come after a result."""

    async def aclose(self) -> None:
        """Send what waits, then release the connection."""


class HostPort(RemotePort):
    """By unary calls to the host's socket. The channel opens at first use."""

    def __init__(self, address: str, token: str, running: Mapping[str, Running]) -> None:
        super().__init__(running)
        self._address, self._metadata = address, ((TOKEN_KEY, token),)
        self._channel: grpc.aio.Channel | None = None
        self._host: Any = None
        self._records: deque[tuple[str, Any]] = deque()
        self._sender: asyncio.Task[None] | None = None

    def _stub(self) -> Any:
        if self._host is None:
            self._channel = grpc.aio.insecure_channel(f"unix:{self._address}", options=OPTIONS)
            self._host = pb_grpc.HostStub(self._channel)
        return self._host

    async def _ask(self, method: str, request: Any) -> Any:
        try:
            return await getattr(self._stub(), method)(request, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise host_error(error) from error

    async def _messages(self, request: Any) -> AsyncGenerator[Any, None]:
        rpc = self._stub().Invoke(request, metadata=self._metadata)
        try:
            async for message in rpc:
                yield message
        except grpc.aio.AioRpcError as error:
            raise host_error(error) from error
        finally:
            rpc.cancel()

    def _post(self, method: str, message: Any) -> None:
        if len(self._records) >= MAX_RECORDS:
            self._dropped += 1
            return
        self._records.append((method, message))
        if self._sender is None:
            self._sender = self._loop.create_task(self._send())

    async def _send(self) -> None:
        try:
            while self._records or self._dropped:
                if not self._records:
                    self._records.append(("Log", self._tell_dropped()))
                await self._ask(*self._records.popleft())
        except LoomError:  # the host is gone or refuses this plugin's logs: nobody to tell
            self._records.clear()
        finally:
            self._sender = None

    async def flush(self) -> None:
        if self._sender is not None:
            await asyncio.shield(self._sender)

    async def aclose(self) -> None:
        await self.flush()
        if self._channel is not None:
            await self._channel.close(None)


def host_error(error: grpc.aio.AioRpcError) -> LoomError:
    """The LoomError that the host raised."""
    text = f"the host: {error.details()}"
    return error_from_status(error.code().name, text, error.trailing_metadata())
