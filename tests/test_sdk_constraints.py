"""Limits of `Annotated`, whoever defines them, become JSON Schema that holds what they say."""

from __future__ import annotations

import re
from typing import Annotated, Any

import annotated_types
import jsonschema_rs
import pydantic
import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from loom_sdk import Field
from loom_sdk.errors import ManifestError
from loom_sdk.schema import schema_of

TABLE: list[tuple[Any, dict[str, Any]]] = [
    (Annotated[int, Field(ge=1, le=7)], {"type": "integer", "minimum": 1, "maximum": 7}),
    (
        Annotated[float, Field(gt=0, lt=1.5, description="A part.")],
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1.5,
         "description": "A part."},
    ),
    (Annotated[int, annotated_types.MultipleOf(5)], {"type": "integer", "multipleOf": 5}),
    (
        Annotated[int, annotated_types.Ge(1), annotated_types.Lt(9)],
        {"type": "integer", "minimum": 1, "exclusiveMaximum": 9},
    ),
    (
        Annotated[float, annotated_types.Interval(gt=0, le=1)],
        {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    ),
    (Annotated[str, annotated_types.MinLen(1)], {"type": "string", "minLength": 1}),
    (
        Annotated[list[int], annotated_types.Len(2, 3)],
        {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3},
    ),
    (
        Annotated[dict[str, int], annotated_types.MaxLen(3)],
        {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 3},
    ),
    (Annotated[str, re.compile("^a+$")], {"type": "string", "pattern": "^a+$"}),
    (Annotated[str, Field(pattern="^a+$")], {"type": "string", "pattern": "^a+$"}),
    (Annotated[str, annotated_types.doc("Its.")], {"type": "string", "description": "Its."}),
    (
        Annotated[str, pydantic.Field(min_length=2, pattern="^a", description="An a.")],
        {"type": "string", "minLength": 2, "pattern": "^a", "description": "An a."},
    ),
    (
        Annotated[str, pydantic.StringConstraints(max_length=4, pattern="b$")],
        {"type": "string", "maxLength": 4, "pattern": "b$"},
    ),
    (
        Annotated[str | None, Field(max_length=4)],
        {"anyOf": [{"type": "string"}, {"type": "null"}], "maxLength": 4},
    ),
    (
        Annotated[int, {"minimum": 1, "x-slot": "sum"}],
        {"type": "integer", "minimum": 1, "x-slot": "sum"},
    ),
    (Annotated[int, object(), 5, annotated_types.Unit("kg")], {"type": "integer"}),
    (Annotated[Annotated[int, Field(ge=1)], Field(le=2)],
     {"type": "integer", "minimum": 1, "maximum": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "schema"), TABLE, ids=range(len(TABLE)))
def test_limits_become_keywords(hint: Any, schema: dict[str, Any]) -> None:
    assert schema_of(hint) == schema
    jsonschema_rs.meta.validate(schema)


@pytest.mark.parametrize(
    ("hint", "message"),
    [
        (Annotated[str, Field(ge=1)], "says nothing of a type"),
        (Annotated[int, annotated_types.MinLen(1)], "says nothing of a type"),
        (Annotated[int, re.compile("a")], "says nothing of a type"),
        (Annotated[str, re.compile("a", re.IGNORECASE)], "no flags"),
        (Annotated[int, {"minimun": 1}], "'minimun' is no keyword of JSON Schema"),
        (Annotated[float, annotated_types.Ge("a")], "must be a number"),
        (Annotated[str, annotated_types.Predicate(str.isdigit)], "in the method's own code"),
        (Annotated[str, pydantic.StringConstraints(to_upper=True)], "to_upper"),
    ],
)
def test_a_limit_that_would_not_hold_is_refused(hint: Any, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        schema_of(hint)


BOUNDS = st.none() | st.integers(-20, 20)


@runs(max_examples=150, deadline=None)
@given(BOUNDS, BOUNDS, BOUNDS, BOUNDS, st.none() | st.integers(1, 5), st.integers(-25, 25))
def test_the_schema_allows_what_the_field_says(
    ge: int | None, gt: int | None, le: int | None, lt: int | None, of: int | None, value: int
) -> None:
    schema = schema_of(Annotated[int, Field(ge=ge, gt=gt, le=le, lt=lt, multiple_of=of)])
    allowed = (
        (ge is None or value >= ge) and (gt is None or value > gt)
        and (le is None or value <= le) and (lt is None or value < lt)
        and (of is None or value % of == 0)
    )  # fmt: skip
    assert jsonschema_rs.validator_for(schema).is_valid(value) == allowed
