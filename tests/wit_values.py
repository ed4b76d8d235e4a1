"""Hypothesis strategies for WIT types and for component values of each."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from hypothesis import strategies as st

from loom_host.runtimes.wasm.component_types import (
    BYTES,
    INTEGERS,
    Enum,
    Flags,
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


def values_of(kind: WitType | None) -> st.SearchStrategy[Any]:
    """Component values of a type, in the very form in which they come back."""
    match kind:
        case None:
            return st.none()
        case Primitive(name):
            return _primitive(name)
        case ListOf(element):
            if kind == BYTES:
                return st.binary(max_size=100)
            return st.lists(values_of(element), max_size=4)
        case Tuple(elements):
            return st.tuples(*map(values_of, elements))
        case Record(fields):
            parts = st.tuples(*(values_of(of) for _, of in fields))
            return parts.map(lambda made: dict(zip(map(itemgetter(0), fields), made, strict=True)))
        case Variant(cases):
            return st.one_of(*(values_of(of).map(_case(name)) for name, of in cases))
        case Enum(names):
            return st.sampled_from(names)
        case Flags(names):
            chosen = st.sets(st.sampled_from(names))
            return chosen.map(lambda some: tuple(name for name in names if name in some))
        case Option(some):
            return st.none() | values_of(some).map(Some)
        case Result(ok, err):
            return values_of(ok).map(Ok) | values_of(err).map(Failed)


def _case(name: str) -> Any:
    return lambda value: Case(name, value)


def _primitive(name: str) -> st.SearchStrategy[Any]:
    if name in INTEGERS:
        low, high = INTEGERS[name]
        return st.integers(low, high) | st.sampled_from([low, high])
    if name in ("f32", "f64"):
        return st.floats(allow_nan=False, width=32 if name == "f32" else 64)
    if name == "bool":
        return st.booleans()
    scalar = st.characters(codec="utf-8")
    return scalar if name == "char" else st.text(scalar, max_size=40)
