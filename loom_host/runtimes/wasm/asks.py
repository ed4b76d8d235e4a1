"""What a worker process asks of its host, served on the loop by the plugin's `HostServices`.

Nothing that a worker says about itself is believed: the call, its parent and its remaining time are
those of the request that the host sent it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from loom_host.runtimes.base import HostServices
from loom_sdk import Call, Event, Item
from loom_sdk.errors import InvalidArguments, QuotaExceeded
from loom_sdk.port import SpanRecord

from . import messages
from .frames import FrameError
from .host_imports import event_of
from .ticket import Ticket


class Asks:
    """Serves one plugin's workers."""

    def __init__(self, services: HostServices, plugin_id: str, output_bytes: int) -> None:
        self._services, self._plugin_id = services, plugin_id
        self._output_bytes = output_bytes
        self._served: dict[str, Callable[..., Awaitable[tuple[Any, ...]]]] = {
            "publish": self._publish,
            "invoke": self._invoke,
            "emit": self._emit,
            "kv-get": self._kv_get,
            "kv-put": self._kv_put,
            "kv-delete": self._kv_delete,
            "kv-list": self._kv_list,
            "http-request": self._http_request,
            "get-secret": self._get_secret,
            "sync": self._sync,
        }

    def parse(self, fields: list[bytes]) -> tuple[str, list[Any]]:
        """Name and arguments of an ASK. Raises FrameError."""
        name = fields[0].decode("utf-8", "replace") if fields else ""
        if name not in self._served:
            raise FrameError(f"no import is called {name[:40]!r}")
        return name, messages.IMPORTS[name][0].unpack(fields[1:])

    async def answer(self, name: str, values: list[Any], ticket: Ticket) -> list[bytes]:
        """Raises whatever the services raise."""
        given = await self._served[name](ticket, *values)
        return messages.IMPORTS[name][1].pack(*given)

    def told(self, fields: list[bytes], ticket: Ticket) -> None:
        """A log line or a span. Raises FrameError."""
        name = fields[0] if fields else b""
        if name == b"log":
            level, message, attributes = messages.LOG.unpack(fields[1:])
            self._services.log(level, message, dict(attributes), ticket.call_id)
        elif name == b"span":
            title, start, took, attributes, error = messages.SPAN.unpack(fields[1:])
            record = SpanRecord(title, start, took, dict(attributes), error)
            self._services.span(record, ticket.call_id)
        else:
            raise FrameError(f"nothing is told by {name[:40]!r}")

    async def _publish(self, ticket: Ticket, *values: Any) -> tuple[int]:
        event: Event = event_of(dict(zip(messages.EVENT.names, values, strict=True)))
        return (await self._services.publish(event, ticket.call_id),)

    async def _invoke(
        self,
        ticket: Ticket,
        capability: str,
        arguments: Any,
        payload: bytes,
        content_type: str,
        call_id: str,
        version: str,
        remaining_ms: int,
        traceparent: str,
    ) -> tuple[Any, ...]:
        if not isinstance(arguments, dict):
            raise InvalidArguments(f"{capability}: arguments must be a JSON object")
        result = await self._services.invoke(
            Call(
                capability,
                arguments,
                payload,
                content_type,
                id=call_id,
                version=version,
                remaining_ms=max(0, min(remaining_ms, ticket.remaining_ms())),
                traceparent=traceparent or ticket.traceparent,
                parent_call_id=ticket.call_id,
            )
        )
        return result.output, result.payload, result.content_type, result.elapsed_us

    async def _emit(
        self, ticket: Ticket, output: Any, payload: bytes, content_type: str
    ) -> tuple[()]:
        size = len(payload) + len(messages.JSON.pack(output)[0])
        ticket.output_bytes += size
        if ticket.output_bytes > self._output_bytes:
            raise QuotaExceeded(
                plugin_id=self._plugin_id,
                quota="output_bytes",
                limit=self._output_bytes,
                used=ticket.output_bytes,
            )
        item = Item(output, payload, content_type, ticket.elapsed_us())
        await self._services.emit(ticket.call_id, item)
        return ()

    async def _kv_get(self, ticket: Ticket, key: str) -> tuple[int, bytes]:
        value = await self._services.kv_get(key)
        return (0, b"") if value is None else (1, value)

    async def _kv_put(self, ticket: Ticket, key: str, value: bytes) -> tuple[()]:
        await self._services.kv_put(key, value)
        return ()

    async def _kv_delete(self, ticket: Ticket, key: str) -> tuple[()]:
        await self._services.kv_delete(key)
        return ()

    async def _kv_list(self, ticket: Ticket, prefix: str) -> tuple[list[str]]:
        return (await self._services.kv_list(prefix),)

    async def _http_request(
        self,
        ticket: Ticket,
        method: str,
        url: str,
        headers: list[tuple[str, str]],
        body: bytes,
        timeout_ms: int,
    ) -> tuple[Any, ...]:
        limit = max(0, min(timeout_ms, ticket.remaining_ms()))
        reply = await self._services.http_request(method, url, dict(headers), body, limit)
        return reply.status, reply.headers.items(), reply.body

    async def _get_secret(self, ticket: Ticket, name: str) -> tuple[str]:
        return (await self._services.get_secret(name),)

    async def _sync(self, ticket: Ticket) -> tuple[()]:
        return ()
