"""Type hints and docstrings -> JSON Schema; what the schema takes, the method takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, Flag, IntEnum
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    Required,
    TypedDict,
)

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from loom_sdk import Context, Plugin, Result, capability
from loom_sdk.errors import ManifestError
from loom_sdk.plugin import declared_capabilities
from loom_sdk.schema import coercions, description, input_schema, output_schema, schema_of
from loom_sdk.schema_refs import inlined


@dataclass
class Place:
    city: str
    tags: list[str] = field(default_factory=list)


class Options(TypedDict, total=False):
    depth: int


class Color(Enum):
    """Of a lamp."""

    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


class Permission(Flag):
    READ = 1


class Opaque(Enum):
    PAIR = (1, 2)


class Point(NamedTuple):
    x: float
    y: float = 0.0


class Late(TypedDict):
    """Its annotations are texts, as `from __future__` makes them."""

    a: int
    b: NotRequired[int]
    c: NotRequired[Annotated[str, "Why."]]


class Partly(TypedDict, total=False):
    a: Required[Annotated[int, "How many."]]
    b: int


@dataclass
class Journey:
    """From one place to another.

    Attributes:
        start: Where from.
    """

    start: Place
    stops: list[Place] = field(default_factory=list)
    mode: Literal["rail", "road"] = "rail"
    options: Options | None = None
    seen: int = field(default=0, init=False)


@dataclass
class Tree:
    branches: list[Tree]


@dataclass
class Forest:
    trees: dict[str, Tree]


UserId = NewType("UserId", int)

TABLE: list[tuple[Any, dict[str, Any]]] = [
    (str, {"type": "string"}),
    (int, {"type": "integer"}),
    (float, {"type": "number"}),
    (bool, {"type": "boolean"}),
    (type(None), {"type": "null"}),
    (Any, {}),
    (list, {"type": "array"}),
    (dict, {"type": "object"}),
    (list[int], {"type": "array", "items": {"type": "integer"}}),
    (Sequence[str], {"type": "array", "items": {"type": "string"}}),
    (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
    (
        tuple[int, str],
        {
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "string"}],
            "minItems": 2,
            "maxItems": 2,
        },
    ),
    (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
    (Mapping[str, Any], {"type": "object", "additionalProperties": {}}),
    (Literal["a", "b"], {"enum": ["a", "b"]}),
    (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),  # noqa: UP045
    (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
    (Annotated[int, "How many.", {"minimum": 0}, 5], {
        "type": "integer", "description": "How many.", "minimum": 0,
    }),
    (set[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
    (frozenset[str], {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
    (list[None], {"type": "array", "items": {"type": "null"}}),
    (tuple[()], {"type": "array", "minItems": 0, "maxItems": 0}),
    (UserId, {"type": "integer"}),
    (Color, {"enum": ["red", "blue"], "description": "Of a lamp."}),
    (Size, {"enum": [1, 2]}),
    (Literal[Color.RED, "green"], {"enum": ["red", "green"]}),
    (dict[Literal["a", "b"], int], {
        "type": "object", "additionalProperties": {"type": "integer"},
        "propertyNames": {"enum": ["a", "b"]},
    }),
    (dict[Annotated[str, {"pattern": "^x-"}], Any], {
        "type": "object", "additionalProperties": {},
        "propertyNames": {"type": "string", "pattern": "^x-"},
    }),
    (Annotated[list[Annotated[int, {"minimum": 0}]] | None, "Counts."], {
        "anyOf": [{"type": "array", "items": {"type": "integer", "minimum": 0}}, {"type": "null"}],
        "description": "Counts.",
    }),
    (Point, {
        "type": "array", "minItems": 1, "maxItems": 2,
        "prefixItems": [{"title": "x", "type": "number"}, {"title": "y", "type": "number"}],
    }),
    (Late, {
        "type": "object",
        "description": "Its annotations are texts, as `from __future__` makes them.",
        "properties": {
            "a": {"type": "integer"}, "b": {"type": "integer"},
            "c": {"type": "string", "description": "Why."},
        },
        "required": ["a"], "additionalProperties": False,
    }),
    (Partly, {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "description": "How many."}, "b": {"type": "integer"},
        },
        "required": ["a"], "additionalProperties": False,
    }),
    (Place, {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "additionalProperties": False,
        "required": ["city"],
    }),
    (Options, {
        "type": "object", "properties": {"depth": {"type": "integer"}},
        "additionalProperties": False,
    }),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "schema"), TABLE, ids=[str(row[0]) for row in TABLE])
def test_schema_of(hint: Any, schema: dict[str, Any]) -> None:
    assert schema_of(hint) == schema
    jsonschema_rs.validator_for(schema)


@pytest.mark.parametrize(
    "hint", [object, bytes, complex, Plugin, list[bytes], dict[int, str], Permission, Opaque]
)
def test_what_has_no_json_form_is_told(hint: Any) -> None:
    with pytest.raises(ManifestError, match="no JSON Schema for"):
        schema_of(hint)


def test_records_within_others_stand_once_in_defs() -> None:
    schema = schema_of(Journey)
    assert schema["properties"]["start"] == {"$ref": "#/$defs/Place", "description": "Where from."}
    assert schema["properties"]["stops"]["items"] == {"$ref": "#/$defs/Place"}
    assert list(schema["$defs"]) == ["Place", "Options"]
    assert schema["description"] == "From one place to another."
    assert schema["required"] == ["start"]
    assert schema["properties"]["mode"]["default"] == "rail"
    validator = jsonschema_rs.validator_for(schema)
    assert validator.is_valid({"start": {"city": "Ulm"}, "options": {"depth": 1}})
    assert not validator.is_valid({"start": {"town": "Ulm"}})


def test_inlined_is_the_same_schema_without_references() -> None:
    schema = inlined(schema_of(Journey))
    assert "$defs" not in schema
    assert schema["properties"]["start"]["properties"] == schema_of(Place)["properties"]
    assert schema["properties"]["start"]["description"] == "Where from."


@pytest.mark.parametrize("hint", [Tree, list[Tree], Forest])
def test_a_type_that_refers_to_itself_is_refused_with_what_to_do(hint: Any) -> None:
    with pytest.raises(ManifestError, match=r"Tree refers to itself.*dict\[str, Any\]"):
        schema_of(hint)


def test_two_types_of_one_name_are_refused() -> None:
    with pytest.raises(ManifestError, match="two types of one schema are called Place: rename"):
        schema_of(tuple[Place, _other_place()])  # type: ignore[misc]  # made at run time


def _other_place() -> Any:
    @dataclass
    class Place:
        town: str

    return Place


def test_a_hint_that_cannot_be_read_is_told_with_its_method() -> None:
    def late(self: Any, ctx: Any, place: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ManifestError, match=r"late: its type hints.*'Nowhere'.*TYPE_CHECKING"):
        input_schema(late)


def test_an_error_names_the_method_and_the_parameter() -> None:
    def send(self: Any, ctx: Any, raw: bytes) -> None: ...

    with pytest.raises(ManifestError, match=r"send\(raw\): no JSON Schema for <class 'bytes'>"):
        input_schema(send)


HINTS = st.recursive(
    st.sampled_from([str, int, float, bool, type(None), Any]),
    lambda inner: st.one_of(
        inner.map(lambda h: list[h]),  # type: ignore[valid-type]  # built at run time
        inner.map(lambda h: dict[str, h]),  # type: ignore[valid-type]  # built at run time
        inner.map(lambda h: tuple[h, ...]),  # type: ignore[valid-type]  # built at run time
        inner.map(lambda h: tuple[h, h]),  # type: ignore[valid-type]  # built at run time
        inner.map(lambda h: Optional[h]),  # noqa: UP045
    ),
    max_leaves=5,
)


@runs(max_examples=50, deadline=None)
@given(HINTS)
def test_every_schema_is_a_valid_schema(hint: Any) -> None:
    jsonschema_rs.meta.validate(schema_of(hint))


class Weather(Plugin):
    @capability("weather.get", effects="none")
    def get(
        self, ctx: Context, city: str, place: Place, units: Literal["c", "f"] = "c",
        days: int | None = None, free: Any = 1,
    ) -> dict[str, float]:  # fmt: skip
        """Current weather
        for a city.

        More words.

        Args:
            city: Its name.
            days: How many
                to look ahead.

        Returns:
            A table.
        """
        return {}

    def bare(self, ctx: Context):  # type: ignore[no-untyped-def]  # it is the case
        return None

    def raw(self, ctx: Context) -> Result:
        return Result()


def test_input_schema() -> None:
    schema = input_schema(Weather.get)
    assert schema["required"] == ["city", "place"]
    assert schema["additionalProperties"] is False
    properties = schema["properties"]
    assert list(properties) == ["city", "place", "units", "days", "free"]
    assert properties["city"] == {"type": "string", "description": "Its name."}
    assert properties["units"] == {"enum": ["c", "f"], "default": "c"}
    assert properties["days"]["description"] == "How many to look ahead."
    assert "default" not in properties["days"]
    assert properties["free"] == {"default": 1}
    assert input_schema(Weather.bare) == {
        "type": "object", "properties": {}, "additionalProperties": False,
    }  # fmt: skip


def test_output_schema() -> None:
    assert output_schema(Weather.get) == schema_of(dict[str, float])
    assert output_schema(Weather.bare) is None
    assert output_schema(Weather.raw) is None


def test_description_is_the_first_paragraph_on_one_line() -> None:
    assert description(Weather.get) == "Current weather for a city."
    assert description(Weather.bare) == ""


def test_only_what_is_not_json_itself_is_converted() -> None:
    builds = coercions(Weather.get)
    assert list(builds) == ["place", "days"]
    assert builds["place"]({"city": "Ulm"}) == Place("Ulm")


def test_a_declared_capability_carries_all_of_it() -> None:
    bound = declared_capabilities(Weather)["weather.get"]
    assert (bound.spec.description, bound.spec.effects) == ("Current weather for a city.", "none")
    assert bound.spec.input_schema == input_schema(Weather.get)
    assert bound.spec.output_schema == output_schema(Weather.get)
