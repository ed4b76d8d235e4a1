"""JSON to component values and back: every type through a real component, every wrong value."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wasmtime import Engine, Store
from wasmtime.component import Component, Linker

from loom_host.runtimes.wasm import border
from loom_host.runtimes.wasm.component_exports import exports_of
from loom_host.runtimes.wasm.component_json import to_value, to_values
from loom_host.runtimes.wasm.component_output import to_json, to_output
from loom_host.runtimes.wasm.component_schema import output_schema, schema_of
from loom_host.runtimes.wasm.component_types import (
    BYTES,
    INTEGERS,
    MAX_DEPTH,
    NOT_FINITE,
    Enum,
    Flags,
    Function,
    ListOf,
    Option,
    Primitive,
    Record,
    Result,
    Tuple,
    Variant,
    WitType,
)
from loom_host.runtimes.wasm.values import Case, Failed, Ok, Some
from loom_sdk.errors import ActionFailed, InvalidArguments

from .echo_component import FILL, echo_component

ENGINE = Engine()
NAMES = ("a", "long-name", "b2", "parse-xml", "x", "other-one")
PRIMITIVES = ("bool", *INTEGERS, "f32", "f64", "char", "string")


def some_names() -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True).map(tuple)


def compound(inner: st.SearchStrategy[WitType]) -> st.SearchStrategy[WitType]:
    fields = some_names().flatmap(
        lambda names: st.tuples(*(st.tuples(st.just(name), inner) for name in names))
    )
    cases = some_names().flatmap(
        lambda names: st.tuples(*(st.tuples(st.just(n), st.none() | inner) for n in names))
    )
    return st.one_of(
        inner.map(ListOf),
        inner.map(Option),
        st.lists(inner, min_size=1, max_size=3).map(lambda of: Tuple(tuple(of))),
        fields.map(Record),
        cases.map(Variant),
        st.builds(Result, st.none() | inner, st.none() | inner),
    )


TYPES: st.SearchStrategy[WitType] = st.recursive(
    st.sampled_from(PRIMITIVES).map(Primitive)
    | st.just(BYTES)
    | some_names().map(Enum)
    | some_names().map(Flags),
    compound,
    max_leaves=8,
)


def json_of(kind: WitType | None) -> st.SearchStrategy[Any]:
    """Values in the very form in which they come back."""
    match kind:
        case None:
            return st.none()
        case Primitive(name):
            return _primitive(name)
        case ListOf(element):
            if kind == BYTES:
                return st.binary(max_size=20).map(lambda data: to_json(BYTES, data))
            return st.lists(json_of(element), max_size=3)
        case Tuple(elements):
            return st.tuples(*map(json_of, elements)).map(list)
        case Record(fields):
            return st.fixed_dictionaries({name: json_of(of) for name, of in fields})
        case Variant(cases):
            return st.one_of(*(_case(name, of) for name, of in cases))
        case Enum(names):
            return st.sampled_from(names)
        case Flags(names):
            chosen = st.sets(st.sampled_from(names))
            return chosen.map(lambda some: [name for name in names if name in some])
        case Option(some):
            held = json_of(some)
            return st.none() | (
                held.map(lambda v: {"some": v}) if isinstance(some, Option) else held
            )
        case Result(ok, err):
            sides = (("ok", ok), ("err", err))
            return st.one_of(*(st.fixed_dictionaries({n: json_of(of)}) for n, of in sides))


def _primitive(name: str) -> st.SearchStrategy[Any]:
    if name in INTEGERS:
        low, high = INTEGERS[name]
        return st.integers(low, high) | st.sampled_from([low, high])
    if name in ("f32", "f64"):
        finite = st.floats(allow_nan=False, allow_infinity=False, width=32 if name == "f32" else 64)
        return finite.map(lambda v: to_json(Primitive(name), v)) | st.sampled_from(list(NOT_FINITE))
    if name == "bool":
        return st.booleans()
    return st.characters(codec="utf-8") if name == "char" else st.text(max_size=12)


def _case(name: str, kind: WitType | None) -> st.SearchStrategy[Any]:
    tag = {"tag": st.just(name)}
    return st.fixed_dictionaries(tag if kind is None else {**tag, "val": json_of(kind)})


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(NAMES),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["tag", "val", "ok", "err", "some", *NAMES]), inner),
    max_leaves=10,
)  # fmt: skip


def ordered(value: Any) -> str:
    """As text, so that 0.0 is not -0.0 and 1 is not true."""
    return json.dumps(value, sort_keys=True)


class Echo:
    """A component that sends a value of the type back."""

    def __init__(self, kind: WitType) -> None:
        component = Component(ENGINE, echo_component(kind))
        (export,) = exports_of(component.type, ENGINE)
        assert export.function is not None, export.why_not
        self.function = export.function
        self._store = Store(ENGINE)
        instance = Linker(ENGINE).instantiate(self._store, component)
        self._echo = border.bind(instance.get_func(self._store, "echo"), self._store, self.function)

    def __call__(self, value: Any) -> Any:
        rest = {f"p{index}": index for index in range(len(FILL))}
        arguments = to_values(self.function, {"x": value, **rest})
        answer = self._echo(arguments, 1 << 20)
        back, zero = to_output(self.function, answer)
        assert zero == 0
        return back


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_value_of_any_type_comes_back_from_a_component_as_it_went(data: st.DataObject) -> None:
    kind = data.draw(TYPES)
    echo = Echo(kind)
    assert echo.function.parameters[0] == ("x", kind)
    validator = jsonschema_rs.validator_for(schema_of(kind))
    for value in data.draw(st.lists(json_of(kind), min_size=1, max_size=5)):
        assert validator.is_valid(value)
        over_the_wire = json.loads(json.dumps(value))
        assert ordered(echo(over_the_wire)) == ordered(value)


@settings(max_examples=200, deadline=None)
@given(TYPES, ANY_JSON)
def test_any_json_is_converted_or_refused_by_name_and_the_schema_agrees(
    kind: WitType, value: Any
) -> None:
    try:
        made = to_value(kind, value, "x")
    except InvalidArguments as error:
        assert error.message.startswith("x")
        return
    assert jsonschema_rs.validator_for(schema_of(kind)).is_valid(value)
    again = to_value(kind, to_json(kind, made), "x")
    assert json.dumps(to_json(kind, again)) == json.dumps(to_json(kind, made))


@pytest.mark.parametrize("name", INTEGERS)
def test_an_integer_has_exactly_its_range(name: str) -> None:
    low, high = INTEGERS[name]
    echo = Echo(Primitive(name))
    assert [echo(low), echo(high)] == [low, high]
    for beyond in (low - 1, high + 1, float(high) * 4, 10**5000, True, 0.5, str(high)):
        with pytest.raises(InvalidArguments, match=f"^x: must be a whole number from {low} to"):
            to_value(Primitive(name), beyond, "x")


U8, TEXT = Primitive("u8"), Primitive("string")
POINT = Record((("x", U8), ("note", Option(TEXT))))
SHAPE = Variant((("circle", U8), ("empty", None)))
REFUSED: list[tuple[WitType, Any, str]] = [
    (ListOf(POINT), [{"x": 1}, {"x": 256}], "v/1/x: must be a whole number from 0 to 255, not 256"),
    (POINT, {"x": 1, "nots": "a"}, "v/nots: is not known; did you mean 'note'?"),
    (POINT, {"note": "a"}, "v/x: is missing"),
    (POINT, [], "v: must be an object, not a list of 0"),
    (TEXT, "\ud800", r'v: must be a text without lone surrogates, not "\ud800"'),
    (Primitive("char"), "ab", 'v: must be a text of one Unicode scalar value, not "ab"'),
    (Primitive("char"), "\udfff", r'v: must be a text of one Unicode scalar value, not "\udfff"'),
    (Primitive("bool"), 1, "v: must be true or false, not 1"),
    (Primitive("f32"), 3.5e38, "v: must be a number that fits 32 bits"),
    (Primitive("f64"), float("nan"), 'v: must be a number or one of "NaN"'),
    (Primitive("f64"), 10**400, "v: must be a number or one of"),
    (Primitive("f64"), False, "v: must be a number or one of"),
    (BYTES, "a", "v: must be a text in base64: "),
    (BYTES, [1, 2], "v: must be a text in base64, not a list of 2"),
    (SHAPE, {"tag": "cube"}, 'v/tag: must be one of circle, empty, not "cube"'),
    (SHAPE, {"tag": "circle"}, "v/val: is missing"),
    (SHAPE, {"tag": "empty", "val": None}, "v/val: is not known; 'empty' takes ['tag']"),
    (SHAPE, "empty", 'v: must be an object {"tag": ..., "val": ...}, not "empty"'),
    (Enum(("on", "off")), "maybe", 'v: must be one of on, off, not "maybe"'),
    (Flags(("r", "w")), ["r", "r"], "v: must be a list that names each at most once"),
    (Flags(("r", "w")), ["x"], 'v/0: must be one of r, w, not "x"'),
    (Tuple((U8, U8)), [1], "v: must be a list of 2, not a list of 1"),
    (Option(Option(U8)), 1, 'v: must be null or an object {"some": ...}, not 1'),
    (Result(U8, None), {"ok": 1, "err": None}, 'v: must be an object {"ok": ...} or {"err"'),
    (Result(U8, None), {"err": 1}, "v/err: must be null, not 1"),
]


@pytest.mark.parametrize(("kind", "value", "message"), REFUSED)
def test_a_wrong_value_is_refused_with_its_place(kind: WitType, value: Any, message: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        to_value(kind, value, "v")
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("kind", "value", "made"),
    [
        (U8, 1.0, 1),
        (POINT, {"x": 1}, {"x": 1, "note": None}),
        (Option(Option(U8)), {"some": None}, Some(None)),
        (Option(Option(U8)), None, None),
        (Option(U8), 3, Some(3)),
        (Flags(("r", "w", "x")), ["x", "r"], ("r", "x")),
        (SHAPE, {"tag": "circle", "val": 7}, Case("circle", 7)),
        (BYTES, "AP8=", b"\x00\xff"),
        (Result(None, TEXT), {"ok": None}, Ok(None)),
        (Result(None, TEXT), {"err": "no"}, Failed("no")),
        (Primitive("f64"), 3, 3.0),
        (Primitive("f64"), "-Infinity", float("-inf")),
    ],
)
def test_json_becomes_component_values(kind: WitType, value: Any, made: Any) -> None:
    got = to_value(kind, value, "v")
    assert (got, type(got)) == (made, type(made))


def test_a_32_bit_number_comes_back_as_it_was_written() -> None:
    echo = Echo(Primitive("f32"))
    assert [echo(value) for value in (0.1, -2.5e-40, 16777217, 3.4028234663852886e38)] == [
        0.1, -2.5e-40, 16777216.0, 3.4028234663852886e38
    ]  # fmt: skip


def test_arguments_are_named_and_options_may_be_absent() -> None:
    function = Function((("city", TEXT), ("days", Option(U8))), None)
    assert to_values(function, {"city": "Bonn"}) == ("Bonn", None)
    with pytest.raises(InvalidArguments, match="^city: is missing$"):
        to_values(function, {})
    with pytest.raises(InvalidArguments, match="^citi: is not known; did you mean 'city'"):
        to_values(function, {"citi": "Bonn"})


def test_the_error_side_of_a_result_is_a_failed_action_with_its_json() -> None:
    function = Function((), Result(U8, Variant((("not-found", TEXT),))))
    assert to_output(function, Ok(3)) == 3
    assert output_schema(function) == {"type": "integer", "minimum": 0, "maximum": 255}
    with pytest.raises(ActionFailed, match='"not-found"') as caught:
        to_output(function, Failed(Case("not-found", "Ada")))
    assert caught.value.details() == {"data": {"tag": "not-found", "val": "Ada"}}
    with pytest.raises(ActionFailed, match="^plain words$"):
        to_output(Function((), Result(None, TEXT)), Failed("plain words"))


@pytest.mark.parametrize(
    ("wrap", "write"),
    [
        (ListOf, lambda value: [value]),
        (lambda kind: Tuple((kind,)), lambda value: [value]),
        (lambda kind: Record((("a", kind),)), lambda value: {"a": value}),
        (lambda kind: Variant((("a", kind),)), lambda value: {"tag": "a", "val": value}),
        (lambda kind: Result(None, kind), lambda value: {"err": value}),
    ],
)
def test_types_pass_down_to_the_deepest_that_is_offered(wrap: Any, write: Any) -> None:
    kind: WitType = TEXT
    value: Any = "deep"
    for _ in range(MAX_DEPTH - 1):  # the tuple of the answer is one level more
        kind, value = wrap(kind), write(value)
    assert Echo(kind)(value) == value
    with pytest.raises(AssertionError, match=f"nested deeper than {MAX_DEPTH}"):
        Echo(wrap(kind))
