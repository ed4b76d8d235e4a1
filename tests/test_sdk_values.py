"""What the schema of a hint allows is taken as that hint, and comes back equal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Optional, TypedDict

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as runs
from hypothesis import strategies as st

from loom_sdk import AsyncContext, Context, Field, Plugin, Result, tool
from loom_sdk.errors import ActionFailed, InvalidArguments, ManifestError
from loom_sdk.json_form import Mismatch, json_form
from loom_sdk.schema import schema_of
from loom_sdk.schema_refs import inlined
from loom_sdk.testing import FakeHost
from loom_sdk.values import is_json, loader


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Point(NamedTuple):
    x: float
    y: float = 0.0


@dataclass(frozen=True)
class Place:
    city: str
    at: Point | None = None


class Options(TypedDict):
    level: Level
    colors: NotRequired[list[Color]]


@dataclass
class Journey:
    start: Place
    days: int
    options: Options | None = None
    stops: list[Place] = field(default_factory=list)
    marks: set[str] = field(default_factory=set)
    length: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.days == 13:
            raise ValueError("thirteen days bring bad luck")
        self.length = 1 + len(self.stops)


LEAVES: list[Any] = [
    str, int, float, bool, type(None), Any, Color, Level, Literal["a", 1, True, None],
    Point, Place, Options, Journey, Annotated[int, Field(ge=3, le=9)], dict, list,
]  # fmt: skip
HASHABLE: list[Any] = [str, int, bool, Color, Level, Point, Place, tuple[int, str]]
HINTS = st.recursive(
    st.one_of(st.sampled_from(LEAVES), st.sampled_from(HASHABLE).map(lambda h: set[h])),  # type: ignore[valid-type]  # built at run time
    lambda inner: st.one_of(
        inner.map(lambda h: list[h]),  # type: ignore[valid-type]  # built at run time
        inner.map(lambda h: dict[str, h]),  # type: ignore[valid-type]  # built at run time
        inner.map(lambda h: dict[Color, h]),  # type: ignore[valid-type]  # built at run time
        inner.map(lambda h: tuple[h, ...]),  # type: ignore[valid-type]  # built at run time
        inner.map(lambda h: Sequence[h]),  # type: ignore[valid-type]  # built at run time
        st.tuples(inner, inner).map(lambda two: tuple.__class_getitem__(two)),
        st.tuples(inner, inner).map(lambda two: two[0] | two[1] if two[0] != two[1] else two[0]),
        inner.map(lambda h: Optional[h]),  # noqa: UP045
    ),
    max_leaves=5,
)
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


def fitting(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """JSON values that a schema without references allows."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of([fitting(option) for option in schema["anyOf"]])
    match schema.get("type"):
        case "string":
            return st.text(max_size=8)
        case "integer":
            whole = st.integers(schema.get("minimum"), schema.get("maximum"))
            return whole | whole.filter(lambda n: abs(n) < 2**53).map(float)
        case "number":
            return st.integers() | st.floats(allow_nan=False, allow_infinity=False)
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "array":
            return _array(schema)
        case "object":
            return _object(schema)
    return _ANYTHING


def _array(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    if "prefixItems" in schema:
        items = [fitting(item) for item in schema["prefixItems"]]
        sizes = st.integers(schema["minItems"], schema["maxItems"])
        return sizes.flatmap(lambda size: st.tuples(*items[:size]).map(list))
    unique = (lambda item: json.dumps(_as_json(item))) if "uniqueItems" in schema else None
    return st.lists(fitting(schema.get("items", {})), max_size=3, unique_by=unique)


def _as_json(value: Any) -> Any:
    """1.0 as 1, as JSON Schema compares them."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return [_as_json(part) for part in value] if isinstance(value, list) else value


def _object(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    if "properties" not in schema:
        names = fitting(schema.get("propertyNames", {"type": "string"}))
        return st.dictionaries(names, fitting(schema.get("additionalProperties", {})), max_size=3)
    required = set(schema.get("required", ()))
    parts = {name: fitting(part) for name, part in schema["properties"].items()}
    return st.fixed_dictionaries(
        {name: part for name, part in parts.items() if name in required},
        optional={name: part for name, part in parts.items() if name not in required},
    )


def lucky(value: Any) -> bool:
    """Without what Journey refuses although its schema allows it."""
    if isinstance(value, dict):
        return value.get("days") != 13 and all(map(lucky, value.values()))
    return not isinstance(value, list) or all(map(lucky, value))


def same(one: Any, other: Any) -> bool:
    """Equal as JSON, apart from the order of sets and defaults that were filled in."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() <= other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        if len(one) > len(other):
            return False
        inside = all(any(same(a, b) for b in other) for a in one)
        return inside and (len(one) == len(other) or len(other) == 2)  # a Point's default
    return bool(one == other and isinstance(one, bool) == isinstance(other, bool))


@runs(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_what_the_schema_allows_is_taken_and_given_back_equal(data: st.DataObject) -> None:
    hint = data.draw(HINTS)
    schema = inlined(schema_of(hint))
    value = data.draw(fitting(schema).filter(lucky))
    validator = jsonschema_rs.validator_for(schema)
    assert validator.is_valid(value)
    try:
        taken = value if is_json(hint) else loader(hint)(value)
    except Mismatch as error:  # a set compares with defaults filled in, which no schema can say
        assume("a list without repetition" not in str(error))
        raise
    given_back = json_form(taken)
    assert same(value, given_back)
    assert validator.is_valid(given_back)
    assert loader(hint)(json.loads(json.dumps(given_back))) == taken


@runs(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(HINTS.filter(lambda hint: "Field" not in str(hint)), _ANYTHING)
def test_what_the_schema_refuses_the_converter_refuses(hint: Any, value: Any) -> None:
    validator = jsonschema_rs.validator_for(schema_of(hint))
    if not validator.is_valid(value):
        with pytest.raises(Mismatch):
            loader(hint)(value)


def test_what_comes_is_what_the_hints_say() -> None:
    journey = loader(Journey)(
        {
            "start": {"city": "Ulm", "at": [1, 2]},
            "days": 2.0,
            "options": {"level": 2, "colors": ["red"]},
            "stops": [{"city": "Bonn"}],
            "marks": ["b", "a"],
        }
    )
    assert journey == Journey(
        Place("Ulm", Point(1, 2)), 2, {"level": Level.HIGH, "colors": [Color.RED]},
        [Place("Bonn")], {"a", "b"},
    )  # fmt: skip
    assert (type(journey.days), journey.length) == (int, 2)
    assert json_form(journey)["marks"] == ["a", "b"]
    assert "length" not in json_form(journey)


class Agency(Plugin):
    @tool("agency.book")
    def book(self, ctx: Context, journey: Journey, color: Color = Color.RED) -> Journey:
        ctx.emit({"first": journey.start})
        ctx.invoke("pay.send", {"to": journey.start, "level": Level.LOW})
        assert isinstance(journey, Journey)
        assert isinstance(color, Color)
        return journey

    @tool("agency.colors")
    async def colors(self, ctx: AsyncContext, colors: set[Color]) -> dict[Color, list[Place]]:
        await ctx.emit(colors)
        return {color: [Place(color.name)] for color in sorted(colors, key=str)}

    @tool("agency.place")
    def place(self, ctx: Context):  # type: ignore[no-untyped-def]  # it is the case
        return Result(Place("Ulm"), b"payload")

    @tool("agency.wrong")
    def wrong(self, ctx: Context) -> list[Place]:
        return [Place("Ulm"), Place(object())]  # type: ignore[arg-type]  # it is the case

    @tool("agency.days")
    def days(self, ctx: Context, days: int) -> str:
        return str(days)


def test_a_method_gets_instances_and_may_return_them() -> None:
    host = FakeHost(Agency)
    host.answer("pay.send", {})
    journey = {"start": {"city": "Ulm"}, "days": 1}
    answer = host.call("agency.book", journey=journey, color="blue").output
    assert answer == {
        "start": {"city": "Ulm", "at": None}, "days": 1, "options": None, "stops": [], "marks": [],
    }  # fmt: skip
    assert host.items[0].output == {"first": {"city": "Ulm", "at": None}}
    assert host.calls[0].arguments == {"to": {"city": "Ulm", "at": None}, "level": 1}
    assert host.schema("agency.book")["properties"]["color"]["default"] == "red"


def test_async_methods_likewise() -> None:
    host = FakeHost(Agency)
    answer = host.call("agency.colors", colors=["red", "blue"])
    assert answer.output == {
        "blue": [{"city": "BLUE", "at": None}], "red": [{"city": "RED", "at": None}],
    }  # fmt: skip
    assert host.items[0].output == ["blue", "red"]


def test_an_instance_is_converted_where_no_hint_says_so_and_beside_a_payload() -> None:
    answer = FakeHost(Agency).call("agency.place")
    assert (answer.output, answer.payload) == ({"city": "Ulm", "at": None}, b"payload")


def test_a_whole_float_is_an_integer_as_in_json() -> None:
    assert FakeHost(Agency).call("agency.days", days=3.0).output == "3"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"journey": 1}, "agency.book: journey: an object is wanted, not 1"),
        ({"journey": {"days": 1}}, "agency.book: journey/start: is missing"),
        (
            {"journey": {"start": {"city": 3}, "days": 1}},
            "agency.book: journey/start/city: a text is wanted, not 3",
        ),
        (
            {"journey": {"start": {"town": "Ulm"}, "days": 1}},
            "agency.book: journey/start/town: is unknown; Place has: city, at",
        ),
        (
            {"journey": {"start": {"city": "U"}, "days": 1, "stops": [{"city": "B"}, []]}},
            r"agency.book: journey/stops/1: an object is wanted, not \[\]",
        ),
        (
            {"journey": {"start": {"city": "U"}, "days": 1, "options": {"level": 3}}},
            "agency.book: journey/options/level: one of 1, 2 is wanted, not 3",
        ),
        (
            {"journey": {"start": {"city": "U"}, "days": 13}},
            "agency.book: journey: thirteen days bring bad luck",
        ),
        (
            {"journey": {"start": {"city": "U", "at": [1, "x"]}, "days": 1}},
            "agency.book: journey/start/at/1: a number is wanted, not 'x'",
        ),
        (
            {"journey": {"start": {"city": "U"}, "days": True}},
            "agency.book: journey/days: a whole number is wanted, not True",
        ),
    ],
)
def test_a_wrong_argument_is_told_with_its_place(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArguments, match=message):
        FakeHost(Agency).call("agency.book", **arguments)


def test_an_answer_without_json_form_is_told_with_its_place() -> None:
    with pytest.raises(
        ActionFailed, match="agency.wrong returned 1/city: object has no JSON form"
    ) as caught:
        FakeHost(Agency).call("agency.wrong")
    assert caught.value.code == "NOT_JSON"


def test_a_value_that_holds_itself_is_refused() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(ActionFailed, match="holds itself"):
        json_form(ring)


def test_items_that_python_takes_for_equal_are_not_lost_in_a_set() -> None:
    with pytest.raises(Mismatch, match="without repetition"):
        loader(set[int | bool])([1, True])


def test_a_default_without_json_form_is_refused() -> None:
    class Odd(Plugin):
        @tool("odd.one")
        def one(self, ctx: Context, x: Any = object) -> None: ...

    with pytest.raises(ManifestError, match=r"one\(x\): the default <class 'object'>"):
        FakeHost(Odd)
