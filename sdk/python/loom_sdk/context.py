"""What a plugin may do while it serves a call or an event: `Context` and `AsyncContext`.

Both speak to the host through a port: the host API in the native tier, a gRPC stub in a child,
imports in a guest. Every call is checked against the plugin's grants and raises
`PermissionDenied` with the line that would allow it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .calls import Call, Item, Result
from .errors import ActionFailed, DeadlineExceeded
from .events import Event
from .port import AsyncPort, HttpResponse, Port, SpanRecord


@dataclass(frozen=True, slots=True)
class Identity:
    """What stays the same for a plugin's whole life."""

    plugin_id: str
    data_dir: Path | None = None
    cache_dir: Path | None = None


class _Base:
    """What both contexts share: identity, the call's data and clock, logs and spans."""

    def __init__(
        self,
        port: Any,
        identity: Identity,
        *,
        call: Call | None = None,
        event: Event | None = None,
        timeout_ms: int = 30_000,
    ) -> None:
        self._port = port
        self._identity = identity
        self._call = call
        self._began = time.monotonic()
        self._deadline = self._began + (call.remaining_ms if call else timeout_ms) / 1000
        self._call_id = call.id if call else event.id if event else ""
        self._traceparent = (
            call.traceparent if call is not None else event.traceparent if event else ""
        )

    @property
    def plugin_id(self) -> str:
        return self._identity.plugin_id

    @property
    def data_dir(self) -> Path | None:
        """The plugin's own folder, None where the tier has none."""
        return self._identity.data_dir

    @property
    def cache_dir(self) -> Path | None:
        return self._identity.cache_dir

    @property
    def call_id(self) -> str:
        return self._call_id

    @property
    def payload(self) -> bytes:
        """Binary that came beside the arguments."""
        return self._call.payload if self._call else b""

    @property
    def content_type(self) -> str:
        return self._call.content_type if self._call else ""

    def remaining_ms(self) -> int:
        """Milliseconds until the host gives up on this call; 0 once it has."""
        if self._told_to_stop():
            return 0
        return max(0, int((self._deadline - time.monotonic()) * 1000))

    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more, so that long work may stop.

        Only a child process is told of a cancellation; elsewhere it is true once time is up.
        """
        return self._told_to_stop() or (self._call is not None and self.remaining_ms() <= 0)

    def _told_to_stop(self) -> bool:
        cancelled = getattr(self._port, "cancelled", None)
        return cancelled is not None and bool(cancelled(self._call_id))

    def elapsed_us(self) -> int:
        return int((time.monotonic() - self._began) * 1_000_000)

    def log(self, message: str, level: str = "info", **attributes: object) -> None:
        """A line in the host's structured log, under this plugin's name and trace."""
        texts = {key: str(value) for key, value in attributes.items()}
        self._port.log(level, message, texts, self._call_id)

    @contextmanager
    def span(self, name: str, **attributes: object) -> Iterator[None]:
        """Measure a part of the work; it shows below this call in the trace."""
        start, error = self.elapsed_us(), ""
        try:
            yield
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            texts = {key: str(value) for key, value in attributes.items()}
            took = self.elapsed_us() - start
            self._port.span(SpanRecord(name, start, took, texts, error), self._call_id)

    def _outgoing(
        self,
        capability: str,
        arguments: Mapping[str, Any] | None,
        payload: bytes,
        content_type: str,
        timeout_ms: int | None,
        id: str = "",
    ) -> Call:
        remaining = self.remaining_ms()
        if self._call is not None and remaining <= 0:
            raise DeadlineExceeded(f"no time left to invoke {capability}", plugin_id=self.plugin_id)
        if timeout_ms is not None:
            remaining = min(remaining, timeout_ms) if self._call else timeout_ms
        return Call(
            capability,
            dict(arguments or {}),
            payload,
            content_type,
            id,
            remaining_ms=remaining or 30_000,
            traceparent=self._traceparent,
            parent_call_id=self._call_id,
        )

    def _event(self, kind: str, payload: bytes, extra: dict[str, Any]) -> Event:
        extra.setdefault("traceparent", self._traceparent)
        return Event(kind, payload, source=self.plugin_id, **extra)


class Context(_Base):
    """For `def` methods, in every tier. Calls block the plugin's own thread, never the host."""

    _port: Port

    def publish(self, topic: str, type: str, payload: bytes = b"", **fields: Any) -> int:
        """Publish an event; returns how many subscriptions got it.

        Args:
            fields: `metadata`, `tags`, `priority`, `confidence` of `Event`; a source begins a
                trace with `traceparent="new"`.
        """
        event = self._event(type, payload, fields | {"topic": topic})
        return self._port.publish(event, self._call_id)

    def invoke(
        self,
        capability: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        payload: bytes = b"",
        content_type: str = "",
        timeout_ms: int | None = None,
        id: str = "",
    ) -> Result:
        """Call a capability of another plugin through the host's broker.

        Args:
            id: idempotency: the same id with the same arguments gives the same kept result.
        """
        return self._port.invoke(
            self._outgoing(capability, arguments, payload, content_type, timeout_ms, id)
        )

    def stream(
        self,
        capability: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        payload: bytes = b"",
        content_type: str = "",
        timeout_ms: int | None = None,
    ) -> Iterator[Item]:
        """As `invoke`, yielding items as they come (all at the end in a wasm guest)."""
        return self._port.stream(
            self._outgoing(capability, arguments, payload, content_type, timeout_ms)
        )

    def emit(self, output: Any = None, payload: bytes = b"", content_type: str = "") -> None:
        """Send one item of a streamed answer."""
        self._port.emit(self._call_id, Item(output, payload, content_type, self.elapsed_us()))

    @property
    def http(self) -> Http:
        return Http(self._port, self)

    @property
    def kv(self) -> KeyValue:
        return KeyValue(self._port)

    def secret(self, name: str) -> str:
        return self._port.get_secret(name)


class Http:
    """HTTP through the host, by the plugin's allow-list."""

    def __init__(self, port: Port, ctx: _Base) -> None:
        self._port, self._ctx = port, ctx

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_ms: int | None = None,
    ) -> HttpResponse:
        limit = min(timeout_ms or 30_000, self._ctx.remaining_ms() or 30_000)
        return self._port.http_request(method, url, headers or {}, body, limit)

    def get_json(self, url: str) -> Any:
        """GET a JSON document. Raises ActionFailed(HTTP_STATUS) unless the status is 2xx."""
        return checked(self.request("GET", url), url).json()


def checked(response: HttpResponse, url: str) -> HttpResponse:
    if not 200 <= response.status < 300:
        raise ActionFailed(f"{url} answered {response.status}", code="HTTP_STATUS")
    return response


class KeyValue:
    """The plugin's own storage; nobody else sees it."""

    def __init__(self, port: Port) -> None:
        self._port = port

    def get(self, key: str) -> bytes | None:
        return self._port.kv_get(key)

    def put(self, key: str, value: bytes) -> None:
        self._port.kv_put(key, value)

    def delete(self, key: str) -> None:
        self._port.kv_delete(key)

    def keys(self, prefix: str = "") -> list[str]:
        return self._port.kv_list(prefix)


class AsyncContext(_Base):
    """For `async def` methods, in the native and grpc tiers. Same names as `Context`."""

    _port: AsyncPort

    async def publish(self, topic: str, type: str, payload: bytes = b"", **fields: Any) -> int:
        return await self._port.publish(
            self._event(type, payload, fields | {"topic": topic}), self._call_id
        )

    async def invoke(
        self,
        capability: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        payload: bytes = b"",
        content_type: str = "",
        timeout_ms: int | None = None,
        id: str = "",
    ) -> Result:
        return await self._port.invoke(
            self._outgoing(capability, arguments, payload, content_type, timeout_ms, id)
        )

    def stream(
        self,
        capability: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        payload: bytes = b"",
        content_type: str = "",
        timeout_ms: int | None = None,
    ) -> AsyncIterator[Item]:
        return self._port.stream(
            self._outgoing(capability, arguments, payload, content_type, timeout_ms)
        )

    async def emit(self, output: Any = None, payload: bytes = b"", content_type: str = "") -> None:
        await self._port.emit(self._call_id, Item(output, payload, content_type, self.elapsed_us()))

    async def http_request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_ms: int | None = None,
    ) -> HttpResponse:
        limit = min(timeout_ms or 30_000, self.remaining_ms() or 30_000)
        return await self._port.http_request(method, url, headers or {}, body, limit)

    async def kv_get(self, key: str) -> bytes | None:
        return await self._port.kv_get(key)

    async def kv_put(self, key: str, value: bytes) -> None:
        await self._port.kv_put(key, value)

    async def kv_delete(self, key: str) -> None:
        await self._port.kv_delete(key)

    async def kv_keys(self, prefix: str = "") -> list[str]:
        return await self._port.kv_list(prefix)

    async def secret(self, name: str) -> str:
        return await self._port.get_secret(name)
