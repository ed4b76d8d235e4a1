"""The SDK's dataclasses to the messages of `plugin.proto` and back, for host and child alike."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ._proto import plugin_pb2 as pb
from .calls import Call, Item, Result
from .driver import parse_arguments
from .errors import ActionFailed, InvalidArguments, mapping_of
from .events import Event, QoS
from .plugin import CapabilitySpec, SubscriptionSpec
from .port import HttpResponse, SpanRecord
from .status import error_from_proto, error_to_proto

RUNNING = "running:"
"""Begin of a healthy status message that lists, as JSON, the ids of calls still being served."""


def dumps(value: Any, what: str) -> str:
    """JSON text of a plugin's value, empty for None. Raises ActionFailed naming `what`."""
    if value is None:
        return ""
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ActionFailed(
            f"{what} is not JSON ({error}): return str, numbers, bool, list and dict, "
            "and binary as payload of a Result",
            code="OUTPUT_NOT_JSON",
        ) from error


def loads(text: str, what: str) -> Any:
    """The reverse of `dumps`. Raises ActionFailed naming `what`."""
    if not text:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ActionFailed(f"{what} is not JSON: {error}", code="OUTPUT_NOT_JSON") from error


def event_to_proto(event: Event) -> pb.Event:
    """Raises InvalidArguments when a field has the wrong type."""
    try:
        return pb.Event(
            id=event.id,
            type=event.type,
            timestamp_ms=event.timestamp_ms,
            source=event.source,
            metadata=event.metadata,
            payload=event.payload,
            confidence=event.confidence,
            tags=event.tags,
            priority=event.priority,
            topic=event.topic,
            traceparent=event.traceparent,
            delivery_attempt=event.delivery_attempt,
        )
    except (TypeError, ValueError) as error:
        raise InvalidArguments(
            f"event {event.type!r} cannot be sent: {error}; metadata values are strings, "
            "the payload is bytes, the priority 0 to 100"
        ) from error


def event_from_proto(message: pb.Event) -> Event:
    return Event(
        message.type,
        message.payload,
        dict(message.metadata),
        message.id,
        message.timestamp_ms,
        message.source,
        message.confidence,
        tuple(message.tags),
        message.priority,
        message.topic,
        message.traceparent,
        message.delivery_attempt,
    )


def call_to_proto(call: Call, *, stream: bool = False) -> pb.ActionCall:
    """Raises InvalidArguments when the arguments are not JSON or a field has the wrong type."""
    try:
        return pb.ActionCall(
            id=call.id,
            capability=call.capability,
            version=call.version,
            arguments=json.dumps(call.arguments, allow_nan=False),
            payload=call.payload,
            content_type=call.content_type,
            remaining_ms=call.remaining_ms,
            traceparent=call.traceparent,
            parent_call_id=call.parent_call_id,
            stream=stream,
        )
    except (TypeError, ValueError) as error:
        raise InvalidArguments(f"{call.capability}: call cannot be sent: {error}") from error


def call_from_proto(message: pb.ActionCall) -> Call:
    """Raises InvalidArguments when the arguments are not a JSON object."""
    return Call(
        message.capability,
        parse_arguments(message.arguments),
        message.payload,
        message.content_type,
        message.id,
        message.version,
        message.remaining_ms,
        message.traceparent,
        message.parent_call_id,
    )


def item_to_proto(call_id: str, item: Item) -> pb.ActionResult:
    """Raises ActionFailed when the output is not JSON."""
    return pb.ActionResult(
        call_id=call_id,
        output=dumps(item.output, "an emitted item"),
        payload=item.payload,
        content_type=item.content_type,
        item=True,
        elapsed_us=item.elapsed_us,
    )


def item_from_proto(message: pb.ActionResult | pb.EmitRequest) -> Item:
    output = loads(message.output, "an emitted item")
    return Item(output, message.payload, message.content_type, message.elapsed_us)


def emit_to_proto(call_id: str, item: Item) -> pb.EmitRequest:
    return pb.EmitRequest(
        call_id=call_id,
        output=dumps(item.output, "an emitted item"),
        payload=item.payload,
        content_type=item.content_type,
        elapsed_us=item.elapsed_us,
    )


def result_to_proto(call_id: str, result: Result) -> pb.ActionResult:
    """Without `items`, which travel as messages of their own. Raises ActionFailed."""
    return pb.ActionResult(
        call_id=call_id,
        output=dumps(result.output, "the result"),
        payload=result.payload,
        content_type=result.content_type,
        elapsed_us=result.elapsed_us,
        provider=result.provider,
    )


def result_from_proto(message: pb.ActionResult) -> Result:
    """Raises what the message carries when it carries an error."""
    if message.status != pb.ACTION_OK or message.HasField("error"):
        raise error_from_proto(message.error)
    return Result(
        loads(message.output, "the result"),
        message.payload,
        message.content_type,
        message.elapsed_us,
        provider=message.provider,
    )


def failure_to_proto(call_id: str, error: BaseException, elapsed_us: int = 0) -> pb.ActionResult:
    """The last message of a call that failed."""
    status = getattr(pb, mapping_of(error).status)
    return pb.ActionResult(
        call_id=call_id, status=status, error=error_to_proto(error), elapsed_us=elapsed_us
    )


def response_to_proto(error: BaseException | None, elapsed_us: int) -> pb.PluginResponse:
    """Answer to an event or a shutdown."""
    if error is None:
        return pb.PluginResponse(elapsed_us=elapsed_us)
    status = getattr(pb, mapping_of(error).status)
    return pb.PluginResponse(status=status, error=error_to_proto(error), elapsed_us=elapsed_us)


def response_from_proto(message: pb.PluginResponse) -> int:
    """Microseconds inside the plugin. Raises what the message carries."""
    if message.status != pb.ACTION_OK or message.HasField("error"):
        raise error_from_proto(message.error)
    return int(message.elapsed_us)


def capability_to_proto(spec: CapabilitySpec) -> pb.CapabilityDescriptor:
    return pb.CapabilityDescriptor(
        name=spec.name,
        description=spec.description,
        tool=spec.tool,
        effects=spec.effects,
        input_schema=dumps(spec.input_schema, "an input schema"),
        output_schema=dumps(spec.output_schema, "an output schema"),
        resumable=spec.resumable,
        version=spec.version,
    )


def capability_from_proto(message: pb.CapabilityDescriptor) -> CapabilitySpec:
    """Examples stay in the manifest and do not travel."""
    effects: Any = message.effects if message.effects in ("none", "idempotent") else "once"
    return CapabilitySpec(
        message.name,
        message.description,
        message.tool,
        effects,
        loads(message.input_schema, f"input schema of {message.name}"),
        loads(message.output_schema, f"output schema of {message.name}"),
        message.resumable,
        message.version,
    )


def subscription_to_proto(spec: SubscriptionSpec) -> pb.SubscriptionDescriptor:
    return pb.SubscriptionDescriptor(
        topic=spec.topic,
        qos=pb.QoSLevel.Name(spec.qos),
        types=spec.types,
        concurrency=spec.concurrency,
    )


def subscription_from_proto(message: pb.SubscriptionDescriptor) -> SubscriptionSpec:
    known = {int(qos): qos for qos in QoS}
    qos = known.get(int(message.qos), QoS.BATCHED)
    return SubscriptionSpec(message.topic, qos, tuple(message.types), message.concurrency or 1)


def http_to_proto(response: HttpResponse) -> pb.HttpReply:
    return pb.HttpReply(
        status=response.status, headers=headers_to_proto(response.headers), body=response.body
    )


def http_from_proto(message: pb.HttpReply) -> HttpResponse:
    return HttpResponse(message.status, headers_from_proto(message.headers), message.body)


def headers_to_proto(headers: Any) -> list[pb.HttpHeader]:
    return [pb.HttpHeader(name=name, value=value) for name, value in headers.items()]


def headers_from_proto(messages: Iterable[pb.HttpHeader]) -> dict[str, str]:
    return {header.name: header.value for header in messages}


def span_to_proto(span: SpanRecord, call_id: str) -> pb.SpanRecord:
    return pb.SpanRecord(
        call_id=call_id,
        name=span.name,
        start_offset_us=span.start_offset_us,
        duration_us=span.duration_us,
        attributes=span.attributes,
        error=span.error,
    )


def span_from_proto(message: pb.SpanRecord) -> SpanRecord:
    return SpanRecord(
        message.name,
        message.start_offset_us,
        message.duration_us,
        dict(message.attributes),
        message.error,
    )


def size_of(message: Any) -> int:
    """Bytes of JSON and payload in one message of an answer, as quota output_bytes counts them."""
    text = message.output
    return len(message.payload) + (len(text) if text.isascii() else len(text.encode()))


def running_text(ids: Iterable[str]) -> str:
    """Message of a healthy status: which calls are being served, empty for none."""
    listed = list(ids)
    return RUNNING + json.dumps(listed) if listed else ""


def running_ids(message: str) -> frozenset[str]:
    """The reverse; a child that does not report its calls counts as idle."""
    if not message.startswith(RUNNING):
        return frozenset()
    try:
        ids = json.loads(message[len(RUNNING) :])
    except ValueError:
        return frozenset()
    return frozenset(map(str, ids)) if isinstance(ids, list) else frozenset()
