"""JSON Schema of the types of the component model.

How types look in JSON (`component_json.py` converts by the same table):

| WIT | JSON |
|---|---|
| `bool`, `string`, `list<T>` | the same |
| `u8` ... `s64` | whole number within the type's range |
| `f32`, `f64` | number, or one of the texts "NaN", "Infinity", "-Infinity" |
| `char` | text of one Unicode scalar value |
| `list<u8>` | text in base64 |
| `record` | object; a field that is an option may be absent |
| `tuple` | list of that length |
| `variant` | `{"tag": case}`, with `"val"` where the case carries a value |
| `enum` | its name |
| `flags` | list of the names that are set |
| `option<T>` | `null` or the value; a value that is itself an option is `{"some": value}` |
| `result<T, E>` | `{"ok": value}` or `{"err": value}`, `null` where a side carries nothing |
"""

from __future__ import annotations

from typing import Any

from . import component_types as wit
from .component_types import BYTES, F32_MAX, INTEGERS, NOT_FINITE, Function, WitType


def input_schema(function: Function) -> dict[str, Any]:
    """JSON Schema of the arguments: an object with one property per parameter."""
    return _object(function.parameters)


def output_schema(function: Function) -> dict[str, Any]:
    """JSON Schema of the answer. Of a `result` only the good side: the other one is an error."""
    result = function.result
    return schema_of(result.ok if isinstance(result, wit.Result) else result)


def schema_of(kind: WitType | None) -> dict[str, Any]:
    """JSON Schema (2020-12) of one type; None is what carries no value."""
    match kind:
        case None:
            return {"type": "null"}
        case wit.Primitive(name):
            return _primitive(name)
        case wit.ListOf():
            return _list(kind)
        case wit.Tuple(elements):
            items = [schema_of(of) for of in elements]
            size = len(items)
            return {"type": "array", "prefixItems": items, "minItems": size, "maxItems": size}
        case wit.Record(fields):
            return _object(fields)
        case wit.Variant(cases):
            return {"oneOf": [_case(name, of) for name, of in cases]}
        case wit.Enum(names):
            return {"type": "string", "enum": list(names)}
        case wit.Flags(names):
            items_of = {"type": "string", "enum": list(names)}
            return {"type": "array", "items": items_of, "uniqueItems": True}
        case wit.Option(some):
            held = schema_of(some)
            held = _keyed({"some": held}) if isinstance(some, wit.Option) else held
            return {"anyOf": [held, {"type": "null"}]}
        case wit.Result(ok, err):
            return {"oneOf": [_keyed({"ok": schema_of(ok)}), _keyed({"err": schema_of(err)})]}


def _primitive(name: str) -> dict[str, Any]:
    if name in INTEGERS:
        low, high = INTEGERS[name]
        return {"type": "integer", "minimum": low, "maximum": high}
    if name in ("f32", "f64"):
        bounds = {"minimum": -F32_MAX, "maximum": F32_MAX} if name == "f32" else {}
        return {"anyOf": [{"type": "number", **bounds}, {"enum": list(NOT_FINITE)}]}
    if name == "char":
        return {"type": "string", "minLength": 1, "maxLength": 1}
    return {"type": "boolean" if name == "bool" else "string"}


def _list(kind: wit.ListOf) -> dict[str, Any]:
    if kind == BYTES:
        return {"type": "string", "contentEncoding": "base64"}
    return {"type": "array", "items": schema_of(kind.element)}


def _case(name: str, kind: WitType | None) -> dict[str, Any]:
    schema = _object(() if kind is None else (("val", kind),))
    schema["properties"] = {"tag": {"const": name}, **schema["properties"]}
    schema["required"] = ["tag", *schema["required"]]
    return schema


def _keyed(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _object(fields: tuple[tuple[str, WitType], ...]) -> dict[str, Any]:
    schema = _keyed({name: schema_of(kind) for name, kind in fields})
    schema["required"] = [name for name, kind in fields if not isinstance(kind, wit.Option)]
    return schema
