"""The stock marshaller: wasmtime-py's own conversions behind the interface of `border.py`.

Slower, above all for binary (0.7 ms for a KB), and without private structs: it serves where
`marshal = "stock"` says so, and with a wasmtime that the direct one was not checked against.

Its own limits remain: a string or list is converted before its length is compared with the limit,
and where it does not tag a variant's value, it takes `true` for the case of an integer and anything
for a case whose own value may be nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

from wasmtime import WasmtimeError
from wasmtime.component import Record as StockRecord
from wasmtime.component import Variant as StockVariant

from . import component_types as wit
from .component_types import BYTES, Function, WitType
from .values import Case, Failed, Ok, Some, TooLarge, bounded_binary

_FLOATS = ("f32", "f64")
Choice: TypeAlias = wit.Option | wit.Result | wit.Variant


def bind(function: Any, store: Any, kind: Function) -> Callable[[tuple[Any, ...], int], Any]:
    """As `border.bind`."""

    def call(arguments: tuple[Any, ...], limit: int) -> Any:
        types = [of for _, of in kind.parameters]
        given = [to_stock(of, value) for of, value in zip(types, arguments, strict=True)]
        return of_stock(kind.result, function(store, *given), limit)

    return call


def serve(
    instance: Any, name: str, kind: Function, function: Callable[..., Any], limit: int
) -> None:
    """As `border.serve`."""

    def served(store: Any, *given: Any) -> Any:
        types = [of for _, of in kind.parameters]
        try:
            arguments = [of_stock(t, value, limit) for t, value in zip(types, given, strict=True)]
            return to_stock(kind.result, function(*arguments))
        except WasmtimeError:
            raise
        except BaseException as error:
            raise WasmtimeError(f"loom: {type(error).__name__}: {error}") from error

    instance.add_func(name, served)


def to_stock(kind: WitType | None, value: Any) -> Any:
    """A component value as wasmtime-py takes it. Raises TypeError, ValueError."""
    match kind:
        case wit.Primitive(name):
            return float(value) if name in _FLOATS else value
        case wit.ListOf(element):
            if kind == BYTES:
                bounded_binary(value)
                return bytes(value)
            return [to_stock(element, item) for item in value]
        case wit.Tuple(elements):
            return tuple(to_stock(of, value[i]) for i, of in enumerate(elements))
        case wit.Record(fields):
            record = StockRecord()
            for name, of in fields:
                setattr(record, name, to_stock(of, value[name]))
            return record
        case wit.Flags():
            return set(value)
        case None | wit.Enum():
            return value
        case wit.Option() | wit.Result() | wit.Variant():
            name, inner = _chosen(value)
            inner = to_stock(_cases(kind)[name], inner)
            return StockVariant(name, inner) if _tagged(kind) else inner


def of_stock(kind: WitType | None, value: Any, limit: int) -> Any:
    """The way back. Raises TooLarge."""
    match kind:
        case wit.Primitive(name):
            return _bounded(value, len(value.encode()), limit) if name == "string" else value
        case wit.ListOf(element):
            _bounded(value, len(value), limit)
            return value if kind == BYTES else [of_stock(element, item, limit) for item in value]
        case wit.Tuple(elements):
            return tuple(of_stock(of, value[i], limit) for i, of in enumerate(elements))
        case wit.Record(fields):
            return {name: of_stock(of, getattr(value, name), limit) for name, of in fields}
        case wit.Flags(names):
            return tuple(name for name in names if name in value)
        case None | wit.Enum():
            return value
        case wit.Option() | wit.Result() | wit.Variant():
            return _made(kind, value, limit)


def _bounded(value: Any, size: int, limit: int) -> Any:
    if size > limit:
        raise TooLarge(size)
    return value


def _chosen(value: Any) -> tuple[str, Any]:
    match value:
        case None:
            return "none", None
        case Some(inner):
            return "some", inner
        case Ok(inner):
            return "ok", inner
        case Failed(inner):
            return "err", inner
        case Case(name, inner):
            return name, inner
    raise TypeError(f"{type(value).__name__} is no option, result or variant")


def _made(kind: Choice, value: Any, limit: int) -> Any:
    cases = _cases(kind)
    name = value.tag if _tagged(kind) else _case_of(cases, value)
    inner = of_stock(cases[name], value.payload if _tagged(kind) else value, limit)
    if isinstance(kind, wit.Option):
        return None if name == "none" else Some(inner)
    if isinstance(kind, wit.Result):
        return Ok(inner) if name == "ok" else Failed(inner)
    return Case(name, inner)


def _case_of(cases: dict[str, WitType | None], value: Any) -> str:
    """The case of an untagged value, which wasmtime-py leaves to be told by its class."""
    for name, of in cases.items():
        if (object if value is None else type(value)) in _classes(of):
            return name
    raise TypeError(f"{type(value).__name__} is the value of no case")


@lru_cache(maxsize=1024)
def _cases(kind: Choice) -> dict[str, WitType | None]:
    match kind:
        case wit.Option(some):
            return {"none": None, "some": some}
        case wit.Result(ok, err):
            return {"ok": ok, "err": err}
        case wit.Variant(cases):
            return dict(cases)


@lru_cache(maxsize=1024)
def _tagged(kind: Choice) -> bool:
    """Whether wasmtime-py wraps the value: the classes of two cases are not disjoint."""
    seen: set[type] = set()
    for of in _cases(kind).values():
        classes = _classes(of)
        if classes & seen:
            return True
        seen |= classes
    return False


_CLASSES: dict[type, type] = {
    wit.Tuple: tuple, wit.Record: StockRecord, wit.Enum: str, wit.Flags: set, wit.ListOf: list
}  # fmt: skip
_OF_PRIMITIVES = {"bool": bool, "f32": float, "f64": float, "char": str, "string": str}


@lru_cache(maxsize=1024)
def _classes(kind: WitType | None) -> frozenset[type]:
    """The Python classes that wasmtime-py makes of a type."""
    match kind:
        case None:
            return frozenset([object])
        case wit.Primitive(name):
            return frozenset([_OF_PRIMITIVES.get(name, int)])
        case wit.Option() | wit.Result() | wit.Variant():
            if _tagged(kind):
                return frozenset([StockVariant])
            return frozenset().union(*map(_classes, _cases(kind).values()))
    return frozenset([bytes if kind == BYTES else _CLASSES[type(kind)]])
