"""Component values to JSON values, by the type of each. The way back of `component_json.py`."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

from loom_sdk.errors import ActionFailed

from . import component_types as wit
from .component_types import BYTES, F32_MAX, Function, WitType
from .values import Ok

_MESSAGE = 500


def to_output(function: Function, answer: Any) -> Any:
    """JSON value of what the function returned.

    Raises:
        ActionFailed: it returned the error side of a `result`; `data` is that side in JSON.
    """
    kind = function.result
    if not isinstance(kind, wit.Result):
        return to_json(kind, answer)
    if isinstance(answer, Ok):
        return to_json(kind.ok, answer.value)
    data = to_json(kind.err, answer.value)
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    raise ActionFailed(text[:_MESSAGE] if data is not None else "it failed", data=data)


def to_json(kind: WitType | None, value: Any) -> Any:
    """JSON value of a component value. The value is believed: wasmtime has checked it."""
    match kind:
        case None | wit.Enum():
            return value
        case wit.Primitive(name):
            return _number(name, value) if name in ("f32", "f64") else value
        case wit.ListOf(element):
            if kind == BYTES:
                return base64.b64encode(value).decode()
            return [to_json(element, item) for item in value]
        case wit.Tuple(elements):
            return [to_json(of, item) for of, item in zip(elements, value, strict=True)]
        case wit.Record(fields):
            return {name: to_json(of, value[name]) for name, of in fields}
        case wit.Variant(cases):
            of = dict(cases)[value.name]
            tag = {"tag": value.name}
            return tag if of is None else {**tag, "val": to_json(of, value.value)}
        case wit.Flags(names):
            return [name for name in names if name in value]
        case wit.Option(some):
            inner = None if value is None else to_json(some, value.value)
            return {"some": inner} if value is not None and isinstance(some, wit.Option) else inner
        case wit.Result(ok, err):
            good = isinstance(value, Ok)
            return {"ok" if good else "err": to_json(ok if good else err, value.value)}


def _number(name: str, value: float) -> float | str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return _shortest_f32(value) if name == "f32" else value


def _shortest_f32(value: float) -> float:
    """The shortest decimal that is this 32-bit number: 0.1, not 0.10000000149011612."""
    packed = struct.pack("f", value)
    for digits in (6, 7, 8):
        short = float(f"{value:.{digits}g}")
        if abs(short) <= F32_MAX and struct.pack("f", short) == packed:
            return short
    return value
