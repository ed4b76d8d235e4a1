"""JSON values -> what a method's type hints name: the same in every tier."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Annotated, Any, Literal, TypeAlias, Union

from . import model_types
from .errors import InvalidArguments
from .hints import (
    LISTS,
    MAPS,
    SETS,
    Part,
    is_enum,
    is_named_tuple,
    is_record,
    parts_of,
    unwrapped,
)
from .json_form import Mismatch, each

Load: TypeAlias = Callable[[Any], Any]


def arguments_of(
    loads: Mapping[str, Load], arguments: Mapping[str, Any], capability: str
) -> dict[str, Any]:
    """The arguments of a call as its method takes them.

    Raises:
        InvalidArguments: names the capability, the place and what is wanted there.
    """
    made = dict(arguments)
    for name, load in loads.items():
        if name in made:
            try:
                made[name] = load(made[name])
            except Mismatch as wrong:
                place = "/".join((name, *wrong.path))
                raise InvalidArguments(f"{capability}: {place}: {wrong.reason}") from wrong
    return made


def is_json(hint: Any) -> bool:
    """Whether a value of this hint is the JSON value itself, whichever way it goes."""
    hint = unwrapped(hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is None:
        return hint in (str, float, bool, type(None), None, dict, list, Any)
    if origin is Annotated:
        return is_json(args[0])
    if origin is Literal:
        return all(type(arg) in (str, bool, type(None)) for arg in args)
    whole = origin in (Union, types.UnionType) or origin in LISTS or origin in MAPS
    return whole and all(is_json(arg) for arg in args)


def loader(hint: Any) -> Load:
    """What makes a value of this hint from a JSON value that fits its schema.

    The loader raises Mismatch, with the place, for a value of another form. Limits that
    `Annotated` adds are the schema's, which the host checks.
    """
    hint = unwrapped(hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is None:
        return _single(hint)
    if origin is Annotated:
        return loader(args[0])
    if origin is Literal:
        return _one_of([(_raw(arg), arg) for arg in args])
    if origin in (Union, types.UnionType):
        return _union([loader(arg) for arg in args])
    if origin in MAPS:
        return _map(*(loader(arg) for arg in args)) if args else _map(_text, _any)
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        return _row([loader(arg) for arg in args], len(args), lambda values: tuple(values))
    item = loader(args[0]) if args else _any
    if origin in SETS:
        return _set(item, frozenset if origin is frozenset else set)
    return _list(item, tuple if origin is tuple else None)


def _single(hint: Any) -> Load:
    if hint in _SINGLE:
        return _SINGLE[hint]
    if hint in (set, frozenset):
        return _set(_any, hint)
    if is_enum(hint):
        return _one_of([(member.value, member) for member in hint])
    if is_named_tuple(hint):
        parts = parts_of(hint)
        least = sum(part.required for part in parts)
        return _row([loader(part.hint) for part in parts], least, lambda values: hint(*values))
    if is_record(hint):
        return _record(hint, parts_of(hint))
    return _model(hint)


def _wanted(what: str, value: Any) -> Mismatch:
    text = repr(value)
    return Mismatch(f"{what} is wanted, not {text if len(text) <= 60 else f'{text[:57]}...'}")


def _any(value: Any) -> Any:
    return value


def _text(value: Any) -> Any:
    if isinstance(value, str):
        return value
    raise _wanted("a text", value)


def _whole(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 1.0 is an integer in JSON
    raise _wanted("a whole number", value)


def _number(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise _wanted("a number", value)


def _yes_no(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    raise _wanted("true or false", value)


def _nothing(value: Any) -> Any:
    if value is None:
        return value
    raise _wanted("null", value)


def _plain_list(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return value
    raise _wanted("a list", value)


def _plain_object(value: Any) -> Any:
    if isinstance(value, Mapping):
        return value
    raise _wanted("an object", value)


def _plain_tuple(value: Any) -> Any:
    return tuple(_plain_list(value))


_SINGLE: dict[Any, Load] = {
    str: _text, int: _whole, float: _number, bool: _yes_no, type(None): _nothing, None: _nothing,
    list: _plain_list, dict: _plain_object, tuple: _plain_tuple, Any: _any,
}  # fmt: skip


def _raw(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _one_of(choices: Sequence[tuple[Any, Any]]) -> Load:
    """Equal as in JSON: 1 and 1.0 are, 1 and true are not."""
    known = {(isinstance(raw, bool), raw): choice for raw, choice in choices}
    listed = ", ".join(repr(raw) for raw, _ in choices)

    def load(value: Any) -> Any:
        try:
            return known[isinstance(value, bool), value]
        except (KeyError, TypeError):
            raise _wanted(f"one of {listed}", value) from None

    return load


def _union(options: Sequence[Load]) -> Load:
    def load(value: Any) -> Any:
        wrong: list[Mismatch] = []
        for option in options:
            try:
                return option(value)
            except Mismatch as mismatch:
                wrong.append(mismatch)
        deepest = max(wrong, key=lambda mismatch: len(mismatch.path))
        if deepest.path:
            raise deepest
        raise Mismatch("; or ".join(mismatch.reason for mismatch in wrong))

    return load


def _list(item: Load, kind: Callable[[list[Any]], Any] | None) -> Load:
    def load(value: Any) -> Any:
        made = each(item, _plain_list(value))
        return made if kind is None else kind(made)

    return load


def _set(item: Load, kind: Callable[[list[Any]], Any]) -> Load:
    def load(value: Any) -> Any:
        items = each(item, _plain_list(value))
        try:
            made = kind(items)
        except TypeError:
            raise _wanted("a list of texts, numbers or the like", value) from None
        if len(made) != len(items):
            raise _wanted("a list without repetition", value)
        return made

    return load


def _row(loads: Sequence[Load], least: int, kind: Callable[[list[Any]], Any]) -> Load:
    def load(value: Any) -> Any:
        values = _plain_list(value)
        if not least <= len(values) <= len(loads):
            raise _wanted(f"a list of {len(loads)}", value)
        made: list[Any] = []
        try:
            for item, part in zip(loads, values, strict=False):
                made.append(item(part))
        except Mismatch as wrong:
            raise wrong.within(len(made)) from None
        return kind(made)

    return load


def _map(key: Load, item: Load) -> Load:
    def load(value: Any) -> Any:
        name, made = "", {}
        for name, part in _plain_object(value).items():
            try:
                made[key(name)] = item(part)
            except Mismatch as wrong:
                raise wrong.within(name) from None
        return made

    return load


def _record(kind: Any, parts: Sequence[Part]) -> Load:
    loads = {part.name: loader(part.hint) for part in parts}
    required = [part.name for part in parts if part.required]

    def load(value: Any) -> Any:
        made = {}
        for name, part in _plain_object(value).items():
            if name not in loads:
                known = ", ".join(loads)
                raise Mismatch(f"is unknown; {kind.__name__} has: {known}", (str(name),))
            try:
                made[name] = loads[name](part)
            except Mismatch as wrong:
                raise wrong.within(name) from None
        for name in required:
            if name not in made:
                raise Mismatch("is missing", (name,))
        return _built(kind, made)

    return load


def _built(kind: Any, fields: dict[str, Any]) -> Any:
    try:
        return kind(**fields)
    except ValueError as error:  # of its __post_init__
        raise Mismatch(str(error)) from error


def _model(kind: Any) -> Load:
    def load(value: Any) -> Any:
        try:
            return model_types.load_model(kind, value)
        except ValueError as error:
            places = model_types.wrong_places(error) or [((), str(error))]
            (path, reason), *more = places
            also = "".join(f"; {'/'.join(place)}: {text}" for place, text in more[:2])
            raise Mismatch(reason + also, path) from error

    return load


def takes(hints: Mapping[str, Any], names: Iterable[str]) -> dict[str, Load]:
    """Loaders of those parameters that need one, by name."""
    kept = {name: hints[name] for name in names if name in hints}
    return {name: loader(hint) for name, hint in kept.items() if not is_json(hint)}
