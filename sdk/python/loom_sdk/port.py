"""The host as a context reaches it, in every tier, and the records that go over it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from .calls import Call, Item, Result
from .events import Event

SCHEMA_KEY = "\0schema"
"""Key under which the host tells, in digits, of which version a plugin's stored data is; a put of
the manifest's version there says that it is of that one now."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """Answer of `ctx.http`."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class SpanRecord:
    """A span that the plugin measured on its own clock, relative to its call's begin."""

    name: str
    start_offset_us: int
    duration_us: int
    attributes: Mapping[str, str] = field(default_factory=dict)
    error: str = ""


class Port(Protocol):
    """The host, as a synchronous context sees it."""

    def publish(self, event: Event, call_id: str) -> int: ...
    def invoke(self, call: Call) -> Result: ...
    def stream(self, call: Call) -> Iterator[Item]: ...
    def emit(self, call_id: str, item: Item) -> None: ...
    def kv_get(self, key: str) -> bytes | None: ...
    def kv_put(self, key: str, value: bytes) -> None: ...
    def kv_delete(self, key: str) -> None: ...
    def kv_list(self, prefix: str) -> list[str]: ...
    def http_request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout_ms: int
    ) -> HttpResponse: ...
    def log(
        self, level: str, message: str, attributes: Mapping[str, str], call_id: str
    ) -> None: ...
    def span(self, span: SpanRecord, call_id: str) -> None: ...
    def get_secret(self, name: str) -> str: ...


class AsyncPort(Protocol):
    """The host, as an asynchronous context sees it."""

    async def publish(self, event: Event, call_id: str) -> int: ...
    async def invoke(self, call: Call) -> Result: ...
    def stream(self, call: Call) -> AsyncIterator[Item]: ...
    async def emit(self, call_id: str, item: Item) -> None: ...
    async def kv_get(self, key: str) -> bytes | None: ...
    async def kv_put(self, key: str, value: bytes) -> None: ...
    async def kv_delete(self, key: str) -> None: ...
    async def kv_list(self, prefix: str) -> list[str]: ...
    async def http_request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout_ms: int
    ) -> HttpResponse: ...
    def log(
        self, level: str, message: str, attributes: Mapping[str, str], call_id: str
    ) -> None: ...
    def span(self, span: SpanRecord, call_id: str) -> None: ...
    async def get_secret(self, name: str) -> str: ...
