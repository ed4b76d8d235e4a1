"""What goes out as JSON: instances as objects, enums by value, sets as lists; in every tier."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any

from . import model_types
from .errors import ActionFailed

SCALARS = (str, int, float, bool, type(None))
PLAIN = (*SCALARS, dict, list)
"""Types of which JSON itself is made."""


class Mismatch(Exception):
    """A value is not what its hint says. `path` leads to it from the outside in."""

    def __init__(self, reason: str, path: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path

    def within(self, place: object) -> Mismatch:
        return Mismatch(self.reason, (str(place), *self.path))


def each(change: Callable[[Any], Any], values: Iterable[Any]) -> list[Any]:
    """The values, changed; a Mismatch tells which one it was."""
    made: list[Any] = []
    try:
        for value in values:
            made.append(change(value))
    except Mismatch as wrong:
        raise wrong.within(len(made)) from None
    return made


def json_form(value: Any) -> Any:
    """What an answer, item or argument is in JSON: instances as objects, enums by their value.

    Sets become lists in order, named tuples lists.

    Raises:
        ActionFailed: some part has no JSON form; the message tells where it stands.
    """
    try:
        return _form(value)
    except Mismatch as wrong:
        place = "/".join(wrong.path)
        raise ActionFailed(
            f"{place}: {wrong.reason}" if place else wrong.reason, code="NOT_JSON"
        ) from None
    except RecursionError:
        raise ActionFailed("a value that holds itself, or too deep", code="NOT_JSON") from None


def _form(value: Any) -> Any:
    kind = type(value)
    if kind in SCALARS:
        return value
    if isinstance(value, Enum):
        return _form(value.value)
    if isinstance(value, Mapping):
        return _form_map(value)
    if isinstance(value, list | tuple):
        return each(_form, value)
    if isinstance(value, set | frozenset):
        return _in_order(each(_form, value))
    if model_types.is_model(kind):
        return model_types.json_of_model(value)
    if dataclasses.is_dataclass(value):
        fields = (item.name for item in dataclasses.fields(value) if item.init)
        return _form_map({name: getattr(value, name) for name in fields})
    if isinstance(value, SCALARS):
        return value  # of a subclass
    raise Mismatch(f"{kind.__name__} has no JSON form: give a text, number, list or object")


def _form_map(value: Mapping[Any, Any]) -> dict[str, Any]:
    made = {}
    for key, part in value.items():
        try:
            made[key.value if isinstance(key, Enum) else key] = _form(part)
        except Mismatch as wrong:
            raise wrong.within(key) from None
    return made


def _in_order(items: list[Any]) -> list[Any]:
    """The same order wherever and whenever it runs, as a set has none."""
    try:
        return sorted(items)
    except TypeError:
        return sorted(items, key=repr)
