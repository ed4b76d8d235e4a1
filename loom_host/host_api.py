"""What a plugin may ask of the host: one implementation behind all three transports.

Every request is checked against the plugin's grants and audited; who is being served, its trace
and its policy come from the host's own table of calls in flight, never from the plugin.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loom_sdk import Call, Event, Item, Result
from loom_sdk.agent import ACTIONS, STATE
from loom_sdk.errors import CapabilityError, DeadlineExceeded
from loom_sdk.events import PRIORITY_MAX
from loom_sdk.port import HttpResponse, SpanRecord

from .actions import parse_actions
from .broker import Broker
from .bus import MemoryBus
from .discretion import Discretion
from .dispatch import DEFAULT_TIMEOUT_MS, Request
from .grants import Audit
from .handle import InFlight, PluginHandle
from .log_gaps import LogGaps
from .meters import Meters
from .privacy import DEFAULT, NAMES
from .runtimes.base import PluginSpec
from .secret_store import Secrets
from .storage import PluginStore, Store
from .telemetry import Tracer

if TYPE_CHECKING:
    from .egress import Egress

SPAN_BYTES = 100
"""What a span counts in the quota log_bytes, beside its texts: its ids and times."""
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
    egress: Callable[[], Egress]
    """Made at the first use."""
    secrets: Secrets
    tracer: Tracer
    counted: dict[str, PluginStore] = field(default_factory=dict)
    """Storage by plugin id: what is used is counted once, for all instances of a plugin."""

    def storage_of(self, spec: PluginSpec, version: int = 1) -> PluginStore:
        limit, kept = spec.quotas.storage_bytes, self.counted.get(spec.id)
        if kept is None or (kept.limit, kept.version) != (limit, version):
            kept = self.counted[spec.id] = PluginStore(self.store, spec.id, limit, version)
        return kept


class HostApi:
    """The services of one plugin."""

    def __init__(self, parts: HostParts, handle: PluginHandle) -> None:
        self._parts = parts
        self._handle = handle
        self._kv = parts.storage_of(handle.spec, handle.manifest.storage_version)
        self._log = logging.getLogger(f"loom.plugin.{handle.name}")
        self._meters = Meters(handle)
        self._gaps = LogGaps(handle, self._log)
        self._discretion = Discretion(handle, parts.broker)
        handle.labels.open(parts.audit)

    def _check(self, kind: str, value: str, call_id: str = "") -> None:
        self._meters.request(call_id)
        self._parts.audit.check(self._handle.grants, kind, value)

    async def publish(self, event: Event, call_id: str) -> int:
        self._check("publish", event.topic, call_id)
        self._meters.publication(call_id)
        flight = self._meters.flight(call_id)
        stamped = Event(
            event.type,
            event.payload,
            self._discretion.metadata_of(event.metadata, event.topic, call_id),
            source=self._handle.name,
            confidence=min(event.confidence, 1.0) if event.confidence >= 0 else 0.0,  # or NaN
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
        self._check("invoke", call.capability.partition("@")[0], call.parent_call_id)
        parent = self._meters.flight(call.parent_call_id)
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
            level=self._discretion.level(call.parent_call_id),
        )

    async def invoke(self, call: Call) -> Result:
        request = self._request(call)
        request.id = call.id
        return await self._parts.broker.invoke(request)

    async def stream(self, call: Call) -> AsyncIterator[Item]:
        stream = self._parts.broker.stream(self._request(call))
        try:
            async for item in stream:
                yield item
        finally:
            await stream.aclose()  # type: ignore[attr-defined]  # it is an async generator

    async def emit(self, call_id: str, item: Item) -> None:
        flight = self._meters.flight(call_id)
        if flight is None or flight.on_item is None:
            raise CapabilityError(
                f"{self._handle.name} emitted for {call_id!r}, a call it is not serving"
            )
        self._meters.request(call_id)
        limit = self._handle.spec.quotas.output_bytes
        flight.emitted_bytes += len(item.payload) + len(json.dumps(item.output))
        if flight.emitted_bytes > limit:
            raise self._meters.refusal("output_bytes", limit, flight.emitted_bytes, call_id)
        await flight.on_item(item)

    @property
    def _keys(self) -> PluginStore:
        """Its own keys; while it handles an agent's event, as that event sees them."""
        flight = self._meters.serving()
        return self._kv if flight is None or flight.desk is None else flight.desk.keys_of(self._kv)

    async def kv_get(self, key: str) -> bytes | None:
        if key.startswith(STATE):
            return self._told(key[len(STATE) :])
        self._check("storage", "own")
        return self._discretion.read(self._keys, key)

    async def kv_put(self, key: str, value: bytes) -> None:
        if key.startswith((STATE, ACTIONS)):
            self._keep(key, value)
            return
        self._check("storage", "own")
        keys = self._keys
        if not keys.put(key, value, self._discretion.level()):
            used = keys.used() + len(key.encode()) + len(value)
            raise self._meters.refusal("storage_bytes", keys.limit, used, "")
        await self._parts.store.settle()

    def _told(self, served: str) -> bytes | None:
        """What an agent is told of itself as its handler begins."""
        flight = self._handle.inflight.get(served)
        self._meters.request(served if flight is not None else "")
        desk = flight.desk if flight is not None else None
        if flight is None or desk is None:
            return None
        if desk.label > flight.level:
            self._discretion.rise(desk.label, served)
        return desk.read()

    def _keep(self, key: str, value: bytes) -> None:
        """The state or the actions of an agent, until its event is handled."""
        served = key.rpartition("/")[2]
        flight = self._handle.inflight.get(served)
        desk = flight.desk if flight is not None else None
        if flight is None or desk is None:
            raise CapabilityError(f"{self._handle.name} keeps state outside of an agent's event")
        if key.startswith(ACTIONS):
            self._meters.request(served)
            desk.actions = parse_actions(value)
            for action in desk.actions:
                self._parts.audit.check(self._handle.grants, "invoke", action.name)
            self._discretion.rise(self._discretion.level(served), served)
            return
        self._check("storage", "own", served)
        if len(value) > self._kv.limit:
            raise self._meters.refusal("storage_bytes", self._kv.limit, len(value), "")
        desk.write(value, self._handle.labels.asks_at(flight.level))

    async def kv_delete(self, key: str) -> None:
        self._check("storage", "own")
        self._keys.delete(key)
        await self._parts.store.settle()

    async def kv_list(self, prefix: str) -> list[str]:
        self._check("storage", "own")
        return self._discretion.listed(self._keys, prefix)

    async def http_request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout_ms: int
    ) -> HttpResponse:
        self._meters.request()
        self._discretion.check_send(url)
        grants = self._handle.grants
        return await self._parts.egress().request(grants, method, url, headers, body, timeout_ms)

    async def get_secret(self, name: str) -> str:
        self._check("secrets", name)
        return await self._parts.secrets.get(name)

    def log(self, level: str, message: str, attributes: Mapping[str, str], call_id: str) -> None:
        if quota := self._meters.line(len(message), attributes, call_id):
            self._gaps.note(quota)
            return
        self._handle.log_lines.append(self._handle.redactor.text(message))
        flight = self._meters.flight(call_id)
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
        flight = self._meters.flight(call_id)
        size = SPAN_BYTES + len(span.name) + len(span.error)
        if flight is None:
            return
        if not self._meters.text(size, span.attributes):
            self._handle.counters.hit("log_bytes")
            return
        # The plugin's clock is not believed: its span lies within the call, up to now.
        now = time.time_ns()
        start = min(max(flight.started_ns + span.start_offset_us * 1000, flight.started_ns), now)
        took = min(span.duration_us * 1000, now - start)
        attributes = {**span.attributes, "plugin": self._handle.name}
        if (level := max(flight.level, self._discretion.level(call_id))) > DEFAULT:
            attributes["privacy"] = NAMES[level]
        self._parts.tracer.record(
            span.name, flight.traceparent, start, took, attributes, span.error
        )
