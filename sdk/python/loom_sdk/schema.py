"""JSON Schema from a method's type hints and docstring. Pure standard library."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal, Union

from .errors import ManifestError

_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    dict: {"type": "object"},
    list: {"type": "array"},
    Any: {},
}


def schema_of(hint: Any) -> dict[str, Any]:
    """JSON Schema of a type hint.

    Takes str, int, float, bool, None, Any, list, dict, tuple, Literal, Optional and unions,
    dataclasses, TypedDict, and Annotated with a description (str) or schema keywords (dict).

    Raises:
        ManifestError: the hint has no JSON form; the message names it and what to use instead.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:  # not hashable where its notes are dicts
        return schema_of(args[0]) | _annotations(args[1:])
    if hint in _PLAIN:
        return dict(_PLAIN[hint])
    if origin is Literal:
        return {"enum": list(args)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema_of(arg) for arg in args]}
    if origin in (list, Sequence, tuple) or origin in (dict, Mapping):
        return _container(origin, args)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = typing.get_type_hints(hint, include_extras=True)
        required = [f.name for f in dataclasses.fields(hint) if _is_required(f)]
        return _object({f.name: hints[f.name] for f in dataclasses.fields(hint)}, required)
    if typing.is_typeddict(hint):
        return _object(
            typing.get_type_hints(hint, include_extras=True), sorted(hint.__required_keys__)
        )
    raise ManifestError(
        f"no JSON Schema for {hint!r}: use str, int, float, bool, list, dict, Literal, "
        "a dataclass or a TypedDict"
    )


def _is_required(item: dataclasses.Field[Any]) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def _annotations(extras: Sequence[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for extra in extras:
        if isinstance(extra, str):
            found["description"] = extra
        elif isinstance(extra, Mapping):
            found.update(extra)
    return found


def _container(origin: Any, args: tuple[Any, ...]) -> dict[str, Any]:
    if origin in (dict, Mapping):
        value = args[1] if len(args) == 2 else Any
        return {"type": "object", "additionalProperties": schema_of(value)}
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        items = [schema_of(arg) for arg in args]
        return {
            "type": "array",
            "prefixItems": items,
            "minItems": len(items),
            "maxItems": len(items),
        }
    return {"type": "array", "items": schema_of(args[0] if args else Any)}


def _object(hints: Mapping[str, Any], required: Sequence[str]) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: schema_of(hint) for name, hint in hints.items()},
        "additionalProperties": False,
    }
    if required:
        schema["required"] = list(required)
    return schema


def input_schema(method: Callable[..., Any]) -> dict[str, Any]:
    """Schema of a capability's arguments: the parameters after `self` and `ctx`."""
    hints = typing.get_type_hints(method, include_extras=True)
    docs = _argument_docs(method)
    properties: dict[str, Any] = {}
    required: list[str] = []
    for name, parameter in _parameters(method).items():
        schema = schema_of(hints.get(name, Any))
        if name in docs:
            schema.setdefault("description", docs[name])
        if parameter.default is inspect.Parameter.empty:
            required.append(name)
        elif parameter.default is not None:
            schema["default"] = parameter.default
        properties[name] = schema
    result: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        result["required"] = required
    return result | {"additionalProperties": False}


def output_schema(method: Callable[..., Any]) -> dict[str, Any] | None:
    """Schema of what the method returns, or None where the hint says nothing."""
    hint = typing.get_type_hints(method, include_extras=True).get("return")
    if hint is None or hint is Any or getattr(hint, "__name__", "") == "Result":
        return None
    return schema_of(hint)


def description(method: Callable[..., Any]) -> str:
    """First paragraph of the docstring on one line."""
    text = inspect.getdoc(method) or ""
    return " ".join(text.split("\n\n")[0].split())


def coercions(method: Callable[..., Any]) -> dict[str, Callable[[Any], Any]]:
    """For each parameter that is a dataclass: how to build it from its JSON object."""
    hints = typing.get_type_hints(method)
    return {
        name: partial(_build, hints[name])
        for name in _parameters(method)
        if dataclasses.is_dataclass(hints.get(name))
    }


def _build(kind: Callable[..., Any], value: Mapping[str, Any]) -> Any:
    return kind(**value)


def _parameters(method: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(method).parameters
    return {name: p for name, p in parameters.items() if name not in ("self", "ctx")}


def _argument_docs(method: Callable[..., Any]) -> dict[str, str]:
    """The `Args:` section of a docstring, name to text."""
    text = inspect.getdoc(method) or ""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?)+)", text, re.MULTILINE)
    if section is None:
        return {}
    pairs = re.findall(r"^\s+(\w+):\s*(.+)$", section.group(1), re.MULTILINE)
    return {name: value.strip() for name, value in pairs}
