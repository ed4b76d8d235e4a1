"""What `Annotated` adds to a type: JSON Schema keywords from `Field`, notes and other libraries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import ManifestError

_BOUNDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
}
"""Attribute, as annotated-types, pydantic and `Field` call it, to keyword."""
_LENGTHS = {
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
    "object": ("minProperties", "maxProperties"),
}
_CHANGES = ("strip_whitespace", "to_upper", "to_lower")
_KEYWORDS = frozenset(
    [
        *_BOUNDS.values(),
        *(word for pair in _LENGTHS.values() for word in pair),
        *("$comment", "title", "description", "default", "examples", "deprecated", "readOnly"),
        *("writeOnly", "type", "enum", "const", "format", "pattern", "contentEncoding"),
        *("contentMediaType", "items", "prefixItems", "contains", "minContains", "maxContains"),
        *("uniqueItems", "properties", "patternProperties", "additionalProperties"),
        *("propertyNames", "required", "dependentRequired", "allOf", "anyOf", "oneOf", "not"),
        *("if", "then", "else"),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Limits and a description of a parameter or field: `Annotated[int, Field(ge=1, le=7)]`.

    Pure standard library, so that it is there in every tier; what annotated-types and pydantic
    call the same is taken as well.
    """

    description: str = ""
    ge: float | None = None
    """At least this."""
    gt: float | None = None
    le: float | None = None
    """At most this."""
    lt: float | None = None
    multiple_of: float | None = None
    min_length: int | None = None
    """Of a text in characters, of a list or dict in entries."""
    max_length: int | None = None
    pattern: str | None = None
    """Regular expression that is found somewhere in the text; `^` and `$` hold it to all of it."""


def described(schema: dict[str, Any], notes: Sequence[Any]) -> dict[str, Any]:
    """The schema of a type with what its `Annotated` notes say.

    Takes texts (description), dicts (schema keywords), `Field`, compiled patterns, and what
    annotated-types and pydantic define. Other notes are left to those whose they are.

    Raises:
        ManifestError: a limit does not fit the type or has no JSON form, or a keyword is unknown.
    """
    found = dict(schema)
    for note in notes:
        found |= _keywords(note, found)
    return found


def _keywords(note: Any, schema: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(note, str):
        return {"description": note}
    if isinstance(note, Mapping):
        return _checked(note)
    if isinstance(note, type):
        return {}
    found = _text_of(note)
    # annotated-types groups limits, pydantic keeps them in a list
    inner = getattr(note, "metadata", None)
    group = inner if isinstance(inner, list) else note if _is_group(note) else ()
    for part in group:
        found |= _keywords(part, schema)
    found |= _bounds(note, schema) | _lengths(note, schema) | _pattern(note, schema)
    _refuse_unheld(note)
    return found


def _refuse_unheld(note: Any) -> None:
    """What looks like a limit, and would silently be none."""
    changes = [name for name in _CHANGES if getattr(note, name, None)]
    if changes or type(note).__name__ in ("Predicate", "Timezone"):
        what = f"{changes[0]} of {note!r}" if changes else repr(note)
        raise ManifestError(f"{what} has no JSON Schema: do it in the method's own code")


def _is_group(note: Any) -> bool:
    return isinstance(note, Iterable) and bool(
        getattr(note, "__is_annotated_types_grouped_metadata__", False)
    )


def _checked(note: Mapping[str, Any]) -> dict[str, Any]:
    unknown = [key for key in note if key not in _KEYWORDS and not key.startswith("x-")]
    if unknown:
        raise ManifestError(
            f"{unknown[0]!r} is no keyword of JSON Schema: write one such as 'minimum', or begin "
            "a name of your own with 'x-'"
        )
    return dict(note)


def _text_of(note: Any) -> dict[str, Any]:
    for name in ("description", "documentation"):
        text = getattr(note, name, None)
        if isinstance(text, str) and text:
            return {"description": text}
    return {}


def _bounds(note: Any, schema: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, keyword in _BOUNDS.items():
        value = getattr(note, name, None)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ManifestError(f"{note!r}: {name} must be a number to have a JSON Schema")
        _fits(note, schema, ("integer", "number"))
        found[keyword] = value
    return found


def _lengths(note: Any, schema: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    least, most = getattr(note, "min_length", None), getattr(note, "max_length", None)
    if not least and most is None:
        return found
    for kind in _fits(note, schema, tuple(_LENGTHS)):
        first, last = _LENGTHS[kind]
        found |= {first: least} if least else {}
        found |= {last: most} if most is not None else {}
    return found


def _pattern(note: Any, schema: Mapping[str, Any]) -> dict[str, Any]:
    pattern = note if isinstance(note, re.Pattern) else getattr(note, "pattern", None)
    if isinstance(pattern, re.Pattern):
        if pattern.flags & ~re.UNICODE:
            raise ManifestError(f"{pattern!r}: JSON Schema knows no flags: write it without")
        pattern = pattern.pattern
    if not isinstance(pattern, str):
        return {}
    _fits(note, schema, ("string",))
    return {"pattern": pattern}


def _fits(note: Any, schema: Mapping[str, Any], kinds: tuple[str, ...]) -> list[str]:
    """Those of `kinds` that a value may be of."""
    found = [kind for kind in kinds if kind in types_of(schema)]
    if not found:
        raise ManifestError(f"{note!r} says nothing of a type whose JSON is {dict(schema)}")
    return found


def types_of(schema: Mapping[str, Any]) -> set[str]:
    """The JSON types that a schema names, also below `anyOf`."""
    named = schema.get("type", ())
    found = {named} if isinstance(named, str) else set(named)
    for option in schema.get("anyOf", ()):
        found |= types_of(option)
    return found
