"""Type hints taken apart: what `schema` and `values` both have to know of them."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import MISSING, dataclass
from enum import Enum, Flag
from typing import Annotated, Any, NotRequired, Required

from .errors import ManifestError

LISTS = (list, Sequence, MutableSequence, Iterable)
SETS = (set, frozenset, AbstractSet)
MAPS = (dict, Mapping, MutableMapping)
NO_DEFAULT: Any = object()
_WRAPPERS = {Required: True, NotRequired: False}
_READ_ONLY = getattr(typing, "ReadOnly", None)  # from Python 3.13 on


@dataclass(frozen=True, slots=True)
class Part:
    """One named field of a dataclass, TypedDict or NamedTuple."""

    name: str
    hint: Any
    required: bool
    default: Any = NO_DEFAULT


def hints_of(thing: Any) -> dict[str, Any]:
    """Its type hints, with what `Annotated` says.

    Raises:
        ManifestError: a hint names what is not there when the plugin runs.
    """
    try:
        return typing.get_type_hints(thing, include_extras=True)
    except NameError as error:
        name = getattr(thing, "__qualname__", repr(thing))
        raise ManifestError(
            f"{name}: its type hints cannot be read: {error}. Import it, or define it at the top "
            "of its module; an import under TYPE_CHECKING is not there when the plugin runs"
        ) from error


def unwrapped(hint: Any) -> Any:
    """The type that a NewType or `type X = ...` is another name of."""
    while True:
        if hasattr(hint, "__supertype__"):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":
            hint = hint.__value__
        else:
            return hint


def is_record(hint: Any) -> bool:
    """Whether it is a class with named fields: a dataclass, TypedDict or NamedTuple."""
    return isinstance(hint, type) and (
        dataclasses.is_dataclass(hint) or typing.is_typeddict(hint) or is_named_tuple(hint)
    )


def is_enum(hint: Any) -> bool:
    """One whose members are all of its values, as those of a Flag are not."""
    return isinstance(hint, type) and issubclass(hint, Enum) and not issubclass(hint, Flag)


def is_named_tuple(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields")


def parts_of(kind: Any) -> list[Part]:
    """The fields of a record, in order. A dataclass's `init=False` fields are its own affair."""
    hints = hints_of(kind)
    if dataclasses.is_dataclass(kind):
        taken = [item for item in dataclasses.fields(kind) if item.init]
        return [_field(item, hints[item.name]) for item in taken]
    if typing.is_typeddict(kind):
        return [_key(name, hint, kind.__required_keys__) for name, hint in hints.items()]
    defaults: Mapping[str, Any] = kind._field_defaults
    return [
        Part(name, hints.get(name, Any), name not in defaults, defaults.get(name, NO_DEFAULT))
        for name in kind._fields
    ]


def _field(item: dataclasses.Field[Any], hint: Any) -> Part:
    required = item.default is MISSING and item.default_factory is MISSING
    return Part(item.name, hint, required, NO_DEFAULT if item.default is MISSING else item.default)


def _key(name: str, hint: Any, required_keys: frozenset[str]) -> Part:
    """Python reads `Required` and `NotRequired` wrongly where annotations are kept as text."""
    required, notes = name in required_keys, ()
    while True:
        origin = typing.get_origin(hint)
        if origin is Annotated:
            notes, hint = (*hint.__metadata__, *notes), hint.__origin__
        elif origin in _WRAPPERS or (origin is not None and origin is _READ_ONLY):
            required = _WRAPPERS.get(origin, required)
            (hint,) = typing.get_args(hint)
        else:
            break
    return Part(name, Annotated[(hint, *notes)] if notes else hint, required)
