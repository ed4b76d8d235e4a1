"""Types of the component model as plain data, and as text.

`read_function` is the only place that asks wasmtime; everything else is pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from wasmtime import _ffi as ffi
from wasmtime.component import _types as t

MAX_TYPE_TEXT = 65_536
"""Longest text of one function's type. Types share their parts, so that a small file can spell out
to a gigabyte; 64 KiB is ten times the largest signature of WASI 0.2."""
MAX_DEPTH = 20
"""Deepest nesting of a type. ctypes follows 255 structures into each other; records reach that at a
depth of 23."""


class Unsupported(Exception):
    """The reason why a function cannot be called with JSON."""


@dataclass(frozen=True, slots=True)
class Primitive:
    name: str
    """`bool`, `u8` ... `s64`, `f32`, `f64`, `char` or `string`."""


@dataclass(frozen=True, slots=True)
class ListOf:
    element: WitType


@dataclass(frozen=True, slots=True)
class Tuple:
    elements: tuple[WitType, ...]


@dataclass(frozen=True, slots=True)
class Record:
    fields: tuple[tuple[str, WitType], ...]


@dataclass(frozen=True, slots=True)
class Variant:
    cases: tuple[tuple[str, WitType | None], ...]


@dataclass(frozen=True, slots=True)
class Enum:
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Flags:
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Option:
    some: WitType


@dataclass(frozen=True, slots=True)
class Result:
    ok: WitType | None
    err: WitType | None


WitType: TypeAlias = Primitive | ListOf | Tuple | Record | Variant | Enum | Flags | Option | Result


@dataclass(frozen=True, slots=True)
class Function:
    """The type of one exported function."""

    parameters: tuple[tuple[str, WitType], ...]
    result: WitType | None


BYTES = ListOf(Primitive("u8"))
INTEGERS = {
    f"{sign}{bits}": (0, 2**bits - 1) if sign == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for sign in "us"
    for bits in (8, 16, 32, 64)
}
"""Smallest and largest value of each integer type."""
NOT_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
"""As in the JSON mapping of Protocol Buffers: JSON has no number for these."""
F32_MAX = 2.0**128 - 2.0**104

_PRIMITIVES: dict[type, Primitive] = {
    getattr(t, name.capitalize()): Primitive(name)
    for name in ("bool", *INTEGERS, "f32", "f64", "char", "string")
}
_HANDLES: dict[type, str] = {
    t.OwnType: "a resource handle",
    t.BorrowType: "a resource handle",
    t.StreamType: "a stream",
    t.FutureType: "a future",
    t.ErrorContext: "an error context",
}


def read_function(kind: Any) -> Function:
    """A wasmtime function type as plain data.

    Raises:
        Unsupported: JSON cannot carry it, or it is too large to be spelled out.
    """
    if ffi.wasmtime_component_func_type_async(kind.ptr()):
        raise Unsupported("it is async, and this host calls synchronously")
    reader = _Reader()
    parameters = tuple((reader.name(name), reader.read(of)) for name, of in kind.params)
    return Function(parameters, None if kind.result is None else reader.read(kind.result))


class _Reader:
    """Reads types until their text is longer than `MAX_TYPE_TEXT`."""

    def __init__(self) -> None:
        self._left, self._depth = MAX_TYPE_TEXT, 0

    def name(self, name: str) -> str:
        self._left -= len(name) + 8
        if self._left < 0:
            raise Unsupported(f"its type is longer than {MAX_TYPE_TEXT} characters")
        return name

    def read(self, kind: Any) -> WitType:
        self.name("")
        if type(kind) in _PRIMITIVES:
            return _PRIMITIVES[type(kind)]
        if type(kind) in _HANDLES:
            raise Unsupported(f"its type has {_HANDLES[type(kind)]}, which JSON cannot carry")
        read = _COMPOUNDS.get(type(kind))
        if read is None:
            raise Unsupported(f"this host does not know {type(kind).__name__}")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unsupported(f"its type is nested deeper than {MAX_DEPTH}")
        made: WitType = read(self, kind)
        self._depth -= 1
        return made

    def either(self, kind: Any) -> WitType | None:
        return None if kind is None else self.read(kind)

    def names(self, names: list[str]) -> tuple[str, ...]:
        return tuple(map(self.name, names))


_COMPOUNDS: dict[type, Any] = {
    t.ListType: lambda reader, kind: ListOf(reader.read(kind.element)),
    t.TupleType: lambda reader, kind: Tuple(tuple(map(reader.read, kind.elements))),
    t.RecordType: lambda reader, kind: Record(
        tuple((reader.name(name), reader.read(of)) for name, of in kind.fields)
    ),
    t.VariantType: lambda reader, kind: Variant(
        tuple((reader.name(name), reader.either(of)) for name, of in kind.cases)
    ),
    t.EnumType: lambda reader, kind: Enum(reader.names(kind.names)),
    t.FlagsType: lambda reader, kind: Flags(reader.names(kind.names)),
    t.OptionType: lambda reader, kind: Option(reader.read(kind.payload)),
    t.ResultType: lambda reader, kind: Result(reader.either(kind.ok), reader.either(kind.err)),
}


def text_of(kind: WitType | None) -> str:
    """The type as WIT writes it, named types spelled out."""
    match kind:
        case None:
            return "_"
        case Primitive(name):
            return name
        case ListOf(element):
            return f"list<{text_of(element)}>"
        case Tuple(elements):
            return f"tuple<{', '.join(map(text_of, elements))}>"
        case Record(fields):
            return f"record {{ {', '.join(f'{name}: {text_of(of)}' for name, of in fields)} }}"
        case Variant(cases):
            return f"variant {{ {', '.join(_case_text(name, of) for name, of in cases)} }}"
        case Enum(names):
            return f"enum {{ {', '.join(names)} }}"
        case Flags(names):
            return f"flags {{ {', '.join(names)} }}"
        case Option(some):
            return f"option<{text_of(some)}>"
        case Result(ok, err):
            return f"result<{text_of(ok)}, {text_of(err)}>" if err else f"result<{text_of(ok)}>"


def _case_text(name: str, kind: WitType | None) -> str:
    return name if kind is None else f"{name}({text_of(kind)})"


def function_text(function: Function) -> str:
    """`func(a: u8) -> string`."""
    inside = ", ".join(f"{name}: {text_of(kind)}" for name, kind in function.parameters)
    tail = f" -> {text_of(function.result)}" if function.result else ""
    return f"func({inside}){tail}"
