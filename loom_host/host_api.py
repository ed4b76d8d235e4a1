"""What a plugin may ask of the host: one implementation behind all three transports.

Every request is checked against the plugin's grants and audited; who is being served, its trace
and its policy come from the host's own table of calls in flight, never from the plugin.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from loom_sdk import Call, Event, Item, Result
from loom_sdk.context import HttpResponse, SpanRecord
from loom_sdk.errors import CapabilityError, DeadlineExceeded, QuotaExceeded
from loom_sdk.events import PRIORITY_MAX

from .broker import DEFAULT_TIMEOUT_MS, Broker, Request
from .bus import MemoryBus
from .egress import Egress
from .grants import Audit
from .handle import InFlight, PluginHandle
from .secret_store import Secrets
from .storage import PluginStore, Store
from .telemetry import Tracer

LOG_WINDOW_S = 60.0
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


@dataclass(frozen=True, slots=True)
class HostParts:
    """The parts of the host that plugins can reach."""

    bus: MemoryBus
    broker: Broker
    audit: Audit
    store: Store
    egress: Egress
    secrets: Secrets
    tracer: Tracer


class HostApi:
    """The services of one plugin."""

    def __init__(self, parts: HostParts, handle: PluginHandle) -> None:
        self._parts = parts
        self._handle = handle
        self._kv = PluginStore(parts.store, handle.spec.id, handle.spec.quotas.storage_bytes)
        self._log = logging.getLogger(f"loom.plugin.{handle.name}")
        self._logged, self._log_window = 0, time.monotonic()

    def _flight(self, call_id: str) -> InFlight | None:
        return self._handle.inflight.get(call_id) if call_id else None

    def _check(self, kind: str, value: str) -> None:
        self._parts.audit.check(self._handle.grants, kind, value)

    async def publish(self, event: Event, call_id: str) -> int:
        self._check("publish", event.topic)
        flight = self._flight(call_id)
        stamped = Event(
            event.type,
            event.payload,
            event.metadata,
            source=self._handle.name,
            confidence=event.confidence,
            tags=event.tags,
            priority=min(max(event.priority, 0), PRIORITY_MAX),
            traceparent=self._trace_of(event, flight),
        )
        return await self._parts.bus.publish(event.topic, stamped)

    def _trace_of(self, event: Event, flight: InFlight | None) -> str:
        """The trace being served; a source asks for a new one with `traceparent="new"`."""
        if event.traceparent != "new":
            return flight.traceparent if flight else ""
        span = self._parts.tracer.start(event.type)
        span.end()
        return span.traceparent

    def _request(self, call: Call) -> Request:
        self._check("invoke", call.capability.partition("@")[0])
        parent = self._flight(call.parent_call_id)
        timeout = call.remaining_ms or DEFAULT_TIMEOUT_MS
        if parent is not None:
            left = int((parent.deadline - time.monotonic()) * 1000)
            if left <= 0:
                raise DeadlineExceeded(
                    f"no time left to invoke {call.capability}", plugin_id=self._handle.spec.id
                )
            timeout = min(timeout, left)
        return Request(
            call.capability,
            call.arguments,
            call.payload,
            call.content_type,
            timeout_ms=timeout,
            caller=self._handle.name,
            parent=parent,
            traceparent=parent.traceparent if parent else "",
        )

    async def invoke(self, call: Call) -> Result:
        return await self._parts.broker.invoke(self._request(call))

    async def stream(self, call: Call) -> AsyncIterator[Item]:
        stream = self._parts.broker.stream(self._request(call))
        try:
            async for item in stream:
                yield item
        finally:
            await stream.aclose()  # type: ignore[attr-defined]  # it is an async generator

    async def emit(self, call_id: str, item: Item) -> None:
        flight = self._flight(call_id)
        if flight is None or flight.on_item is None:
            raise CapabilityError(
                f"{self._handle.name} emitted for {call_id!r}, a call it is not serving"
            )
        limit = self._handle.spec.quotas.output_bytes
        flight.emitted_bytes += len(item.payload) + len(json.dumps(item.output))
        if flight.emitted_bytes > limit:
            raise QuotaExceeded(
                plugin_id=self._handle.spec.id,
                quota="output_bytes",
                limit=limit,
                used=flight.emitted_bytes,
            )
        await flight.on_item(item)

    async def kv_get(self, key: str) -> bytes | None:
        self._check("storage", "own")
        return self._kv.get(key)

    async def kv_put(self, key: str, value: bytes) -> None:
        self._check("storage", "own")
        if not self._kv.put(key, value):
            raise QuotaExceeded(
                plugin_id=self._handle.spec.id,
                quota="storage_bytes",
                limit=self._kv.limit,
                used=self._kv.used() + len(value),
            )

    async def kv_delete(self, key: str) -> None:
        self._check("storage", "own")
        self._kv.delete(key)

    async def kv_list(self, prefix: str) -> list[str]:
        self._check("storage", "own")
        return self._kv.keys(prefix)

    async def http_request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout_ms: int
    ) -> HttpResponse:
        grants = self._handle.grants
        return await self._parts.egress.request(grants, method, url, headers, body, timeout_ms)

    async def get_secret(self, name: str) -> str:
        self._check("secrets", name)
        return await self._parts.secrets.get(name)

    def log(self, level: str, message: str, attributes: Mapping[str, str], call_id: str) -> None:
        now = time.monotonic()
        if now - self._log_window > LOG_WINDOW_S:
            self._logged, self._log_window = 0, now
        self._logged += len(message) + sum(len(k) + len(v) for k, v in attributes.items())
        if self._logged > self._handle.spec.quotas.log_bytes:
            self._handle.counters.quota_hits += 1
            return
        self._handle.log_lines.append(message)
        flight = self._flight(call_id)
        self._log.log(
            LEVELS.get(level, logging.INFO),
            "%s",
            message,
            extra={
                "plugin": self._handle.name,
                "traceparent": flight.traceparent if flight else "",
                "attributes": dict(attributes),
            },
        )

    def span(self, span: SpanRecord, call_id: str) -> None:
        flight = self._flight(call_id)
        if flight is None:
            return
        start = flight.started_ns + span.start_offset_us * 1000
        attributes = {**span.attributes, "plugin": self._handle.name}
        took = span.duration_us * 1000
        self._parts.tracer.record(
            span.name, flight.traceparent, start, took, attributes, span.error
        )
