"""Topic patterns against a reference that tries every topic."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from loom_sdk.errors import BusError
from loom_sdk.topics import check_pattern, check_topic, covers, matches

TOKENS = ("a", "b", "z")
"""`z` stands in no pattern: it is any other token."""
TOPICS = [".".join(parts) for length in range(1, 6) for parts in product(TOKENS, repeat=length)]


def reference(pattern: list[str], topic: list[str]) -> bool:
    """By the definition: `*` is one token, `>` is one or more at the end."""
    if not pattern or not topic:
        return not pattern and not topic
    if pattern[0] == ">":
        return True
    return pattern[0] in ("*", topic[0]) and reference(pattern[1:], topic[1:])


@st.composite
def patterns(draw: st.DrawFn) -> str:
    tokens = draw(st.lists(st.sampled_from(["a", "b", "*"]), max_size=3))
    if not tokens or draw(st.booleans()):
        tokens.append(">")
    return ".".join(tokens)


@runs(max_examples=60, deadline=None)
@given(patterns(), st.sampled_from(TOPICS))
def test_matches_is_the_definition(pattern: str, topic: str) -> None:
    assert matches(pattern, topic) == reference(pattern.split("."), topic.split("."))


@runs(max_examples=60, deadline=None)
@given(patterns(), patterns())
def test_covers_is_every_topic_of_the_one_in_the_other(allowed: str, asked: str) -> None:
    every = all(matches(allowed, topic) for topic in TOPICS if matches(asked, topic))
    assert covers(allowed, asked) == every


@runs(max_examples=60, deadline=None)
@given(patterns(), st.sampled_from(TOPICS))
def test_a_topic_is_covered_where_it_matches(pattern: str, topic: str) -> None:
    assert covers(pattern, topic) == matches(pattern, topic)


@runs(max_examples=60, deadline=None)
@given(patterns())
def test_every_pattern_covers_itself_and_is_covered_by_all(pattern: str) -> None:
    check_pattern(pattern)
    assert covers(pattern, pattern)
    assert covers(">", pattern)


@pytest.mark.parametrize(
    "topic", ["", ".", "a.", ".a", "a..b", "*", "a.*", ">", "a.>", "a b", "a\n"]
)
def test_what_is_no_topic(topic: str) -> None:
    with pytest.raises(BusError, match="is not a topic"):
        check_topic(topic)


@pytest.mark.parametrize("pattern", ["", "a.", "a..b", ">.a", "a.>.b", "a b"])
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(BusError, match="is not a topic pattern"):
        check_pattern(pattern)


@runs(max_examples=60, deadline=None)
@given(st.text(max_size=12))
def test_every_topic_is_a_pattern_that_matches_only_itself(text: str) -> None:
    try:
        check_topic(text)
    except BusError:
        return
    check_pattern(text)
    assert matches(text, text)
    assert not matches(text, text + "x")
