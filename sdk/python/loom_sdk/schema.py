"""JSON Schema from a method's type hints and docstring. Pure standard library."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Annotated, Any, Literal, Union

from . import docstrings, model_types
from .constraints import described
from .errors import ActionFailed, ManifestError
from .hints import (
    LISTS,
    MAPS,
    NO_DEFAULT,
    SETS,
    hints_of,
    is_enum,
    is_named_tuple,
    is_record,
    parts_of,
    unwrapped,
)
from .json_form import json_form
from .schema_refs import inlined, named, refers_to_itself
from .values import Load, is_json, takes

_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    None: {"type": "null"},
    dict: {"type": "object"},
    list: {"type": "array"},
    Any: {},
}
_USE = "str, int, float, bool, list, dict, set, tuple, Literal, an Enum, a dataclass or a TypedDict"


def schema_of(hint: Any, *, answer: bool = False) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a type hint.

    Takes str, int, float, bool, None, Any, list, dict, set, tuple, Literal, Enum, Optional and
    unions, dataclasses, TypedDict, NamedTuple (an array), pydantic models, NewType and type
    aliases, and Annotated; see `constraints.described`. Records within others stand in `$defs`.

    Args:
        answer: the schema of what is returned, where that differs: a pydantic model's defaults.

    Raises:
        ManifestError: the hint has no JSON form, or refers to itself; the message names it and
            what to use instead.
    """
    making = _Making(answer)
    return making.whole(making.of(hint))


class _Making:
    """One schema in the making: what its `$defs` will hold, and what is open just now."""

    def __init__(self, answer: bool = False) -> None:
        self._answer = answer
        self._defs: dict[str, Any] = {}
        self._kinds: dict[str, Any] = {}
        self._open: list[Any] = []

    def whole(self, schema: dict[str, Any]) -> dict[str, Any]:
        """With its `$defs`; where all of it is one of these, that one itself."""
        reference = schema.get("$ref", "")
        if set(schema) <= {"$ref", "description"} and reference:
            told = {"description": schema["description"]} if "description" in schema else {}
            schema = self._defs.pop(reference.rpartition("/")[2]) | told
        return schema | ({"$defs": self._defs} if self._defs else {})

    def of(self, hint: Any) -> dict[str, Any]:
        hint = unwrapped(hint)
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if origin is Annotated:
            return described(self.of(args[0]), args[1:])
        if origin is None:
            return self._single(hint)
        if origin is Literal:
            return {"enum": [json_form(value) for value in args]}
        if origin in (Union, types.UnionType):
            return {"anyOf": [self.of(arg) for arg in args]}
        if origin in LISTS:
            return {"type": "array", "items": self.of(args[0] if args else Any)}
        if origin in SETS:
            return {"type": "array", "items": self.of(args[0]), "uniqueItems": True}
        if origin is tuple:
            return self._tuple(args)
        if origin in MAPS:
            return self._map(*(args or (str, Any)))
        raise _none(hint)

    def _single(self, hint: Any) -> dict[str, Any]:
        if hint in _PLAIN:
            return dict(_PLAIN[hint])
        if hint in (set, frozenset):
            return {"type": "array", "uniqueItems": True}
        if hint is tuple:
            return {"type": "array"}
        if is_enum(hint):
            return _enum(hint)
        if is_record(hint):
            return self._record(hint)
        if model_types.is_model(hint):
            return self._define(hint, inlined(model_types.schema_of_model(hint, self._answer)))
        raise _none(hint)

    def _tuple(self, args: tuple[Any, ...]) -> dict[str, Any]:
        if len(args) == 2 and args[1] is Ellipsis:
            return {"type": "array", "items": self.of(args[0])}
        items = [self.of(arg) for arg in args]
        fixed = {"minItems": len(items), "maxItems": len(items)}
        return {"type": "array", **({"prefixItems": items} if items else {}), **fixed}

    def _map(self, key: Any, value: Any) -> dict[str, Any]:
        keys = self.of(key)
        if keys.get("type") != "string" and not all(
            isinstance(option, str) for option in keys.get("enum", (None,))
        ):
            raise ManifestError(f"no JSON Schema for a dict by {key!r}: JSON's keys are texts")
        names = {} if keys == {"type": "string"} else {"propertyNames": keys}
        return {"type": "object", "additionalProperties": self.of(value), **names}

    def _record(self, kind: type) -> dict[str, Any]:
        if kind in self._open:
            raise refers_to_itself(kind.__name__)
        if self._kinds.get(kind.__name__) is kind:
            return {"$ref": f"#/$defs/{kind.__name__}"}
        self._open.append(kind)
        body = self._row(kind) if is_named_tuple(kind) else self._object(kind)
        self._open.pop()
        told = docstrings.summary(docstrings.text_of(kind))
        return self._define(kind, body | ({"description": told} if told else {}))

    def _define(self, kind: type, body: dict[str, Any]) -> dict[str, Any]:
        name = kind.__name__
        if self._kinds.setdefault(name, kind) is not kind:
            raise ManifestError(f"two types of one schema are called {name}: rename one")
        self._defs[name] = body
        return {"$ref": f"#/$defs/{name}"}

    def _row(self, kind: Any) -> dict[str, Any]:
        parts = parts_of(kind)
        items = [{"title": part.name, **self.of(part.hint)} for part in parts]
        least = sum(part.required for part in parts)
        return {
            "type": "array", "prefixItems": items, "minItems": least, "maxItems": len(items),
        }  # fmt: skip

    def _object(self, kind: Any) -> dict[str, Any]:
        told = docstrings.parameters(docstrings.text_of(kind))
        parts = parts_of(kind)
        required = [part.name for part in parts if part.required]
        if typing.is_typeddict(kind):
            required.sort()
        return closed(
            {part.name: self.entry(part.hint, part.default, told.get(part.name)) for part in parts},
            required,
        )

    def entry(self, hint: Any, default: Any, told: str | None) -> dict[str, Any]:
        """Of one parameter or field, with its default and description."""
        schema = self.of(hint)
        if told:
            schema.setdefault("description", told)
        if default is not NO_DEFAULT and default is not None:
            schema["default"] = _default(default)
        return schema


def _enum(kind: type[Enum]) -> dict[str, Any]:
    values = [member.value for member in kind]
    if not all(value is None or isinstance(value, str | int | float) for value in values):
        raise ManifestError(f"no JSON Schema for {kind.__name__}: give it texts or numbers")
    told = docstrings.summary(docstrings.text_of(kind))
    return {"enum": values} | ({"description": told} if told else {})


def _default(value: Any) -> Any:
    try:
        return json_form(value)
    except ActionFailed as error:
        raise ManifestError(f"the default {value!r}: {error.message}") from error


def _none(hint: Any) -> ManifestError:
    return ManifestError(f"no JSON Schema for {hint!r}: use {_USE}")


def closed(properties: Mapping[str, Any], required: Sequence[str]) -> dict[str, Any]:
    """Of an object that has these properties and no others."""
    schema: dict[str, Any] = {"type": "object", "properties": dict(properties)}
    if required:
        schema["required"] = list(required)
    return schema | {"additionalProperties": False}


def input_schema(method: Callable[..., Any]) -> dict[str, Any]:
    """Schema of a capability's arguments: the parameters after `self` and `ctx`.

    Raises:
        ManifestError: as `schema_of`; the message begins with the method and the parameter.
    """
    hints, making = hints_of(method), _Making()
    told = docstrings.parameters(docstrings.text_of(method))
    properties: dict[str, Any] = {}
    required: list[str] = []
    for name, parameter in parameters(method).items():
        default = parameter.default
        with named(method, name):
            needed = default is inspect.Parameter.empty
            properties[name] = making.entry(
                hints.get(name, Any), NO_DEFAULT if needed else default, told.get(name)
            )
        if needed:
            required.append(name)
    with named(method):
        return making.whole(closed(properties, required))


def output_schema(method: Callable[..., Any]) -> dict[str, Any] | None:
    """Schema of what the method returns, or None where the hint says nothing."""
    hint = hints_of(method).get("return")
    if hint is None or hint is Any or getattr(hint, "__name__", "") == "Result":
        return None
    with named(method, "return"):
        return schema_of(hint, answer=True)


def description(method: Callable[..., Any]) -> str:
    """First paragraph of the docstring on one line."""
    return docstrings.summary(docstrings.text_of(method))


def coercions(method: Callable[..., Any]) -> dict[str, Load]:
    """For each parameter whose value is not the JSON itself: what makes it of that."""
    return takes(hints_of(method), parameters(method))


def answers_json(method: Callable[..., Any]) -> bool:
    """Whether what it returns is JSON as it stands, by its hint."""
    return is_json(hints_of(method).get("return", Any))


def parameters(method: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Those that are arguments of a capability."""
    found = inspect.signature(method).parameters
    return {name: p for name, p in found.items() if name not in ("self", "ctx")}
