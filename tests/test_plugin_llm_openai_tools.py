"""llm-openai and tools: calls as clouds and local servers send them, in both dialects."""

from __future__ import annotations

import json
import tomllib
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_host.schema_compare import input_differences
from loom_sdk.errors import ActionFailed, InvalidArguments
from loom_sdk.plugin import declared_capabilities
from tests.llm_server import CHAT, HELLO, RESPONSES, Reply, Server, ask, server, sse
from tests.support import ROOT, FakePort, load_plugin

__all__ = ["server"]
plugin = load_plugin("native", "llm-openai")  # puts its folder on the path

import llm_openai_parts as parts  # type: ignore[import-not-found]  # noqa: E402
import llm_openai_wire as wire  # type: ignore[import-not-found]  # noqa: E402

SUM = {
    "name": "calculator.evaluate",
    "description": "Work out a sum.",
    "input_schema": {"type": "object", "properties": {"expression": {"type": "string"}}},
    "examples": [{"question": "What is 3 plus 4?", "arguments": {"expression": "3 plus 4"}}],
}
WEATHER = {"name": "weather.get", "input_schema": {"type": "object"}}
JSON_TYPE = "application/json"
TOOLS = {"tools": [SUM, WEATHER]}


def chunk(calls: list[dict[str, Any]], finish: str | None = None) -> dict[str, Any]:
    delta: dict[str, Any] = {"tool_calls": calls} if calls else {}
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {"id": "chatcmpl-2", "object": "chat.completion.chunk", "choices": [choice]}


def begun(index: int, id: str, name: str) -> dict[str, Any]:
    function = {"name": name, "arguments": ""}
    return {"index": index, "id": id, "type": "function", "function": function}


def more(index: int, arguments: str) -> dict[str, Any]:
    return {"index": index, "function": {"arguments": arguments}}


# Chat Completions: one call after the other, arguments in pieces, ids only at their begin.
CHAT_CALLS = sse(
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": None}}]},
    chunk([begun(0, "call_a", "calculator_evaluate")]),
    chunk([more(0, '{"expr')]),
    chunk([more(0, 'ession":"12 * 9"}')]),
    chunk([begun(1, "call_b", "weather_get")]),
    chunk([more(1, '{"city": "Rome"}')]),
    chunk([], "tool_calls"),
    {"choices": [], "usage": {"prompt_tokens": 2000, "completion_tokens": 500}},
    "[DONE]",
)


def item(number: int, name: str, arguments: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"fc_{number}", "type": "function_call", "status": "completed", "name": name,
        "call_id": f"call_{'ab'[number]}", "arguments": arguments, **more,
    }  # fmt: skip


ITEMS = [
    item(0, "calculator_evaluate", '{"expression":"12 * 9"}'),
    item(1, "weather_get", '{"city": "Rome"}'),
]
USED = {"input_tokens": 2000, "output_tokens": 500, "total_tokens": 2500}
# Responses: an item is announced, its arguments stream, then it is there whole.
RESPONSE_CALLS = sse(
    {"type": "response.created", "response": {"id": "resp_2", "status": "in_progress"}},
    {"type": "response.output_item.added", "output_index": 0, "item": ITEMS[0] | {"arguments": ""}},
    {"type": "response.function_call_arguments.delta", "item_id": "fc_0", "output_index": 0,
     "delta": '{"expression":'},
    {"type": "response.function_call_arguments.delta", "item_id": "fc_0", "output_index": 0,
     "delta": '"12 * 9"}'},
    {"type": "response.function_call_arguments.done", "item_id": "fc_0", "output_index": 0,
     "arguments": '{"expression":"12 * 9"}'},
    {"type": "response.output_item.done", "output_index": 0, "item": ITEMS[0]},
    {"type": "response.output_item.done", "output_index": 1, "item": ITEMS[1]},
    {"type": "response.completed", "response": {
        "id": "resp_2", "status": "completed", "output": ITEMS, "usage": USED}},
    named=True,
)  # fmt: skip
WANTED = [
    {"id": "call_a", "name": "calculator.evaluate", "arguments": {"expression": "12 * 9"}},
    {"id": "call_b", "name": "weather.get", "arguments": {"city": "Rome"}},
]


@pytest.mark.parametrize(
    ("path", "body"), [("chat/completions", CHAT_CALLS), ("responses", RESPONSE_CALLS)]
)
def test_parallel_calls_come_whole_and_by_their_own_names(
    server: Server, path: str, body: bytes
) -> None:
    server.answer(path, Reply(body))
    port = FakePort()
    output = ask(server.url, TOOLS, port=port, price_input=3, price_output=15)[0].output
    assert output["tool_calls"] == WANTED
    assert (output["finish_reason"], output["text"]) == ("tool_calls", "")
    assert output["usage"] == {"input_tokens": 2000, "output_tokens": 500, "cost": 0.0135}
    assert port.items == []


def test_the_tools_are_described_in_each_dialects_own_way(server: Server) -> None:
    server.answer("responses", Reply(RESPONSES))
    server.answer("chat/completions", Reply(CHAT))
    ask(server.url, TOOLS | {"tool_choice": "required"}, api="responses", parallel_tool_calls="off")
    ask(server.url, TOOLS | {"tool_choice": "weather.get"}, api="chat")
    first, second = (body for _, _, body in server.asked)
    described = {
        "name": "calculator_evaluate", "description": "Work out a sum.",
        "parameters": SUM["input_schema"],
    }  # fmt: skip
    assert first["tools"][0] == {"type": "function", "strict": False, **described}
    assert (first["tool_choice"], first["parallel_tool_calls"]) == ("required", False)
    assert second["tools"][0] == {"type": "function", "function": described}
    assert second["tool_choice"] == {"type": "function", "function": {"name": "weather_get"}}
    assert "parallel_tool_calls" not in second


def test_results_go_back_beside_their_calls(server: Server) -> None:
    server.answer("responses", Reply(RESPONSES))
    server.answer("chat/completions", Reply(CHAT))
    conversation = [
        *HELLO,
        {"role": "assistant", "content": "", "tool_calls": WANTED[:1]},
        {"role": "tool", "content": "108", "tool_call_id": "call_a"},
    ]
    for api in ("responses", "chat"):
        ask(server.url, {"messages": conversation, **TOOLS}, api=api)
    arguments = '{"expression": "12 * 9"}'
    first, second = (body for _, _, body in server.asked)
    assert first["input"][1:] == [
        {"type": "function_call", "call_id": "call_a", "name": "calculator_evaluate",
         "arguments": arguments},
        {"type": "function_call_output", "call_id": "call_a", "output": "108"},
    ]  # fmt: skip
    function = {"name": "calculator_evaluate", "arguments": arguments}
    call = {"id": "call_a", "type": "function", "function": function}
    assert second["messages"][1:] == [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "108", "tool_call_id": "call_a"},
    ]


def test_calls_of_local_servers_are_understood(server: Server) -> None:
    """Ollama sends a call in one chunk, the arguments as an object; llama.cpp numbers no items."""
    whole = {"id": "call_x", "function": {"name": "weather_get", "arguments": {"city": "Rome"}}}
    twin = {"id": "call_y", "function": {"name": "weather_get", "arguments": {"city": "Oslo"}}}
    server.answer("chat/completions", Reply(sse(chunk([whole]), chunk([twin]), chunk([], "stop"))))
    output = ask(server.url, TOOLS, api="chat")[0].output
    assert [call["arguments"]["city"] for call in output["tool_calls"]] == ["Rome", "Oslo"]
    assert output["finish_reason"] == "tool_calls"
    bare = {"type": "function_call", "call_id": "fc_1", "name": "weather_get", "arguments": "{}"}
    server.answer("responses", Reply(sse(
        {"type": "response.output_item.added", "item": bare | {"arguments": ""}},
        {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "delta": "{}"},
        {"type": "response.output_item.done", "item": bare},
        {"type": "response.completed", "response": {"output": [bare], "usage": USED}},
        named=True,
    )))  # fmt: skip
    (call,) = ask(server.url, TOOLS, api="responses")[0].output["tool_calls"]
    assert call == {"id": "fc_1", "name": "weather.get", "arguments": {}}


def test_a_whole_document_holds_calls_too(server: Server) -> None:
    function = {"name": "weather_get", "arguments": '{"city": "Rome"}'}
    message = {"content": None, "tool_calls": [{"id": "call_b", "function": function}]}
    document = {"choices": [{"message": message, "finish_reason": "tool_calls"}]}
    server.answer("chat/completions", Reply(json.dumps(document).encode(), content_type=JSON_TYPE))
    assert ask(server.url, TOOLS, api="chat")[0].output["tool_calls"] == WANTED[1:]
    answer = {"status": "completed", "output": ITEMS, "usage": USED}
    server.answer("responses", Reply(json.dumps(answer).encode(), content_type=JSON_TYPE))
    assert ask(server.url, TOOLS, api="responses")[0].output["tool_calls"] == WANTED


@pytest.mark.parametrize("text", ['{"city": "Ro', "[1]", "Rome", '"x"'])
def test_arguments_that_are_no_object_are_told_as_they_came(server: Server, text: str) -> None:
    calls = [begun(0, "call_a", "weather_get"), more(0, text)]
    server.answer("chat/completions", Reply(sse(*(chunk([c]) for c in calls), chunk([], "length"))))
    output = ask(server.url, TOOLS, api="chat")[0].output
    assert output["tool_calls"] == [
        {"id": "call_a", "name": "weather.get", "arguments": {}, "invalid": text}
    ]
    assert output["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("reason", "finish"), [("max_output_tokens", "length"), ("content_filter", "content_filter")]
)
def test_an_answer_that_was_cut_says_why(server: Server, reason: str, finish: str) -> None:
    cut = {"status": "incomplete", "incomplete_details": {"reason": reason}, "usage": USED}
    server.answer("responses", Reply(sse(
        {"type": "response.output_text.delta", "delta": "Good"},
        {"type": "response.incomplete", "response": cut}, named=True,
    )))  # fmt: skip
    output = ask(server.url, {})[0].output
    assert (output["text"], output["finish_reason"]) == ("Good", finish)


def test_a_stream_that_breaks_within_a_call_is_tried_again_and_nothing_of_it_kept(
    server: Server,
) -> None:
    torn = sse(chunk([begun(0, "call_a", "weather_get")]), chunk([more(0, '{"city"')]))
    server.answer("chat/completions", Reply(torn), Reply(torn, cut=True), Reply(CHAT_CALLS))
    assert ask(server.url, TOOLS, api="chat")[0].output["tool_calls"] == WANTED
    assert len(server.asked) == 3


def test_a_text_that_breaks_off_is_no_answer(server: Server) -> None:
    server.answer("chat/completions", Reply(CHAT[: CHAT.index(b"day.") + 20]))
    with pytest.raises(ActionFailed) as raised:
        ask(server.url, {}, api="chat")
    assert raised.value.code == "LLM_BAD_RESPONSE"


def test_a_tool_choice_that_was_not_offered_is_refused(server: Server) -> None:
    with pytest.raises(InvalidArguments, match=r"'files.delete' is not among the tools"):
        ask(server.url, TOOLS | {"tool_choice": "files.delete"})
    assert server.asked == []


def chosen(choice: dict[str, Any]) -> Reply:
    message = {"choices": [{"delta": {"content": json.dumps(choice)}, "finish_reason": "stop"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}
    return Reply(sse(message, usage, "[DONE]"))


def test_a_model_without_tool_calls_chooses_by_schema(server: Server) -> None:
    call = {"tool": "calculator.evaluate", "arguments": {"expression": "12 * 9"}}
    server.answer("chat/completions", chosen(call))
    port = FakePort()
    output = ask(server.url, TOOLS, port=port, api="chat", tool_calls="constrained")[0].output
    assert [(c["name"], c["arguments"]) for c in output["tool_calls"]] == [
        ("calculator.evaluate", {"expression": "12 * 9"})
    ]
    assert (output["text"], output["finish_reason"], port.items) == ("", "tool_calls", [])
    body = server.asked[0][2]
    assert "tools" not in body
    assert body["response_format"]["json_schema"]["schema"]["oneOf"]
    assert (body["temperature"], body["max_tokens"]) == (0.0, 64)


def test_a_model_that_chose_none_answers_in_words_and_both_are_counted(server: Server) -> None:
    server.answer("chat/completions", chosen({"tool": "none"}), Reply(CHAT))
    port = FakePort()
    output = ask(server.url, TOOLS, port=port, api="chat", tool_calls="constrained")[0].output
    assert (output["text"], output["tool_calls"]) == ("Good day.", [])
    assert output["usage"]["input_tokens"] == 16
    assert len(port.items) == 2
    assert "response_format" not in server.asked[1][2]


def test_a_choice_that_cannot_be_read_is_typed(server: Server) -> None:
    server.answer("chat/completions", chosen({"tool": "files.delete", "arguments": {}}))
    with pytest.raises(ActionFailed, match=r"files.delete") as raised:
        ask(server.url, TOOLS, api="chat", tool_calls="constrained")
    assert raised.value.code == "LLM_TOOL_CHOICE"


# -- the pure parts

NAMES = st.lists(st.text("ab._-é ", max_size=70), max_size=6)


@given(NAMES)
def test_every_name_comes_back_and_fits_the_clouds(names: list[str]) -> None:
    known = parts.Names(names)
    sent = {name: known.wire(name) for name in names}
    assert len(set(sent.values())) == len(sent)
    for name, short in sent.items():
        assert known.own(short) == name
        assert 1 <= len(short) <= 64
        assert set(short) <= set("ab_-0123456789")
    assert known.own("never sent") == "never sent"


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=9)), st.lists(st.integers(0, 200)))
def test_a_call_is_the_same_however_it_is_cut(arguments: dict[str, str], cuts: list[int]) -> None:
    text = json.dumps(arguments)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    calls = parts.Calls()
    for begin, end in pairwise(places):
        function = {"name": "a_b" if begin == 0 else "", "arguments": text[begin:end]}
        entry = {"index": 0, "id": "1" if begin == 0 else None, "function": function}
        event = json.dumps({"choices": [{"delta": {"tool_calls": [entry]}}]})
        calls.take(wire.parse_event(event, "chat").calls)
    whole = [{"id": "1", "name": "a.b", "arguments": arguments}]
    assert calls.complete(parts.Names(["a.b"])) == whole


KEYS = [
    "type", "choices", "delta", "message", "content", "tool_calls", "function", "error", "usage",
    "item", "output", "response", "index", "id",
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=12,
)
KINDS = ["response.output_item.done", "response.completed", "response.failed", "error", ""]


@given(st.dictionaries(st.sampled_from(["choices", "error", "item", "response", "usage"]), JSON),
       st.sampled_from(KINDS), st.sampled_from(["chat", "responses"]))  # fmt: skip
def test_no_event_whatever_it_holds_raises_what_is_not_caught(
    event: dict[str, Any], kind: str, dialect: str
) -> None:
    for parse in (wire.parse_event, wire.parse_document):
        try:
            piece = parse(json.dumps({"type": kind, **event}), dialect)
        except (ValueError, AttributeError, TypeError, IndexError, KeyError):
            continue
        assert isinstance(piece.delta, str)
        assert piece.usage is None or all(isinstance(count, int) for count in piece.usage)


def test_both_providers_keep_one_contract_and_their_code_agrees() -> None:
    tables = []
    for tier, name in (("native", "llm-openai"), ("grpc", "llm-local")):
        manifest = tomllib.loads((ROOT / "plugins" / tier / name / "plugin.toml").read_text())
        (table,) = (item for item in manifest["capability"] if item["name"] == "llm.chat")
        spec = declared_capabilities(type(load_plugin(tier, name)))["llm.chat"].spec
        assert input_differences(table["input"], spec.input_schema) == []
        assert table["description"] == spec.description
        table.pop("examples", None)  # of each model its own
        tables.append(table)
    assert tables[0] == tables[1]
