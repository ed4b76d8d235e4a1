"""Whatever the SDK's dataclasses hold survives the wire; whatever is malformed is a typed error."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_sdk import Call, Event, Item, QoS, Result, wire
from loom_sdk._proto import plugin_pb2 as pb
from loom_sdk.errors import TABLE, ActionFailed, InvalidArguments, LoomError, QuotaExceeded
from loom_sdk.plugin import CapabilitySpec, SubscriptionSpec
from loom_sdk.port import HttpResponse, SpanRecord
from loom_sdk.status import ERROR_KEY, error_from_proto, error_from_status, error_to_proto

texts = st.text(max_size=20)
blobs = st.binary(max_size=50)
uint32 = st.integers(0, 2**32 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)
pairs = st.dictionaries(texts, texts, max_size=4)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
events = st.builds(
    Event,
    type=texts,
    payload=blobs,
    metadata=pairs,
    id=texts,
    timestamp_ms=int64,
    source=texts,
    confidence=st.floats(0, 1, width=32),
    tags=st.lists(texts, max_size=3).map(tuple),
    priority=st.integers(0, 100),
    topic=texts,
    traceparent=texts,
    delivery_attempt=uint32,
)
calls = st.builds(
    Call,
    capability=texts,
    arguments=st.dictionaries(texts, json_values, max_size=3),
    payload=blobs,
    content_type=texts,
    id=texts,
    version=texts,
    remaining_ms=int64,
    traceparent=texts,
    parent_call_id=texts,
)
items = st.builds(Item, output=json_values, payload=blobs, content_type=texts, elapsed_us=int64)
results = st.builds(
    Result,
    output=json_values,
    payload=blobs,
    content_type=texts,
    elapsed_us=int64,
    provider=texts,
    items=st.just([]),
)


def over_the_wire(message: Any) -> Any:
    return type(message).FromString(message.SerializeToString())


@given(events)
def test_events(event: Event) -> None:
    assert wire.event_from_proto(over_the_wire(wire.event_to_proto(event))) == event


@given(calls, st.booleans())
def test_calls(call: Call, stream: bool) -> None:
    message = over_the_wire(wire.call_to_proto(call, stream=stream))
    assert wire.call_from_proto(message) == call
    assert message.stream is stream


@given(texts, items)
def test_items_as_results_and_as_emits(call_id: str, item: Item) -> None:
    message = over_the_wire(wire.item_to_proto(call_id, item))
    assert message.item
    assert message.call_id == call_id
    assert wire.item_from_proto(message) == item
    assert wire.item_from_proto(over_the_wire(wire.emit_to_proto(call_id, item))) == item


@given(texts, results)
def test_results(call_id: str, result: Result) -> None:
    message = over_the_wire(wire.result_to_proto(call_id, result))
    assert not message.item
    assert wire.result_from_proto(message) == result
    assert wire.size_of(message) == len(message.output.encode()) + len(result.payload)


@given(
    st.builds(
        CapabilitySpec,
        name=texts,
        description=texts,
        tool=st.booleans(),
        effects=st.sampled_from(["none", "idempotent", "once"]),
        input_schema=st.none() | st.dictionaries(texts, json_values, max_size=3),
        output_schema=st.none() | st.dictionaries(texts, json_values, max_size=3),
        resumable=st.booleans(),
        version=texts,
        examples=st.just(()),
    )
)
def test_capabilities(spec: CapabilitySpec) -> None:
    assert wire.capability_from_proto(over_the_wire(wire.capability_to_proto(spec))) == spec


@given(
    st.builds(
        SubscriptionSpec,
        topic=texts,
        qos=st.sampled_from(QoS),
        types=st.lists(texts, max_size=3).map(tuple),
        concurrency=st.integers(1, 2**32 - 1),
    )
)
def test_subscriptions(spec: SubscriptionSpec) -> None:
    assert wire.subscription_from_proto(over_the_wire(wire.subscription_to_proto(spec))) == spec


def test_what_another_language_may_leave_out() -> None:
    assert wire.capability_from_proto(pb.CapabilityDescriptor(name="x")).effects == "once"
    assert wire.subscription_from_proto(pb.SubscriptionDescriptor(topic="x")).concurrency == 1
    unknown = pb.SubscriptionDescriptor.FromString(b"\x10\x63")  # qos 99, of a later version
    assert wire.subscription_from_proto(unknown).qos is QoS.BATCHED
    assert wire.call_from_proto(pb.ActionCall(capability="x")).arguments == {}
    assert wire.result_from_proto(pb.ActionResult()).output is None
    later = pb.Event.FromString(pb.Event(id="x").SerializeToString() + b"\xfa\x3f\x01y")
    assert wire.event_from_proto(later).id == "x"


@given(st.builds(HttpResponse, st.integers(0, 999), pairs, blobs))
def test_http_responses(response: HttpResponse) -> None:
    assert wire.http_from_proto(over_the_wire(wire.http_to_proto(response))) == response


@given(st.builds(SpanRecord, texts, int64, int64, pairs, texts), texts)
def test_spans(span: SpanRecord, call_id: str) -> None:
    message = over_the_wire(wire.span_to_proto(span, call_id))
    assert wire.span_from_proto(message) == span
    assert message.call_id == call_id


@given(st.sampled_from(list(TABLE)), st.text(max_size=30))
def test_errors_survive_in_answers_and_as_status(kind: type[LoomError], text: str) -> None:
    error = kind(text)
    message = over_the_wire(wire.failure_to_proto("id", error, 5))
    with pytest.raises(LoomError) as caught:
        wire.result_from_proto(message)
    assert caught.value.message == error.message
    trailing = ((ERROR_KEY, error_to_proto(error).SerializeToString()),)
    again = error_from_status("UNKNOWN", "unused", trailing)
    assert type(again) is type(caught.value)
    assert again.details() == caught.value.details() == error.details()


def test_quotas_and_own_codes_survive() -> None:
    quota = QuotaExceeded(plugin_id="a/b", quota="memory", limit=10, used=12.5)
    again = error_from_proto(over_the_wire(error_to_proto(quota)))
    assert isinstance(again, QuotaExceeded)
    assert (again.quota, again.limit, again.used) == ("memory", 10, 12.5)
    own = error_from_proto(error_to_proto(ActionFailed("no voice", code="TTS_SYNTH_ERROR")))
    assert isinstance(own, ActionFailed)
    assert own.code == "TTS_SYNTH_ERROR"


def test_events_are_acknowledged_or_refused() -> None:
    assert wire.response_from_proto(wire.response_to_proto(None, 7)) == 7
    with pytest.raises(ActionFailed, match="ValueError: bad"):
        wire.response_from_proto(wire.response_to_proto(ValueError("bad"), 7))


@given(st.binary(max_size=40))
def test_a_broken_error_falls_back_to_the_status(data: bytes) -> None:
    error = error_from_status("NOT_FOUND", "text", ((ERROR_KEY, data),))
    assert isinstance(error, LoomError)


@given(st.text(max_size=40))
def test_malformed_json_is_a_typed_error(text: str) -> None:
    with suppress(InvalidArguments):
        arguments = wire.call_from_proto(pb.ActionCall(arguments=text)).arguments
        assert isinstance(arguments, dict)
    with suppress(ActionFailed):
        wire.result_from_proto(pb.ActionResult(output=text))


@pytest.mark.parametrize("value", [object(), {1, 2}, math.nan, {"x": math.inf}, b"bytes"])
def test_an_output_that_is_not_json_says_so(value: Any) -> None:
    with pytest.raises(ActionFailed, match="the result is not JSON"):
        wire.result_to_proto("id", Result(value))
    with pytest.raises(InvalidArguments, match="cannot be sent"):
        wire.call_to_proto(Call("x", {"value": value}))


@pytest.mark.parametrize(
    "fields", [{"metadata": {"a": 1}}, {"payload": "text"}, {"priority": -1}, {"tags": (1,)}]
)
def test_an_event_with_a_wrong_type_says_so(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidArguments, match="event 'kind' cannot be sent"):
        wire.event_to_proto(Event("kind", **fields))


@given(st.lists(texts, max_size=5))
def test_running_calls_are_listed_in_a_healthy_status(ids: list[str]) -> None:
    assert wire.running_ids(wire.running_text(ids)) == set(ids)


@given(texts)
def test_any_other_status_message_means_idle(text: str) -> None:
    assert wire.running_ids(text) == set()
    assert isinstance(wire.running_ids(wire.RUNNING + text), frozenset)
