"""Tools for models without tool calls: when they choose, what they are asked, what they read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_sdk.engines import Message, ToolSpec
from loom_sdk.errors import ActionFailed, InvalidArguments
from loom_sdk.toolless import ASK, choice, flattened

WEATHER: ToolSpec = {
    "name": "weather.get",
    "description": "Current weather for a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "examples": [{"question": "Is it raining in Rome?", "arguments": {"city": "Rome"}}],
}
NOTES: ToolSpec = {"name": "notes.list", "input_schema": {"type": "object"}}
ASKED: list[Message] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "How warm is it in Oslo?"},
]
CALL: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "1", "name": "weather.get", "arguments": {"city": "Oslo"}}],
}
RESULT: Message = {"role": "tool", "content": "The tool says:\n12", "tool_call_id": "1"}


def test_the_question_is_put_behind_the_tools_own_examples() -> None:
    asked = choice(ASKED, [WEATHER, NOTES])
    assert asked is not None
    assert asked.messages[-1] == {"role": "user", "content": "How warm is it in Oslo?"}
    assert "Is it raining in Rome?" in [message["content"] for message in asked.messages]
    names = [option["properties"]["tool"]["const"] for option in asked.response_schema["oneOf"]]
    assert names == ["weather.get", "notes.list", "none"]


def test_a_choice_becomes_a_call_and_none_becomes_no_call() -> None:
    asked = choice(ASKED, [WEATHER])
    assert asked is not None
    (call,) = asked.calls('{"tool": "weather.get", "arguments": {"city": "Oslo"}}')
    assert (call["name"], call["arguments"]) == ("weather.get", {"city": "Oslo"})
    (other,) = asked.calls('{"tool": "weather.get", "arguments": {"city": "Oslo"}}')
    assert call["id"] != other["id"]
    assert asked.calls('{"tool": "none"}') == []
    with pytest.raises(ActionFailed, match="raise tool_tokens") as raised:
        asked.calls('{"tool": "weather.g')
    assert raised.value.code == "LLM_TOOL_CHOICE"


@pytest.mark.parametrize(
    ("tool_choice", "options"),
    [("required", ["weather.get", "notes.list"]), ("notes.list", ["notes.list"])],
)
def test_a_wanted_tool_leaves_no_way_to_choose_none(tool_choice: str, options: list[str]) -> None:
    asked = choice(ASKED, [WEATHER, NOTES], tool_choice)
    assert asked is not None
    schema = asked.response_schema["oneOf"]
    assert [option["properties"]["tool"]["const"] for option in schema] == options


def test_a_tool_that_is_not_there_cannot_be_wanted() -> None:
    with pytest.raises(InvalidArguments, match="'files.delete' is not among the tools"):
        choice(ASKED, [WEATHER], "files.delete")


def test_there_is_nothing_to_choose_without_tools_or_after_the_last_round() -> None:
    assert choice(ASKED, None) is None
    assert choice(ASKED, []) is None
    assert choice(ASKED, [WEATHER], "none") is None
    answered: list[Message] = [*ASKED, CALL, RESULT]
    assert choice(answered, [WEATHER]) is None
    assert choice(answered, [WEATHER], rounds=2) is not None
    assert choice([*answered, ASKED[1]], [WEATHER]) is not None


def test_results_stand_behind_the_question_that_they_are_for() -> None:
    flat = flattened([*ASKED, CALL, RESULT])
    assert [message["role"] for message in flat] == ["system", "user"]
    assert flat[1]["content"] == f"How warm is it in Oslo?\n\nThe tool says:\n12\n\n{ASK}"
    said: Message = {"role": "assistant", "content": "12 degrees."}
    again: Message = {"role": "user", "content": "And in Rome?"}
    flat = flattened([*ASKED, CALL, RESULT, said, again])
    assert [message["role"] for message in flat] == ["system", "user", "assistant", "user"]
    assert ASK not in json.dumps(flat)


def messages() -> st.SearchStrategy[list[Any]]:
    calls = st.just([{"id": "1", "name": "a.b", "arguments": {}}])
    one = st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "user", "assistant", "tool"]),
            "content": st.text(max_size=8),
        },
        optional={"tool_calls": calls, "tool_call_id": st.just("1")},
    )
    return st.lists(one, max_size=8)


@given(messages())
def test_a_flat_conversation_knows_no_tools_and_loses_no_result(conversation: list[Any]) -> None:
    flat = flattened(conversation)
    assert all(message.keys() == {"role", "content"} for message in flat)
    assert all(message["role"] != "tool" for message in flat)
    text = "\n".join(message["content"] for message in flat)
    assert all(m["content"] in text for m in conversation if m["role"] == "tool")
