"""The host as a wasm guest reaches it: `Port` over the imports of `plugin.wit`.

Importable only in a guest, as `guest`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from componentize_py_types import Err  # type: ignore[import-not-found]  # only in a guest
from wit_world.imports import host, types  # type: ignore[import-not-found]  # only in a guest

from .calls import Call, Item, Result
from .errors import ActionFailed, ErrorInfo, decode
from .events import Event
from .port import HttpResponse, SpanRecord


class HostPort:
    """`Port` over the imports of `plugin.wit`."""

    def publish(self, event: Event, call_id: str) -> int:
        with _host_errors():
            return int(host.publish(_to_wit(event)))

    def invoke(self, call: Call) -> Result:
        with _host_errors():
            answer = host.invoke(
                types.ActionCall(
                    id=call.id,
                    capability=call.capability,
                    version=call.version,
                    arguments=json.dumps(call.arguments),
                    payload=call.payload,
                    content_type=call.content_type,
                    remaining_ms=call.remaining_ms,
                    traceparent=call.traceparent,
                    parent_call_id=call.parent_call_id,
                )
            )
        return Result(
            json.loads(answer.output or "null"),
            answer.payload,
            answer.content_type,
            answer.elapsed_us,
        )

    def stream(self, call: Call) -> Iterator[Item]:
        raise ActionFailed(
            f"cannot stream {call.capability} into a wasm guest: use ctx.invoke, or run this "
            "plugin in the native or grpc tier",
            code="UNSUPPORTED",
        )

    def emit(self, call_id: str, item: Item) -> None:
        with _host_errors():
            host.emit(json.dumps(item.output), item.payload, item.content_type)

    def kv_get(self, key: str) -> bytes | None:
        with _host_errors():
            value: bytes | None = host.kv_get(key)
        return value

    def kv_put(self, key: str, value: bytes) -> None:
        with _host_errors():
            host.kv_put(key, value)

    def kv_delete(self, key: str) -> None:
        with _host_errors():
            host.kv_delete(key)

    def kv_list(self, prefix: str) -> list[str]:
        with _host_errors():
            return list(host.kv_list(prefix))

    def http_request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout_ms: int
    ) -> HttpResponse:
        sent = [types.HttpHeader(name=name, value=value) for name, value in headers.items()]
        with _host_errors():
            reply = host.http_request(
                types.HttpCall(
                    method=method, url=url, headers=sent, body=body, timeout_ms=timeout_ms
                )
            )
        received = {header.name: header.value for header in reply.headers}
        return HttpResponse(reply.status, received, reply.body)

    def log(self, level: str, message: str, attributes: Mapping[str, str], call_id: str) -> None:
        host.log(level, message, list(attributes.items()))

    def span(self, span: SpanRecord, call_id: str) -> None:
        host.span(
            types.SpanRecord(
                name=span.name,
                start_offset_us=span.start_offset_us,
                duration_us=span.duration_us,
                attributes=list(span.attributes.items()),
                error=span.error,
            )
        )

    def get_secret(self, name: str) -> str:
        with _host_errors():
            return str(host.get_secret(name))


class _host_errors:
    """Turns an `action-error` of the host into the exception it stands for."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Err):
            value = error.value
            raise decode(ErrorInfo(value.code, value.message, value.details)) from None


def _to_wit(event: Event) -> Any:
    return types.Event(
        id=event.id,
        type=event.type,
        timestamp_ms=event.timestamp_ms,
        source=event.source,
        metadata=list(event.metadata.items()),
        payload=event.payload,
        confidence=event.confidence,
        tags=list(event.tags),
        priority=event.priority,
        topic=event.topic,
        traceparent=event.traceparent,
        delivery_attempt=event.delivery_attempt,
    )
