"""Values across the component border: Python on one side, wasmtime's C structs on the other.

With `marshal.py` the only file that touches wasmtime's private structs; written against wasmtime
50.0.1. Types are walked once per function, not once per call, and `list<u8>` moves as one strided
copy where the layout is the expected one (else element by element, as the stock marshaller does).

In Python a record is a dict by the WIT's field names, a result is `Ok(value)` or `Failed(value)`,
binary is `bytes`. What is read is host-owned memory that wasmtime has already copied and checked.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from wasmtime import _ffi as ffi
from wasmtime.component import _types as t

Val = ffi.wasmtime_component_val_t
_STRIDE = ctypes.sizeof(Val)
_VALUE_AT = Val.of.offset
_LIST, _U8 = ffi.WASMTIME_COMPONENT_LIST.value, ffi.WASMTIME_COMPONENT_U8.value
STRIDED = (_STRIDE, _VALUE_AT, _LIST, _U8) == (32, 8, 13, 2)
"""Whether the layout is the one that the strided copy was written for."""
MAX_BINARY = 128 * 1024**2 // 48
"""Longest `list<u8>`, 2.7 MB: wasmtime lifts each byte to a value of 48 bytes and refuses to copy
more than 128 MiB out of a guest in one call; inwards the same bound keeps the host's memory."""
_EMPTY_U8 = bytes([_U8]) + bytes(_STRIDE - 1)


class TooLarge(Exception):
    """A string or list is longer than the limit, seen before it was converted."""

    def __init__(self, size: int) -> None:
        super().__init__(f"{size} bytes")
        self.size = size


@dataclass(slots=True)
class Ok:
    """The good side of a WIT `result`."""

    value: Any = None


@dataclass(slots=True)
class Failed:
    """The error side of a WIT `result`."""

    value: Any = None


class Codec(NamedTuple):
    """How values of one type move, and the type's text."""

    text: str
    lower: Callable[[Any, Any], None]
    """(python value, C value to fill); what it fills is then owned by wasmtime."""
    lift: Callable[[Any, int], Any]
    """(C value, longest string or list) to Python; frees nothing."""


_SCALARS: dict[type, tuple[str, int, str]] = {
    t.Bool: ("bool", ffi.WASMTIME_COMPONENT_BOOL.value, "boolean"),
    t.U8: ("u8", _U8, "u8"),
    t.U32: ("u32", ffi.WASMTIME_COMPONENT_U32.value, "u32"),
    t.U64: ("u64", ffi.WASMTIME_COMPONENT_U64.value, "u64"),
    t.S32: ("s32", ffi.WASMTIME_COMPONENT_S32.value, "s32"),
    t.S64: ("s64", ffi.WASMTIME_COMPONENT_S64.value, "s64"),
    t.F32: ("f32", ffi.WASMTIME_COMPONENT_F32.value, "f32"),
    t.F64: ("f64", ffi.WASMTIME_COMPONENT_F64.value, "f64"),
}


def codec_of(kind: Any) -> Codec:
    """The codec of a type. Raises TypeError for types that `plugin.wit` does not use."""
    if type(kind) in _SCALARS:
        return _scalar(*_SCALARS[type(kind)])
    if isinstance(kind, t.String):
        return Codec("string", _lower_string, _lift_string)
    if isinstance(kind, t.ListType):
        element = kind.element
        return _bytes_codec() if isinstance(element, t.U8) else _list(codec_of(element))
    if isinstance(kind, t.RecordType):
        return _record([(name, codec_of(field)) for name, field in kind.fields])
    if isinstance(kind, t.TupleType):
        return _tuple([codec_of(element) for element in kind.elements])
    if isinstance(kind, t.EnumType):
        return _enum(kind.names)
    if isinstance(kind, t.OptionType):
        return _option(codec_of(kind.payload))
    if isinstance(kind, t.ResultType):
        return _result(*(None if side is None else codec_of(side) for side in (kind.ok, kind.err)))
    raise TypeError(f"{type(kind).__name__} is not used by plugin.wit")


def _scalar(text: str, number: int, member: str) -> Codec:
    def lower(value: Any, c: Any) -> None:
        c.kind = number
        setattr(c.of, member, value)

    return Codec(text, lower, lambda c, limit: getattr(c.of, member))


def _lower_string(value: str, c: Any) -> None:
    c.of.string = ffi.str_to_capi(value)
    c.kind = ffi.WASMTIME_COMPONENT_STRING.value


def _text(vector: Any, limit: int) -> str:
    if vector.size > limit:
        raise TooLarge(vector.size)
    return ctypes.string_at(vector.data, vector.size).decode() if vector.size else ""


def _lift_string(c: Any, limit: int) -> str:
    return _text(c.of.string, limit)


def _vector(c: Any, kind: Any, size: int) -> Any:
    """An array of `size` harmless values in `c`, so that a failure half way frees cleanly."""
    vector = ffi.wasmtime_component_vallist_t()
    ffi.wasmtime_component_vallist_new_uninit(ctypes.byref(vector), size)
    if size:
        ctypes.memset(vector.data, 0, size * _STRIDE)  # kind 0 is a bool
    c.of.list = vector
    c.kind = kind.value
    return c.of.list.data


def _bytes_codec() -> Codec:
    def lower(value: bytes, c: Any) -> None:
        size = len(value)
        if size > MAX_BINARY:
            raise ValueError(f"{size} bytes of binary, at most {MAX_BINARY} pass at once")
        data = _vector(c, ffi.WASMTIME_COMPONENT_LIST, size)
        if STRIDED and size:
            filled = bytearray(_EMPTY_U8) * size
            filled[_VALUE_AT::_STRIDE] = value
            ctypes.memmove(data, (ctypes.c_char * len(filled)).from_buffer(filled), len(filled))
            return
        for index, byte in enumerate(value):
            data[index].kind = _U8
            data[index].of.u8 = byte

    def lift(c: Any, limit: int) -> bytes:
        size = c.of.list.size
        if size > limit:
            raise TooLarge(size)
        if STRIDED and size:
            return ctypes.string_at(c.of.list.data, size * _STRIDE)[_VALUE_AT::_STRIDE]
        return bytes(c.of.list.data[index].of.u8 for index in range(size))

    return Codec("list<u8>", lower, lift)


def _list(element: Codec) -> Codec:
    def lower(value: Any, c: Any) -> None:
        data = _vector(c, ffi.WASMTIME_COMPONENT_LIST, len(value))
        for index, item in enumerate(value):
            element.lower(item, data[index])

    def lift(c: Any, limit: int) -> list[Any]:
        if c.of.list.size > limit:
            raise TooLarge(c.of.list.size)
        return [element.lift(c.of.list.data[index], limit) for index in range(c.of.list.size)]

    return Codec(f"list<{element.text}>", lower, lift)


def _tuple(elements: list[Codec]) -> Codec:
    def lower(value: Any, c: Any) -> None:
        data = _vector(c, ffi.WASMTIME_COMPONENT_TUPLE, len(elements))
        for index, element in enumerate(elements):
            element.lower(value[index], data[index])

    def lift(c: Any, limit: int) -> tuple[Any, ...]:
        data = c.of.tuple.data
        return tuple(element.lift(data[index], limit) for index, element in enumerate(elements))

    return Codec(f"tuple<{', '.join(element.text for element in elements)}>", lower, lift)


def _record(fields: list[tuple[str, Codec]]) -> Codec:
    size = ctypes.sizeof(ffi.wasmtime_component_valrecord_entry_t)

    def lower(value: Any, c: Any) -> None:
        record = ffi.wasmtime_component_valrecord_t()
        ffi.wasmtime_component_valrecord_new_uninit(ctypes.byref(record), len(fields))
        ctypes.memset(record.data, 0, len(fields) * size)
        c.of.record = record
        c.kind = ffi.WASMTIME_COMPONENT_RECORD.value
        data = c.of.record.data
        for index, (name, field) in enumerate(fields):
            data[index].name = ffi.str_to_capi(name)
            field.lower(value[name], data[index].val)

    def lift(c: Any, limit: int) -> dict[str, Any]:
        data = c.of.record.data
        return {
            name: field.lift(data[index].val, limit) for index, (name, field) in enumerate(fields)
        }

    text = ", ".join(f"{name}: {field.text}" for name, field in fields)
    return Codec(f"record{{{text}}}", lower, lift)


def _enum(names: list[str]) -> Codec:
    def lower(value: str, c: Any) -> None:
        c.of.enumeration = ffi.str_to_capi(value)
        c.kind = ffi.WASMTIME_COMPONENT_ENUM.value

    return Codec(
        f"enum{{{', '.join(names)}}}", lower, lambda c, limit: _text(c.of.enumeration, limit)
    )


def _boxed(codec: Codec | None, value: Any) -> Any:
    """A heap copy of one value, for the inside of an option or a result."""
    if codec is None:
        return None
    inner = Val()
    codec.lower(value, inner)
    return ffi.wasmtime_component_val_new(ctypes.byref(inner))


def _option(some: Codec) -> Codec:
    def lower(value: Any, c: Any) -> None:
        c.of.option = None if value is None else _boxed(some, value)
        c.kind = ffi.WASMTIME_COMPONENT_OPTION.value

    def lift(c: Any, limit: int) -> Any:
        return some.lift(c.of.option.contents, limit) if c.of.option else None

    return Codec(f"option<{some.text}>", lower, lift)


def _result(ok: Codec | None, err: Codec | None) -> Codec:
    def lower(value: Ok | Failed, c: Any) -> None:
        boxed = _boxed(ok if isinstance(value, Ok) else err, value.value)
        c.of.result.is_ok = isinstance(value, Ok)
        c.of.result.val = boxed
        c.kind = ffi.WASMTIME_COMPONENT_RESULT.value

    def lift(c: Any, limit: int) -> Ok | Failed:
        side, wrap = (ok, Ok) if c.of.result.is_ok else (err, Failed)
        return wrap(None if side is None else side.lift(c.of.result.val.contents, limit))

    sides = ", ".join("_" if side is None else side.text for side in (ok, err))
    return Codec(f"result<{sides}>", lower, lift)
