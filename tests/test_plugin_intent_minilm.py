"""The matcher: what it takes out of a question, and which tool it names for tools of any author."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_sdk import Call, Plugin, Result
from loom_sdk.models import models_dir

from .support import FakePort, driver_of, load_plugin, run_capability, start

PLUGIN = load_plugin("native", "intent-minilm")
from intent_durations import duration  # type: ignore[import-not-found]  # noqa: E402
from intent_frames import Frames  # type: ignore[import-not-found]  # noqa: E402
from intent_places import place  # type: ignore[import-not-found]  # noqa: E402
from intent_slots import Slots  # type: ignore[import-not-found]  # noqa: E402
from intent_words import number_at, words_of  # type: ignore[import-not-found]  # noqa: E402

LAMP = {
    "name": "lamp.dim",
    "description": "Dim a lamp.",
    "input_schema": {
        "type": "object",
        "properties": {
            "room": {"type": "string", "enum": ["kitchen", "living room", "bedroom"]},
            "percent": {"type": "integer", "minimum": 0, "maximum": 100},
        },
        "required": ["percent"],
    },
    "examples": [
        {"question": "Dim the kitchen to 20.", "arguments": {"room": "kitchen", "percent": 20}},
        {"question": "Set the bedroom lamp to fifty percent.", "arguments": {"percent": 50}},
        {"question": "Make the light 10 percent bright.", "arguments": {"percent": 10}},
        {"question": "The lamp is pretty."},
    ],
}
LETTER = {
    "name": "letter.send",
    "description": "Send a message to somebody.",
    "input_schema": {
        "type": "object",
        "properties": {"text": {"type": "string", "x-extract": True}},
        "required": ["text"],
    },
    "examples": [
        {"question": "Tell Anna that dinner is ready.", "arguments": {"text": "dinner is ready"}},
        {"question": "Send a message saying I am late.", "arguments": {"text": "I am late"}},
        {"question": "Write to Ben that we won.", "arguments": {"text": "we won"}},
    ],
}


class Embedding(FakePort):
    """A host in which embed-minilm answers, and loom.tools lists the tools above."""

    def invoke(self, call: Call) -> Result:
        if call.capability == "loom.tools":
            return Result({"tools": [LAMP, LETTER]})
        self.calls.append(call)
        return run_capability(embedder(), call.capability, call.arguments)


@cache
def embedder() -> Plugin:
    pytest.importorskip("tokenizers", reason="needs loom-host[voice]")
    if not (models_dir() / "minilm-l6-v2").is_dir():
        pytest.skip("needs `loom models pull minilm-l6-v2`")
    plugin = load_plugin("native", "embed-minilm")
    start(plugin)
    return plugin


def match(*texts: str, port: Embedding | None = None, **arguments: Any) -> list[dict[str, Any]]:
    """Each text to one matcher, in turn."""

    async def ask() -> list[dict[str, Any]]:
        driver = driver_of(load_plugin("native", "intent-minilm"), port or Embedding())
        begin, context, _ = driver.lifecycle("start")
        await begin(context)
        bound = driver.capability("intent.match")
        calls = [Call("intent.match", {"text": text, **arguments}) for text in texts]
        return [(await driver.ainvoke(bound, call)).output for call in calls]

    return asyncio.run(ask())


def test_a_tool_of_any_author_is_found_by_its_examples_with_its_arguments() -> None:
    dimmed, sent, talk = match(
        "please dim the living room to thirty five percent",
        "Send Maria a message saying the train leaves at nine.",
        "What is the capital of Sweden?",
    )
    assert dimmed["tool"] == "lamp.dim"
    assert dimmed["arguments"] == {"room": "living room", "percent": 35}
    assert sent["tool"] == "letter.send"
    assert sent["arguments"] == {"text": "the train leaves at nine"}
    assert (talk["tool"], talk["arguments"]) == (None, {})
    assert dimmed["score"] > 0.55 > talk["score"]


def test_what_lacks_a_required_argument_names_it_and_no_tool() -> None:
    (found,) = match("Dim the lamp in the kitchen.")
    assert (found["tool"], found["candidate"]) == (None, "lamp.dim")
    assert found["missing"] == ["percent"]


def test_a_value_beyond_the_limits_of_its_schema_is_none() -> None:
    (found,) = match("Dim the kitchen to 500 percent.")
    assert found["missing"] == ["percent"]


def test_only_the_tools_that_were_given_are_named() -> None:
    given_one = match("Dim the kitchen to 20 percent.", tools=[LETTER])[0]
    assert given_one["tool"] is None
    assert match("Dim the kitchen to 20 percent.", tools=[])[0]["candidate"] is None
    assert match("  ")[0]["tool"] is None


def test_tools_are_learned_once() -> None:
    port = Embedding()
    match("Dim the kitchen to 20.", "Dim the bedroom to 30.", "hello", port=port)
    sizes = [len(call.arguments["texts"]) for call in port.calls]
    assert sizes[-3:] == [1, 1, 1]
    assert sum(size > 1 for size in sizes) == len(sizes) - 3


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("a timer for 5 minutes", 300),
        ("an hour and a half", 5400),
        ("half an hour", 1800),
        ("three quarters of an hour", 2700),
        ("two and a half hours", 9000),
        ("1 hour, 20 minutes and 5 seconds", 4805),
        ("a ninety second countdown", 90),
        ("one minute thirty", 90),
        ("a 2-minute timer", 120),
        ("twenty five minutes", 1500),
        ("a couple of minutes", 120),
        ("no time at all", None),
        ("chapter 5", None),
    ],
)
def test_durations_as_people_say_them(text: str, seconds: float | None) -> None:
    assert duration(words_of(text)) == seconds


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,200", 1200), ("2.5", 2.5), ("three point one four", 3.14), ("ninety-nine", 99),
        ("two hundred and five", 205), ("a hundred", 100), ("one million two thousand", 1_002_000),
        ("seventeen", 17), ("apples", None),
    ],
)  # fmt: skip
def test_numbers_as_people_say_them(text: str, value: float | None) -> None:
    found = number_at(words_of(text), 0)
    assert (found and found[0]) == value


@given(st.integers(min_value=0, max_value=999_999))
def test_a_number_in_figures_is_read_whole(number: int) -> None:
    for text in (f"{number}", f"{number:,}", f"{number}."):
        assert number_at(words_of(text), 0) == (number, 1)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Is it warm in Rome?", "Rome"),
        ("what's the weather in new york today", "new york"),
        ("Will it rain in San Francisco tomorrow morning?", "San Francisco"),
        ("In Oslo, is it warm?", "Oslo"),
        ("Paris, Texas", "Paris, Texas"),
        ("Tokyo's time", "Tokyo"),
        ("how warm is lima", "lima"),
        ("Is it warm?", None),
        ("is it warm this afternoon", None),
    ],
)
def test_places_by_the_words_around_them(text: str, name: str | None) -> None:
    assert place(text, {"warm", "weather", "rain", "time", "how"}) == name


def test_the_wanted_words_end_where_the_examples_end_them() -> None:
    frames = Frames([
        ("Search the web for cheap flights.", "cheap flights"),
        ("Look up old maps online.", "old maps"),
        ("Please search for a good book.", "a good book"),
    ])  # fmt: skip
    assert frames.best("search the web for red shoes") == "red shoes"
    assert frames.best("Could you look up the moon landing online?") == "the moon landing"
    assert frames.best("") == ""


@given(st.text(max_size=80))
def test_whatever_is_said_the_wanted_words_are_a_part_of_it(text: str) -> None:
    frames = Frames([("Note that we won.", "we won")])
    assert frames.best(text) in text
    Slots({"properties": {"n": {"type": "integer"}}, "required": ["n"]}, [], set()).fill(text)
    found = place(text, set())
    assert found is None or found in text
    assert (duration(words_of(text)) or 0) >= 0
