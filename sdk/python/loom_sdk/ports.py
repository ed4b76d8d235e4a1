"""`service Host` as contexts see it: `HostPort` on the loop, `BlockingPort` in threads."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc

from . import wire
from ._proto import plugin_pb2 as pb
from ._proto import plugin_pb2_grpc as pb_grpc
from .calls import Call, Item, Result
from .context import HttpResponse, SpanRecord
from .errors import DeadlineExceeded, LoomError, PluginError, QuotaExceeded
from .events import Event
from .status import TOKEN_KEY, error_from_status

Answer = TypeVar("Answer")

OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)
"""The host bounds sizes by quota; gRPC's own 4 MB would break audio."""
MAX_RECORDS = 1024
"""Log lines and spans that may wait for the host; more are dropped and counted."""


@dataclass(slots=True)
class Running:
    """One call or event being served, known to the thread that serves it as `current.running`."""

    id: str
    limit: int = 0
    """Quota output_bytes, 0 for none."""
    write: Callable[[Any], Awaitable[None]] | None = None
    """Writes one message of the answer; None for an event, which has no answer."""
    sent: int = 0
    cancelled: bool = False
    waiting: set[Future[Any]] = field(default_factory=set)
    """What the serving thread waits for at the host."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def cancel(self) -> None:
        """Wake the serving thread if it waits for the host; its next host call is refused."""
        self.cancelled = True
        for future in tuple(self.waiting):
            future.cancel()

    async def send(self, message: Any) -> None:
        """Raises QuotaExceeded when the answer grows over output_bytes."""
        self.sent += wire.size_of(message)
        if self.limit and self.sent > self.limit:
            raise QuotaExceeded(
                f"the answer has {self.sent} bytes, quota output_bytes is {self.limit}",
                quota="output_bytes",
                limit=self.limit,
                used=self.sent,
            )
        if self.cancelled or self.write is None:
            raise DeadlineExceeded("the host cancelled this call")
        async with self.lock:  # two writes at once would break the stream
            await self.write(message)


class _Current(threading.local):
    running: Running | None = None


current = _Current()


class HostPort:
    """`AsyncPort` over the host's socket. The channel opens at first use."""

    def __init__(self, address: str, token: str, running: Mapping[str, Running]) -> None:
        self._address, self._metadata = address, ((TOKEN_KEY, token),)
        self._running = running
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._channel: grpc.aio.Channel | None = None
        self._host: Any = None
        self._records: deque[tuple[str, Any]] = deque()
        self._dropped = 0
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

    async def publish(self, event: Event, call_id: str) -> int:
        message = pb.PublishRequest(event=wire.event_to_proto(event), call_id=call_id)
        return int((await self._ask("Publish", message)).delivered)

    async def invoke(self, call: Call) -> Result:
        items: list[Item] = []
        async for message in self._messages(wire.call_to_proto(call)):
            if not message.item:
                result = wire.result_from_proto(message)
                result.items = items
                return result
            items.append(wire.item_from_proto(message))
        raise PluginError(f"the host ended {call.capability} without a result")

    async def stream(self, call: Call) -> AsyncIterator[Item]:
        async for message in self._messages(wire.call_to_proto(call, stream=True)):
            if message.item:
                yield wire.item_from_proto(message)
            else:
                wire.result_from_proto(message)

    async def _messages(self, request: Any) -> AsyncIterator[Any]:
        rpc = self._stub().Invoke(request, metadata=self._metadata)
        try:
            async for message in rpc:
                yield message
        except grpc.aio.AioRpcError as error:
            raise host_error(error) from error
        finally:
            rpc.cancel()

    async def emit(self, call_id: str, item: Item) -> None:
        running = self._running.get(call_id)
        if running is None or running.write is None:
            await self._ask("Emit", wire.emit_to_proto(call_id, item))
        else:
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
                    text = f"{self._dropped} log lines or spans came too fast and were dropped"
                    self._records.append(("Log", pb.LogRecord(level="warning", message=text)))
                    self._dropped = 0
                await self._ask(*self._records.popleft())
        except LoomError:  # the host is gone or refuses this plugin's logs: nobody to tell
            self._records.clear()
        finally:
            self._sender = None

    async def flush(self) -> None:
        """Wait until the host has the log lines and spans, so that they precede the result."""
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


class BlockingPort:
    """`Port` for threads: every call waits for `HostPort` on the loop."""

    def __init__(self, port: HostPort, loop: asyncio.AbstractEventLoop) -> None:
        self._port, self._loop = port, loop
        self.log, self.span = port.log, port.span

    def _wait(self, work: Coroutine[Any, Any, Answer]) -> Answer:
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

    def publish(self, event: Event, call_id: str) -> int:
        return self._wait(self._port.publish(event, call_id))

    def invoke(self, call: Call) -> Result:
        return self._wait(self._port.invoke(call))

    def stream(self, call: Call) -> Iterator[Item]:
        source = self._port.stream(call)
        try:
            while (item := self._wait(_next(source))) is not None:
                yield item
        finally:
            asyncio.run_coroutine_threadsafe(_close(source), self._loop)

    def emit(self, call_id: str, item: Item) -> None:
        self._wait(self._port.emit(call_id, item))

    def kv_get(self, key: str) -> bytes | None:
        return self._wait(self._port.kv_get(key))

    def kv_put(self, key: str, value: bytes) -> None:
        self._wait(self._port.kv_put(key, value))

    def kv_delete(self, key: str) -> None:
        self._wait(self._port.kv_delete(key))

    def kv_list(self, prefix: str) -> list[str]:
        return self._wait(self._port.kv_list(prefix))

    def http_request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout_ms: int
    ) -> HttpResponse:
        return self._wait(self._port.http_request(method, url, headers, body, timeout_ms))

    def get_secret(self, name: str) -> str:
        return self._wait(self._port.get_secret(name))


async def _next(source: AsyncIterator[Item]) -> Item | None:
    return await anext(source, None)


async def _close(source: Any) -> None:
    await source.aclose()
