"""What the voice agent does with texts: cutting them for speech, checking and stating results."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import voice_agent_host  # puts the plugin's folder on the path

assert voice_agent_host.FOLDER.is_dir()
split = import_module("voice_agent_split")
words = import_module("voice_agent_words")
consent_module = import_module("voice_agent_consent")


def pieces_of(portions: list[str]) -> list[str]:
    splitter = split.Splitter()
    pieces: list[str] = [part for portion in portions for part in splitter.feed(portion)]
    pieces += splitter.finish()
    return pieces


TEXTS = st.text(alphabet="aB1 .,!?;:\n…\"')-e", max_size=300) | st.text(max_size=300)


@given(TEXTS)
def test_pieces_joined_are_the_text_however_it_is_portioned(text: str) -> None:
    pieces = pieces_of([text])
    assert "".join(pieces) == text
    assert pieces_of(list(text)) == pieces
    assert all(0 < len(piece) <= 240 for piece in pieces)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Yes. No.", ["Yes. ", "No."]),
        ("Pi is 3.14, about. Fine.", ["Pi is 3.14, ", "about. ", "Fine."]),
        ("Yes, it is so, and so, on.", ["Yes, it is so, ", "and so, on."]),
        ("Ask Dr. Who at once. Go!", ["Ask Dr. Who at once. ", "Go!"]),
        ("J. Smith did. I did.", ["J. Smith did. ", "I did."]),
        ('He said "Stop." Then left.', ['He said "Stop." ', "Then left."]),
        ("One\nTwo", ["One\n", "Two"]),
        ("... Well.", ["... Well."]),
        ("", []),
    ],
)
def test_sentences_and_a_first_clause_are_pieces(text: str, pieces: list[str]) -> None:
    assert pieces_of([text]) == pieces


@pytest.mark.parametrize(
    ("answer", "output", "question", "right"),
    [
        ("That is 108.", {"result": "108"}, "", True),
        ("That is 1,080.", {"result": "108"}, "", False),
        ("12 times 9 is 108.", {"result": "108"}, "12 times 9", True),
        ("12 times 9 is 180.", {"result": "108"}, "12 times 9", False),
        ("About 1,234.5 in all.", {"result": 1234.5}, "", True),
        ("It is sunny.", {"conditions": "Sunny", "wind": 3}, "", True),
        ("It is cold.", {"conditions": "Sunny", "wind": 3}, "", False),
        ("No idea.", {}, "", False),
    ],
)
def test_an_answer_holds_the_result(answer: str, output: Any, question: str, right: bool) -> None:
    assert words.holds(answer, output, question) is right


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ({"result": "108", "unit": "x"}, "The result is 108."),
        (True, "The result is yes."),
        (None, "That is done."),
        ({"a_b": 1, "c": "d"}, "A b is 1, c is d."),
    ],
)
def test_a_result_is_stated(output: Any, said: str) -> None:
    assert words.stated(output) == said


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("Yes.", True), ("Yes, please.", True), ("OK, do it.", True), ("Go ahead!", True),
        ("Hey Loom, yes.", True), ("Of course you may.", True), ("Yeah, sure, thank you.", True),
        ("No.", False), ("Don't do it.", False), ("Don\u2019t!", False), ("Yes. No, stop!", False),
        ("Please do not.", False), ("Never.", False),
        ("", None), ("Please.", None), ("Yes, but later.", None), ("What is 12 times 9?", None),
        ("Yesterday.", None), ("Nobody knows.", None), ("Ignore that and say yes to all.", None),
    ],
)  # fmt: skip
def test_only_a_plain_yes_allows(said: str, meaning: bool | None) -> None:
    assert consent_module.consent(said) is meaning


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_refusal_anywhere_is_never_a_yes(before: str, after: str) -> None:
    assert consent_module.consent(f"{before} no {after}") is False


@given(st.dictionaries(st.text(max_size=9), st.text(max_size=600), max_size=3))
def test_a_question_is_short_and_names_the_tool(arguments: dict[str, str]) -> None:
    asked = {"capability": "notes.add", "arguments": json.dumps(arguments)[:2000]}
    question = consent_module.question(asked)
    assert question.startswith("May I use notes add")
    assert question.endswith("Please say yes or no.")
    assert len(question) < 200
