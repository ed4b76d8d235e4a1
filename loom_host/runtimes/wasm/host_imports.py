"""The imports of a guest: the interface `host` of `plugin.wit`, answered by a synchronous port.

The port checks grants and does the work; here values are translated, and whatever the port raises
becomes an `action-error`. Ids of calls come from the host's own `Ticket`, never from the guest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from loom_sdk import Call, Event, Item
from loom_sdk.driver import parse_arguments
from loom_sdk.errors import ActionFailed, ErrorInfo, QuotaExceeded, encode
from loom_sdk.port import SpanRecord

from .ticket import Stopped, Ticket, TicketedPort
from .values import MAX_BINARY, Failed, Ok, Some

EVENT = (
    "record { id: string, type: string, timestamp-ms: s64, source: string, "
    "metadata: list<tuple<string, string>>, payload: list<u8>, confidence: f32, "
    "tags: list<string>, priority: u32, topic: string, traceparent: string, "
    "delivery-attempt: u32 }"
)
ERROR = "record { code: string, message: string, details: string }"
CALL = (
    "record { id: string, capability: string, version: string, arguments: string, "
    "payload: list<u8>, content-type: string, remaining-ms: s64, traceparent: string, "
    "parent-call-id: string }"
)
RESULT = "record { output: string, payload: list<u8>, content-type: string, elapsed-us: s64 }"
_HEADERS = "list<record { name: string, value: string }>"
_HTTP_CALL = (
    f"record {{ method: string, url: string, headers: {_HEADERS}, body: list<u8>, "
    "timeout-ms: s64 }"
)
_HTTP_REPLY = f"record {{ status: u32, headers: {_HEADERS}, body: list<u8> }}"
_PAIRS = "list<tuple<string, string>>"
_SPAN = (
    "record { name: string, start-offset-us: s64, duration-us: s64, "
    f"attributes: {_PAIRS}, error: string }}"
)

SIGNATURES = {
    "publish": f"func(event: {EVENT}) -> result<u32, {ERROR}>",
    "invoke": f"func(call: {CALL}) -> result<{RESULT}, {ERROR}>",
    "emit": f"func(output: string, payload: list<u8>, content-type: string) -> result<_, {ERROR}>",
    "kv-get": f"func(key: string) -> result<option<list<u8>>, {ERROR}>",
    "kv-put": f"func(key: string, value: list<u8>) -> result<_, {ERROR}>",
    "kv-delete": f"func(key: string) -> result<_, {ERROR}>",
    "kv-list": f"func(prefix: string) -> result<list<string>, {ERROR}>",
    "http-request": f"func(call: {_HTTP_CALL}) -> result<{_HTTP_REPLY}, {ERROR}>",
    "log": f"func(level: string, message: string, attributes: {_PAIRS})",
    "span": f"func(span: {_SPAN})",
    "get-secret": f"func(name: string) -> result<string, {ERROR}>",
}
"""Type of every import, as `function_text` writes it. A test holds it to plugin.wit."""


class HostImports:
    """Serves one guest. The port's ticket is that of the call that runs now."""

    def __init__(self, port: TicketedPort, plugin_id: str, output_bytes: int) -> None:
        self._port, self._plugin_id, self._output_bytes = port, plugin_id, output_bytes

    @property
    def ticket(self) -> Ticket:
        return self._port.ticket

    def answer(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """The WIT value that an import returns. Raises Stopped when the call has ended."""
        work = getattr(self, "_" + name.replace("-", "_"))
        if name in ("log", "span"):
            work(*arguments)
            return None
        try:
            return Ok(work(*arguments))
        except Stopped:
            raise
        except Exception as error:
            return Failed(as_record(encode(error)))

    def _publish(self, event: dict[str, Any]) -> int:
        return self._port.publish(event_of(event), self.ticket.call_id)

    def _invoke(self, call: dict[str, Any]) -> dict[str, Any]:
        result = self._port.invoke(
            Call(
                call["capability"],
                parse_arguments(call["arguments"]),
                call["payload"],
                call["content-type"],
                id=call["id"],
                version=call["version"],
                remaining_ms=min(call["remaining-ms"], self.ticket.remaining_ms()),
                traceparent=call["traceparent"] or self.ticket.traceparent,
                parent_call_id=self.ticket.call_id,
            )
        )
        return {
            "output": json.dumps(result.output),
            "payload": _fitting(result.payload),
            "content-type": result.content_type,
            "elapsed-us": result.elapsed_us,
        }

    def _emit(self, output: str, payload: bytes, content_type: str) -> None:
        self.ticket.output_bytes += len(output) + len(payload)
        if self.ticket.output_bytes > self._output_bytes:
            raise QuotaExceeded(
                plugin_id=self._plugin_id,
                quota="output_bytes",
                limit=self._output_bytes,
                used=self.ticket.output_bytes,
            )
        item = Item(json.loads(output or "null"), payload, content_type, self.ticket.elapsed_us())
        self._port.emit(self.ticket.call_id, item)

    def _kv_get(self, key: str) -> Some | None:
        value = self._port.kv_get(key)
        return None if value is None else Some(_fitting(value))

    def _kv_put(self, key: str, value: bytes) -> None:
        self._port.kv_put(key, value)

    def _kv_delete(self, key: str) -> None:
        self._port.kv_delete(key)

    def _kv_list(self, prefix: str) -> list[str]:
        return self._port.kv_list(prefix)

    def _http_request(self, call: dict[str, Any]) -> dict[str, Any]:
        headers = {header["name"]: header["value"] for header in call["headers"]}
        timeout_ms = min(call["timeout-ms"], self.ticket.remaining_ms())
        reply = self._port.http_request(
            call["method"], call["url"], headers, call["body"], timeout_ms
        )
        return {
            "status": reply.status,
            "headers": [{"name": name, "value": text} for name, text in reply.headers.items()],
            "body": _fitting(reply.body),
        }

    def _log(self, level: str, message: str, attributes: list[tuple[str, str]]) -> None:
        self._port.log(level, message, dict(attributes), self.ticket.call_id)

    def _span(self, span: dict[str, Any]) -> None:
        record = SpanRecord(
            span["name"],
            span["start-offset-us"],
            span["duration-us"],
            dict(span["attributes"]),
            span["error"],
        )
        self._port.span(record, self.ticket.call_id)

    def _get_secret(self, name: str) -> str:
        return self._port.get_secret(name)

    def printed(self, stream: str) -> Callable[[bytes], None]:
        """A sink for the guest's stdout or stderr: whole lines go to the plugin's log."""
        rest = b""

        def write(data: bytes) -> None:
            nonlocal rest
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > _LINE_BYTES:
                lines, rest = [*lines, rest], b""
            for line in lines:
                text = line.decode("utf-8", "replace")
                self._port.log("info", text, {"stream": stream}, self.ticket.call_id)

        return write


_LINE_BYTES = 8192


def _fitting(data: bytes) -> bytes:
    if len(data) <= MAX_BINARY:
        return data
    raise ActionFailed(
        f"the answer has {len(data)} bytes, a wasm guest takes at most {MAX_BINARY} at once: "
        "ask for less, or run this plugin in the grpc tier",
        code="TOO_LARGE",
    )


def as_record(info: ErrorInfo) -> dict[str, str]:
    return {"code": info.code, "message": info.message, "details": info.details}


def event_of(record: dict[str, Any]) -> Event:
    """An event as a guest published it."""
    return Event(
        record["type"],
        record["payload"],
        dict(record["metadata"]),
        record["id"],
        record["timestamp-ms"],
        record["source"],
        record["confidence"],
        tuple(record["tags"]),
        record["priority"],
        record["topic"],
        record["traceparent"],
        record["delivery-attempt"],
    )


def event_record(event: Event) -> dict[str, Any]:
    """An event as a guest gets it."""
    return {
        "id": event.id,
        "type": event.type,
        "timestamp-ms": event.timestamp_ms,
        "source": event.source,
        "metadata": list(event.metadata.items()),
        "payload": event.payload,
        "confidence": event.confidence,
        "tags": event.tags,
        "priority": event.priority,
        "topic": event.topic,
        "traceparent": event.traceparent,
        "delivery-attempt": event.delivery_attempt,
    }


def call_record(call: Call) -> dict[str, Any]:
    """A call as a guest gets it."""
    return {
        "id": call.id,
        "capability": call.capability,
        "version": call.version,
        "arguments": json.dumps(call.arguments),
        "payload": call.payload,
        "content-type": call.content_type,
        "remaining-ms": call.remaining_ms,
        "traceparent": call.traceparent,
        "parent-call-id": call.parent_call_id,
    }
