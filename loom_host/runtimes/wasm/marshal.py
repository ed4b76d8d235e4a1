"""The direct marshaller: values across the component border without wasmtime-py's own.

The only file that reads or writes wasmtime's private structs, written against wasmtime 50.0.1;
with another one `stock.py` serves. Three rules hold:
- what the host sends lies in the host's own memory, which wasmtime copies and never frees
- every length is compared with its limit before a byte behind it is read
- the types are the function's own, read when the component is loaded
A value is four words of 64 bits: its kind, then a number, or a length and an address, and so on. A
record's field is its name's length and address before those.
"""

from __future__ import annotations

import ctypes
import struct
from array import array
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any

from wasmtime import _ffi as ffi

from . import component_types as wit
from .component_types import BYTES, INTEGERS, WitType
from .values import Case, Failed, Ok, Some, TooLarge, bounded_binary
from .words import (
    NOWHERE,
    Codec,
    Kept,
    Names,
    Words,
    address_of,
    bytes_at,
    copied,
    lift_text,
    new_block,
    words_at,
)

CHECKED_VERSION = "50.0.1"
"""Of wasmtime; with another one the host takes the stock marshaller."""
VALUE, FIELD = 4, 6
"""Words of a value and of a record's field."""
_STRIDE = 8 * VALUE
KIND = {
    name.removeprefix("WASMTIME_COMPONENT_").lower(): getattr(ffi, name).value
    for name in dir(ffi)
    if name.startswith("WASMTIME_COMPONENT_") and hasattr(getattr(ffi, name), "value")
}
_STRING_KIND, _LIST = KIND["string"], KIND["list"]
_EMPTY_BYTE = bytes([KIND["u8"]]) + bytes(_STRIDE - 1)


def _lower_string(value: str, words: Words, at: int, kept: Kept) -> None:
    data = str.encode(value)
    kept.append(data)
    words[at] = _STRING_KIND
    words[at + 1] = len(data)
    words[at + 2] = address_of(data)


_STRING = Codec(_lower_string, lift_text)


def _lower_binary(value: bytes, words: Words, at: int, kept: Kept) -> None:
    words[at] = _LIST
    words[at + 1] = size = bounded_binary(value)
    words[at + 2] = NOWHERE
    if not size:
        return
    spread = bytearray(_EMPTY_BYTE * size)
    spread[8::_STRIDE] = value
    kept.append(spread)
    words[at + 2] = ctypes.addressof(ctypes.c_char.from_buffer(spread))


def _lift_binary(words: Words, at: int, limit: int) -> bytes:
    size = words[at + 1]
    if size > limit:
        raise TooLarge(size)
    return bytes_at(words[at + 2], size * _STRIDE)[8::_STRIDE] if size else b""


def _scalar(name: str, to_word: Callable[[Any], int], of_word: Callable[[int], Any]) -> Codec:
    kind = KIND[name]

    def lower(value: Any, words: Words, at: int, kept: Kept) -> None:
        words[at], words[at + 1] = kind, to_word(value)

    return Codec(lower, lambda words, at, limit: of_word(words[at + 1]))


def _integer(name: str) -> Codec:
    low, high = INTEGERS[name]
    kind, mask, sign = KIND[name], high - low, -low

    def lower(value: int, words: Words, at: int, kept: Kept) -> None:
        if not low <= value <= high:
            raise ValueError(f"{value} is no {name}")
        words[at] = kind
        words[at + 1] = value & mask

    return Codec(lower, lambda words, at, limit: ((words[at + 1] & mask) ^ sign) - sign)


def _float(name: str, real: Any, bits: struct.Struct, number: struct.Struct) -> Codec:
    mask = 2 ** (8 * bits.size) - 1
    return _scalar(
        name,
        lambda value: int(bits.unpack(real(value))[0]),  # ctypes turns what is too large into inf
        lambda word: number.unpack(bits.pack(word & mask))[0],
    )


_PRIMITIVES = {
    "string": _STRING,
    "char": _scalar("char", ord, lambda word: chr(word & 0xFFFFFFFF)),
    "bool": _scalar("bool", bool, lambda word: bool(word & 0xFF)),
    "f32": _float("f32", ctypes.c_float, struct.Struct("<I"), struct.Struct("<f")),
    "f64": _float("f64", ctypes.c_double, struct.Struct("<Q"), struct.Struct("<d")),
    **{name: _integer(name) for name in INTEGERS},
}


@lru_cache(maxsize=1024)
def codec_of(kind: WitType) -> Codec:
    """How values of the type move."""
    if kind == BYTES:
        return Codec(_lower_binary, _lift_binary)
    match kind:
        case wit.Primitive(name):
            return _PRIMITIVES[name]
        case wit.ListOf(element):
            return _list(codec_of(element))
        case wit.Tuple(elements):
            return _tuple([codec_of(of) for of in elements])
        case wit.Record(fields):
            return _record([(name, codec_of(of)) for name, of in fields])
        case wit.Enum(names):
            return _enum(names)
        case wit.Flags(names):
            return _flags(names)
        case wit.Option(some):
            return _option(codec_of(some))
        case wit.Result(ok, err):
            return _result(codec_of(ok) if ok else None, codec_of(err) if err else None)
        case wit.Variant(cases):
            return _variant({name: codec_of(of) if of else None for name, of in cases})


def _lower_all(
    name: str, value: Collection[Any], of: Iterable[Codec], words: Words, at: int, kept: Kept
) -> None:
    block, address = new_block(VALUE * len(value), kept)
    words[at], words[at + 1], words[at + 2] = KIND[name], len(value), address
    for index, (item, codec) in enumerate(zip(value, of, strict=name == "tuple")):
        codec.lower(item, block, VALUE * index, kept)


def _list(element: Codec) -> Codec:
    def lower(value: Collection[Any], words: Words, at: int, kept: Kept) -> None:
        _lower_all("list", value, repeat(element), words, at, kept)

    def lift(words: Words, at: int, limit: int) -> list[Any]:
        size = words[at + 1]
        if size > limit:
            raise TooLarge(size)
        block = copied(words[at + 2], VALUE * size)
        return [element.lift(block, VALUE * index, limit) for index in range(size)]

    return Codec(lower, lift)


def _tuple(elements: list[Codec]) -> Codec:
    read = words_at(VALUE * len(elements))

    def lower(value: Collection[Any], words: Words, at: int, kept: Kept) -> None:
        _lower_all("tuple", value, elements, words, at, kept)

    def lift(words: Words, at: int, limit: int) -> tuple[Any, ...]:
        block = read(words[at + 2])
        return tuple(of.lift(block, VALUE * i, limit) for i, of in enumerate(elements))

    return Codec(lower, lift)


def _record(fields: list[tuple[str, Codec]]) -> Codec:
    names, size = Names(name for name, _ in fields), len(fields)
    template, places = array("Q", bytes(8 * FIELD * size)), range(2, FIELD * size, FIELD)
    texts, others, lifts = list[tuple[str, int]](), [], []
    for at, (name, codec) in zip(places, fields, strict=True):
        names.write(name, template, at - 2)
        lifts.append((name, codec.lift, at))
        if codec is _STRING:
            _lower_string("", template, at, [])
            template[at + 2] = NOWHERE
            texts.append((name, at + 1))
        else:
            others.append((name, codec.lower, at))
    read = words_at(FIELD * size)

    def lower(value: Mapping[str, Any], words: Words, at: int, kept: Kept) -> None:
        block = template[:]
        kept += (block, names)
        words[at], words[at + 1], words[at + 2] = KIND["record"], size, block.buffer_info()[0]
        for name, place in texts:
            if (text := value[name]) != "":  # most texts of a call are empty
                kept.append(data := str.encode(text))
                block[place] = len(data)
                block[place + 1] = address_of(data)
        for name, lower_field, place in others:
            lower_field(value[name], block, place, kept)

    def lift(words: Words, at: int, limit: int) -> dict[str, Any]:
        block = read(words[at + 2])
        return {name: lift_field(block, place, limit) for name, lift_field, place in lifts}

    return Codec(lower, lift)


def _enum(names: Sequence[str]) -> Codec:
    known = Names(names)

    def lower(value: str, words: Words, at: int, kept: Kept) -> None:
        words[at] = KIND["enum"]
        known.write(value, words, at + 1)

    return Codec(lower, lambda words, at, limit: known.read(words, at + 1))


def _flags(names: Sequence[str]) -> Codec:
    known = Names(names)

    def lower(value: Collection[str], words: Words, at: int, kept: Kept) -> None:
        block, address = new_block(2 * len(value), kept)
        words[at], words[at + 1], words[at + 2] = KIND["flags"], len(value), address
        for index, name in enumerate(value):
            known.write(name, block, 2 * index)

    def lift(words: Words, at: int, limit: int) -> tuple[str, ...]:
        size = min(words[at + 1], len(names))
        block = copied(words[at + 2], 2 * size)
        return tuple(known.read(block, 2 * index) for index in range(size))

    return Codec(lower, lift)


def _lower_boxed(codec: Codec | None, value: Any, words: Words, at: int, kept: Kept) -> None:
    """The inside of an option, a result or a variant."""
    if codec is not None:
        block, words[at] = new_block(VALUE, kept)
        codec.lower(value, block, 0, kept)


def _lift_boxed(codec: Codec | None, words: Words, at: int, limit: int) -> Any:
    return None if codec is None else codec.lift(_value_at(words[at]), 0, limit)


_value_at = words_at(VALUE)


def _option(some: Codec) -> Codec:
    def lower(value: Some | None, words: Words, at: int, kept: Kept) -> None:
        words[at], words[at + 1] = KIND["option"], 0
        if value is not None:
            _lower_boxed(some, value.value, words, at + 1, kept)

    def lift(words: Words, at: int, limit: int) -> Some | None:
        return Some(_lift_boxed(some, words, at + 1, limit)) if words[at + 1] else None

    return Codec(lower, lift)


def _result(ok: Codec | None, err: Codec | None) -> Codec:
    def lower(value: Ok | Failed, words: Words, at: int, kept: Kept) -> None:
        good = isinstance(value, Ok)
        words[at], words[at + 1] = KIND["result"], good
        _lower_boxed(ok if good else err, value.value, words, at + 2, kept)

    def lift(words: Words, at: int, limit: int) -> Ok | Failed:
        side, wrap = (ok, Ok) if words[at + 1] & 0xFF else (err, Failed)
        return wrap(_lift_boxed(side, words, at + 2, limit))

    return Codec(lower, lift)


def _variant(cases: Mapping[str, Codec | None]) -> Codec:
    names = Names(cases)

    def lower(value: Case, words: Words, at: int, kept: Kept) -> None:
        words[at] = KIND["variant"]
        names.write(value.name, words, at + 1)
        _lower_boxed(cases[value.name], value.value, words, at + 3, kept)

    def lift(words: Words, at: int, limit: int) -> Case:
        name = names.read(words, at + 1)
        return Case(name, _lift_boxed(cases[name], words, at + 3, limit))

    return Codec(lower, lift)
