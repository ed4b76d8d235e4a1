"""JSON values to component values, by the type of each; every value is checked.

Component values are those of `values.py`. `component_schema.py` has the table of both sides,
`component_output.py` goes the way back.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

from loom_host.hints import did_you_mean
from loom_sdk.errors import InvalidArguments

from . import component_types as wit
from .component_types import BYTES, F32_MAX, INTEGERS, NOT_FINITE, Function, WitType
from .values import MAX_BINARY, Case, Failed, Ok, Some

_SHOWN = 40
_MESSAGE = 500


def to_values(function: Function, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
    """Component values of a call's arguments, in the order of the parameters.

    Raises:
        InvalidArguments: names the place, such as `points/3/x`, what is there and what must be.
    """
    return tuple(_fields(function.parameters, arguments, "").values())


def to_value(kind: WitType | None, value: Any, path: str) -> Any:
    """One component value. `path` is where the value stands. Raises InvalidArguments."""
    match kind:
        case None:
            return _expect(value is None, path, "null", value)
        case wit.Primitive(name):
            return _primitive(name, value, path)
        case wit.ListOf():
            return _list(kind, value, path)
        case wit.Tuple(elements):
            size = len(elements)
            fits = isinstance(value, list) and len(value) == size
            _expect(fits, path, f"a list of {size}", value)
            return tuple(to_value(of, value[i], _in(path, i)) for i, of in enumerate(elements))
        case wit.Record(fields):
            return _fields(fields, value, path)
        case wit.Variant(cases):
            return _variant(dict(cases), value, path)
        case wit.Enum(names):
            _expect(isinstance(value, str) and value in names, path, _one_of(names), value)
            return value
        case wit.Flags(names):
            return _flags(names, value, path)
        case wit.Option(some):
            return _option(some, value, path)
        case wit.Result(ok, err):
            return _result({"ok": ok, "err": err}, value, path)


def _in(path: str, part: object) -> str:
    return f"{path}/{part}" if path else str(part)


def _expect(fits: bool, path: str, what: str, value: Any) -> None:
    if not fits:
        where = path or "arguments"
        raise InvalidArguments(f"{where}: must be {what}, not {_shown(value)}")


def _shown(value: Any) -> str:
    """The value, or only its kind where it is long or nested."""
    if isinstance(value, dict | list | tuple):
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    if isinstance(value, str):
        return json.dumps(value if len(value) <= _SHOWN else value[:_SHOWN] + "...")
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int):
        # Decimal text of a huge integer costs quadratic time, and Python refuses it.
        return str(value) if abs(value) < 10**_SHOWN else "a larger number"
    return repr(value) if isinstance(value, float) else f"a {type(value).__name__}"


def _one_of(names: tuple[str, ...]) -> str:
    text = ", ".join(names)
    return f"one of {text if len(text) < _MESSAGE else text[:_MESSAGE] + '...'}"


def _primitive(name: str, value: Any, path: str) -> Any:
    if name in INTEGERS:
        return _integer(name, value, path)
    if name in ("f32", "f64"):
        return _float(name, value, path)
    if name == "bool":
        _expect(isinstance(value, bool), path, "true or false", value)
        return value
    char = name == "char"
    what = "a text of one Unicode scalar value" if char else "a text without lone surrogates"
    fits = isinstance(value, str) and (len(value) == 1 or not char) and _is_unicode(value)
    _expect(fits, path, what, value)
    return value


def _is_unicode(text: str) -> bool:
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:  # JSON can write half of a surrogate pair
        return False


def _integer(name: str, value: Any, path: str) -> int:
    low, high = INTEGERS[name]
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON has one kind of number: 1.0 is 1
    fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    _expect(fits, path, f"a whole number from {low} to {high}", value)
    return int(value)


def _float(name: str, value: Any, path: str) -> float:
    if isinstance(value, str) and value in NOT_FINITE:
        return NOT_FINITE[value]
    most = F32_MAX if name == "f32" else math.inf
    texts = ", ".join(f'"{text}"' for text in NOT_FINITE)
    what = f"a number{'' if name == 'f64' else ' that fits 32 bits'} or one of {texts}"
    fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= most
    _expect(fits, path, what, value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    _expect(math.isfinite(number), path, what, value)
    return number


def _list(kind: wit.ListOf, value: Any, path: str) -> Any:
    if kind == BYTES:
        return _bytes(value, path)
    _expect(isinstance(value, list), path, "a list", value)
    _expect(len(value) <= MAX_BINARY, path, f"a list of at most {MAX_BINARY}", value)
    return [to_value(kind.element, item, _in(path, i)) for i, item in enumerate(value)]


def _bytes(value: Any, path: str) -> bytes:
    _expect(isinstance(value, str), path, "a text in base64", value)
    try:
        data = base64.b64decode(value, validate=True)
    except ValueError as error:
        raise InvalidArguments(f"{path}: must be a text in base64: {error}") from error
    if len(data) > MAX_BINARY:
        raise InvalidArguments(f"{path}: must have at most {MAX_BINARY} bytes, not {len(data)}")
    return data


def _fields(fields: tuple[tuple[str, WitType], ...], value: Any, path: str) -> dict[str, Any]:
    names = [name for name, _ in fields]
    _expect(isinstance(value, Mapping), path, "an object", value)
    for key in value:
        if key not in names:
            hint = did_you_mean(key, names, f"known: {', '.join(names) or 'none'}")
            raise InvalidArguments(f"{_in(path, _key(key))}: is not known; {hint[:_MESSAGE]}")
    made = {}
    for name, kind in fields:
        if name not in value and not isinstance(kind, wit.Option):
            raise InvalidArguments(f"{_in(path, name)}: is missing")
        made[name] = to_value(kind, value.get(name), _in(path, name))
    return made


def _key(key: Any) -> str:
    return str(key)[:_SHOWN]


def _variant(cases: Mapping[str, WitType | None], value: Any, path: str) -> Case:
    _expect(isinstance(value, dict), path, 'an object {"tag": ..., "val": ...}', value)
    tag = value.get("tag")
    names = tuple(cases)
    _expect(isinstance(tag, str) and tag in cases, _in(path, "tag"), _one_of(names), tag)
    kind = cases[tag]
    allowed = {"tag"} if kind is None else {"tag", "val"}
    if extra := value.keys() - allowed:
        where = _in(path, min(map(_key, extra)))
        raise InvalidArguments(f"{where}: is not known; {tag!r} takes {sorted(allowed)}")
    if kind is None:
        return Case(tag)
    if "val" not in value and not isinstance(kind, wit.Option):
        raise InvalidArguments(f"{_in(path, 'val')}: is missing")
    return Case(tag, to_value(kind, value.get("val"), _in(path, "val")))


def _flags(names: tuple[str, ...], value: Any, path: str) -> tuple[str, ...]:
    _expect(isinstance(value, list), path, "a list of names", value)
    for index, item in enumerate(value):
        fits = isinstance(item, str) and item in names
        _expect(fits, _in(path, index), _one_of(names), item)
    _expect(len(set(value)) == len(value), path, "a list that names each at most once", value)
    return tuple(name for name in names if name in value)


def _option(some: WitType, value: Any, path: str) -> Some | None:
    if value is None:
        return None
    if not isinstance(some, wit.Option):
        return Some(to_value(some, value, path))
    fits = isinstance(value, dict) and list(value) == ["some"]
    _expect(fits, path, 'null or an object {"some": ...}', value)
    return Some(to_value(some, value["some"], _in(path, "some")))


def _result(sides: Mapping[str, WitType | None], value: Any, path: str) -> Ok | Failed:
    fits = isinstance(value, dict) and len(value) == 1 and not value.keys() - sides.keys()
    _expect(fits, path, 'an object {"ok": ...} or {"err": ...}', value)
    ((side, inner),) = value.items()
    made = to_value(sides[side], inner, _in(path, side))
    return Ok(made) if side == "ok" else Failed(made)
