"""What a plugin may do while it serves a call or an event: `Context` and `AsyncContext`.

Both speak to the host through a port: the host API in the native tier, a gRPC stub in a child,
imports in a guest. Every call is checked against the plugin's grants and raises
`PermissionDenied` with the line that would allow it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, TypedDict, Unpack

from .call_context import CallContext
from .calls import Item, Result
from .errors import ActionFailed
from .port import SCHEMA_KEY, AsyncPort, HttpResponse, Port


class EventFields(TypedDict, total=False):
    """What an event may have beside topic, type and payload; see `Event`."""

    metadata: Mapping[str, str]
    tags: tuple[str, ...]
    priority: int
    confidence: float
    traceparent: str


class Context(CallContext):
    """For `def` methods, in every tier. Calls block the plugin's own thread, never the host."""

    _port: Port

    def publish(
        self, topic: str, type: str, payload: bytes = b"", **fields: Unpack[EventFields]
    ) -> int:
        """Publish an event; returns how many subscriptions got it.

        Args:
            fields: `metadata`, `tags`, `priority`, `confidence` of `Event`; a source begins a
                trace with `traceparent="new"`.
        """
        event = self._event(type, payload, {**fields, "topic": topic})
        return self._port.publish(event, self._call_id)

    def invoke(
        self,
        capability: str,
        arguments: Mapping[str, object] | None = None,
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
        arguments: Mapping[str, object] | None = None,
        *,
        payload: bytes = b"",
        content_type: str = "",
        timeout_ms: int | None = None,
    ) -> Iterator[Item]:
        """As `invoke`, yielding items as they come (all at the end in a wasm guest)."""
        return self._port.stream(
            self._outgoing(capability, arguments, payload, content_type, timeout_ms)
        )

    def emit(self, output: object = None, payload: bytes = b"", content_type: str = "") -> None:
        """Send one item of a streamed answer."""
        self._port.emit(self._call_id, self._item(output, payload, content_type))

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

    def __init__(self, port: Port, ctx: CallContext) -> None:
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

    def schema(self) -> int:
        """Version of the data that is stored, 0 where there is none; see STORAGE.md."""
        return int(self._port.kv_get(SCHEMA_KEY) or 0)

    def migrated(self, version: int) -> None:
        """Say that the stored data is now of this version, the manifest's."""
        self._port.kv_put(SCHEMA_KEY, b"%d" % version)


class AsyncContext(CallContext):
    """For `async def` methods, in the native and grpc tiers. Same names as `Context`."""

    _port: AsyncPort

    async def publish(
        self, topic: str, type: str, payload: bytes = b"", **fields: Unpack[EventFields]
    ) -> int:
        return await self._port.publish(
            self._event(type, payload, {**fields, "topic": topic}), self._call_id
        )

    async def invoke(
        self,
        capability: str,
        arguments: Mapping[str, object] | None = None,
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
        arguments: Mapping[str, object] | None = None,
        *,
        payload: bytes = b"",
        content_type: str = "",
        timeout_ms: int | None = None,
    ) -> AsyncIterator[Item]:
        return self._port.stream(
            self._outgoing(capability, arguments, payload, content_type, timeout_ms)
        )

    async def emit(
        self, output: object = None, payload: bytes = b"", content_type: str = ""
    ) -> None:
        await self._port.emit(self._call_id, self._item(output, payload, content_type))

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

    async def kv_schema(self) -> int:
        """As `ctx.kv.schema()` of `Context`."""
        return int(await self._port.kv_get(SCHEMA_KEY) or 0)

    async def kv_migrated(self, version: int) -> None:
        await self._port.kv_put(SCHEMA_KEY, b"%d" % version)

    async def secret(self, name: str) -> str:
        return await self._port.get_secret(name)
