"""The direct marshaller against the stock one, with components that send back what they get."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import random
from array import array
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from wasmtime import Engine as WasmtimeEngine
from wasmtime import Store, _ffi
from wasmtime.component import Component, Linker

from loom_host.runtimes.wasm import border, marshal, stock
from loom_host.runtimes.wasm.component_exports import exports_of
from loom_host.runtimes.wasm.component_types import (
    BYTES,
    INTEGERS,
    Enum,
    Function,
    ListOf,
    Option,
    Primitive,
    Record,
    Result,
    Tuple,
    Variant,
    WitType,
    text_of,
)
from loom_host.runtimes.wasm.host_imports import ERROR, EVENT, event_record
from loom_host.runtimes.wasm.values import MAX_BINARY, Failed, Ok, TooLarge
from loom_sdk import Event

from .echo_component import FILL, echo_component
from .test_component_json import TYPES
from .wit_values import values_of

ENGINE = WasmtimeEngine()
LIMIT = 1 << 20
TEXT = Primitive("string")
_TEXTS = ListOf(TEXT)
EVENT_TYPE = Record(
    (
        ("id", TEXT),
        ("type", TEXT),
        ("timestamp-ms", Primitive("s64")),
        ("source", TEXT),
        ("metadata", ListOf(Tuple((TEXT, TEXT)))),
        ("payload", BYTES),
        ("confidence", Primitive("f32")),
        ("tags", _TEXTS),
        ("priority", Primitive("u32")),
        ("topic", TEXT),
        ("traceparent", TEXT),
        ("delivery-attempt", Primitive("u32")),
    )
)
ERROR_TYPE = Record((("code", TEXT), ("message", TEXT), ("details", TEXT)))
ANSWER_TYPE = Result(EVENT_TYPE, ERROR_TYPE)


class Echoes:
    """One component called through both marshallers."""

    def __init__(self, kind: WitType) -> None:
        component = Component(ENGINE, echo_component(kind))
        (export,) = exports_of(component.type, ENGINE)
        assert export.function is not None, export.why_not
        self.function: Function = export.function
        self._store = Store(ENGINE)
        instance = Linker(ENGINE).instantiate(self._store, component)
        echo = instance.get_func(self._store, "echo")
        self._direct = border.bind(echo, self._store, self.function)
        self._stock = stock.bind(echo, self._store, self.function)

    def direct(self, value: Any, limit: int = LIMIT) -> Any:
        return self._sent(self._direct, value, limit)

    def stock(self, value: Any, limit: int = LIMIT) -> Any:
        return self._sent(self._stock, value, limit)

    def _sent(self, call: border.Call, value: Any, limit: int) -> Any:
        back, zero = call((value, *range(len(FILL))), limit)
        assert zero == 0
        return back


@pytest.fixture(scope="module")
def echoes() -> Callable[[WitType], Echoes]:
    """A component per type, made once."""
    made: dict[WitType, Echoes] = {}

    def find(kind: WitType) -> Echoes:
        if kind not in made:
            made[kind] = Echoes(kind)
        return made[kind]

    return find


def stock_can_tell(kind: WitType | None) -> bool:
    """Whether wasmtime-py finds a value's case: it takes True for an integer's, and anything for
    that of a type which may be None.
    """
    match kind:
        case ListOf(element):
            return stock_can_tell(element)
        case Tuple(elements):
            return all(map(stock_can_tell, elements))
        case Record(fields):
            return all(stock_can_tell(of) for _, of in fields)
        case Option() | Result() | Variant():
            cases = list(stock._cases(kind).values())
            classes = frozenset[type]().union(*(stock._classes(of) for of in cases if of))
            clear = object not in classes and not {bool, int} <= classes
            return (clear or stock._tagged(kind)) and all(map(stock_can_tell, cases))
    return True


def outcome(call: Callable[[], Any]) -> str:
    """What a call gave, as text: -0.0 is not 0.0, and 1 is not True."""
    try:
        return repr(call())
    except TooLarge as error:
        return f"too large: {error.size}"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_both_marshallers_carry_any_value_of_any_type_alike(data: st.DataObject) -> None:
    kind = data.draw(TYPES)
    assume(stock_can_tell(kind))
    both = Echoes(kind)
    for value in data.draw(st.lists(values_of(kind), min_size=1, max_size=4)):
        assert repr(both.direct(value)) == repr(value)
        assert repr(both.stock(value)) == repr(value)
        limit = data.draw(st.integers(0, 60))
        found = outcome(lambda: both.direct(value, limit))
        assert found == outcome(lambda: both.stock(value, limit))


KINDS: list[WitType] = [TEXT, BYTES, EVENT_TYPE, ANSWER_TYPE]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_both_marshallers_agree_on_texts_binary_and_events(
    echoes: Callable[[WitType], Echoes], data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    value, limit = data.draw(values_of(kind)), data.draw(st.integers(0, 120))
    both = echoes(kind)
    assert outcome(lambda: both.direct(value, limit)) == outcome(lambda: both.stock(value, limit))


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.binary(max_size=5) | st.just("\ud800") | st.builds(Ok) | st.builds(Failed),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_value_of_another_type_is_refused_or_fits_and_harms_nothing(
    echoes: Callable[[WitType], Echoes], data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    wrong = data.draw(ANY)
    if kind == EVENT_TYPE:
        good = data.draw(values_of(EVENT_TYPE))
        wrong = good | {data.draw(st.sampled_from(sorted(good))): wrong}
    if kind == ANSWER_TYPE:
        wrong = Failed({"code": "", "message": wrong, "details": ""})
    both = echoes(kind)
    with contextlib.suppress(TypeError, ValueError):
        both.direct(wrong)
    good = data.draw(values_of(kind))
    assert repr(both.direct(good)) == repr(good)


def test_the_fuzzed_event_is_the_contracts() -> None:
    assert (text_of(EVENT_TYPE), text_of(ERROR_TYPE)) == (EVENT, ERROR)


def test_an_event_passes_with_all_it_has(echoes: Callable[[WitType], Echoes]) -> None:
    event = Event("a.b", bytes(range(256)) * 20, {"k": "v"}, tags=("x", "ü"), topic="audio.mic")
    record = event_record(event)
    back = echoes(EVENT_TYPE).direct(record)
    assert back == record | {"tags": ["x", "ü"], "metadata": [("k", "v")]}


@pytest.mark.parametrize("mode", ["direct", "stock"])
def test_a_length_is_compared_before_anything_is_read(
    echoes: Callable[[WitType], Echoes], mode: str
) -> None:
    for kind, value in ((TEXT, "ü" * 500), (BYTES, bytes(1000))):
        call = getattr(echoes(kind), mode)
        assert call(value, 1000) == value
        with pytest.raises(TooLarge) as caught:
            call(value, 999)
        assert caught.value.size == 1000
    with pytest.raises(ValueError, match="at most"):
        getattr(echoes(BYTES), mode)(bytes(MAX_BINARY + 1))


@pytest.mark.parametrize("size", [LIMIT + 1, 2**31, 2**63, 2**64 - 1])
@pytest.mark.parametrize("kind", [TEXT, BYTES, _TEXTS, ListOf(Primitive("u64"))], ids=text_of)
def test_a_length_that_lies_is_refused_without_a_look(kind: WitType, size: int) -> None:
    """The address is one that cannot be read: a look would end this process."""
    words = array("Q", [0, size, 8, 0])
    with pytest.raises(TooLarge):
        marshal.codec_of(kind).lift(words, 0, LIMIT)


@pytest.mark.parametrize("kind", [Enum(("on", "off")), Variant((("on", None),))], ids=text_of)
def test_a_name_that_lies_is_refused_without_a_look(kind: WitType) -> None:
    with pytest.raises(TooLarge):
        marshal.codec_of(kind).lift(array("Q", [0, 1 << 40, 8, 0]), 0, LIMIT)


def test_what_is_sent_stays_the_hosts_own(echoes: Callable[[WitType], Echoes]) -> None:
    """Wasmtime reads it and no more: the texts and bytes that were sent are as they were."""
    payload, text = bytes(range(200)), "text" * 10
    for _ in range(50):
        assert echoes(BYTES).direct(payload) == bytes(range(200))
        assert echoes(TEXT).direct(text) == "text" * 10
    assert (payload, text) == (bytes(range(200)), "text" * 10)


def test_the_structs_are_those_of_the_pinned_wasmtime() -> None:
    assert border.fits()
    assert importlib.metadata.version("wasmtime") == marshal.CHECKED_VERSION


def test_another_layout_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Value(ctypes.Structure):
        _fields_ = [("kind", ctypes.c_uint64), ("more", ctypes.c_uint64), ("of", ctypes.c_uint64)]

    monkeypatch.setattr(_ffi, "wasmtime_component_val_t", Value)
    assert not border.fits()


def _made(random_: random.Random, kind: WitType) -> Any:
    """A value, some thousand times as fast as Hypothesis makes one."""
    if kind == BYTES:
        return random_.randbytes(random_.choice((0, 1, 7, 40)))
    match kind:
        case Primitive("string"):
            size = random_.choice((0, 1, 5, 30))
            return "".join(chr(random_.choice((65, 0, 0xFC, 0xFFFD, 0x1F600))) for _ in range(size))
        case Primitive("f32"):
            return random_.choice((0.0, -0.0, 1.0, 0.5, float("inf")))
        case Primitive(name):
            return random_.choice((*INTEGERS[name], random_.randint(*INTEGERS[name])))
        case ListOf(element):
            return [_made(random_, element) for _ in range(random_.choice((0, 0, 1, 3)))]
        case Tuple(elements):
            return tuple(_made(random_, of) for of in elements)
        case Record(fields):
            return {name: _made(random_, of) for name, of in fields}
        case Result(ok, err):
            good = random_.random() < 0.5
            side = ok if good else err
            return (Ok if good else Failed)(None if side is None else _made(random_, side))
    raise AssertionError(kind)


def fuzz(echoes: Callable[[WitType], Echoes], seed: int, cases: int) -> int:
    """Cases that were carried, or refused, alike by both; the rest is where they differ."""
    random_, weights = random.Random(seed), (8, 8, 2, 1)
    alike = 0
    for _ in range(cases):
        (kind,) = random_.choices(KINDS, weights)
        value, limit = _made(random_, kind), random_.choice((LIMIT, 6))
        both = echoes(kind)
        found = outcome(lambda: both.direct(value, limit))
        assert found == outcome(lambda: both.stock(value, limit)), (seed, kind, value, limit)
        assert limit < LIMIT or found == repr(value), (seed, kind, value)
        alike += 1
    return alike


def test_a_thousand_cases(echoes: Callable[[WitType], Echoes]) -> None:
    assert fuzz(echoes, 1, 1000) == 1000


@pytest.mark.soak
def test_a_million_cases(echoes: Callable[[WitType], Echoes]) -> None:
    assert fuzz(echoes, random.randrange(1 << 30), 1_000_000) == 1_000_000
