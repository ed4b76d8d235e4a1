"""A copy of a JSON value is what JSON's own round trip gives, and its size is never understated."""

from __future__ import annotations

import json
from collections import OrderedDict
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_host.runtimes.json_copy import json_copy

SCALARS = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
VALUES = st.recursive(
    SCALARS,
    lambda part: (
        st.lists(part) | st.tuples(part, part) | st.dictionaries(st.text() | st.integers(), part)
    ),
    max_leaves=20,
)


class Level(IntEnum):
    LOW = 1


@given(VALUES, st.integers(0, 2000))
def test_it_is_the_round_trip_and_the_size_is_a_bound(value: Any, limit: int) -> None:
    text = json.dumps(value)
    copy, size = json_copy(value, limit)
    assert copy == json.loads(text)
    assert size >= len(text)
    assert size <= limit or size == len(text)


def test_nothing_is_shared() -> None:
    value: dict[str, Any] = {"a": [1, {"b": 2}]}
    copy, _ = json_copy(value, 10_000)
    value["a"][1]["b"] = 3
    assert copy == {"a": [1, {"b": 2}]}


def test_subclasses_come_back_as_json_has_them() -> None:
    copy, _ = json_copy(OrderedDict(level=Level.LOW, pair=(1, 2)), 10_000)
    assert copy == {"level": 1, "pair": [1, 2]}
    assert type(copy) is dict
    assert type(copy["level"]) is int


@pytest.mark.parametrize("value", [{"a": {1, 2}}, b"bytes", object(), {(1, 2): 3}])
def test_what_is_no_json_is_told(value: Any) -> None:
    with pytest.raises(TypeError):
        json_copy(value, 10_000)


def test_a_value_that_holds_itself_is_told() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="Circular"):
        json_copy(loop, 10_000)
