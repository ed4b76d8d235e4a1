"""Calls across the component border with the direct marshaller: into a guest, and out of it.

Wasmtime's C API, called with addresses; what lies there is `marshal.py`'s business.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable
from functools import lru_cache
from itertools import count
from typing import Any

from wasmtime import WasmtimeError
from wasmtime import _ffi as ffi

from .component_types import Function
from .marshal import KIND, VALUE, codec_of
from .words import Codec


def fits() -> bool:
    """Whether wasmtime's structs are laid out as those that this file was written for."""
    value, field = ffi.wasmtime_component_val_t, ffi.wasmtime_component_valrecord_entry_t
    layout = (ctypes.sizeof(value), value.of.offset, ctypes.sizeof(field), field.val.offset)
    kinds = [KIND.get(name) for name in ("u8", "string", "list", "record", "result")]
    return (layout, kinds) == ((32, 8, 48, 16), [2, 12, 13, 14, 19])


Call = Callable[[tuple[Any, ...], int], Any]
"""(arguments, longest string or list of the result). Raises WasmtimeError: the guest trapped;
TooLarge: a part of the result is too long and was not converted; TypeError and ValueError: an
argument does not fit its type."""
Served = Callable[..., Any]

_api = ctypes.CDLL(ffi.dll._name)
_Address, _Size = ctypes.c_void_p, ctypes.c_size_t
_call = _api.wasmtime_component_func_call
_call.argtypes = [_Address, _Address, _Address, _Size, _Address, _Size]
_call.restype = _Address
_delete = _api.wasmtime_component_val_delete
_delete.argtypes, _delete.restype = [_Address], None
_clone = _api.wasmtime_component_val_clone
_clone.argtypes, _clone.restype = [_Address, _Address], None
_Answer = ctypes.c_uint64 * VALUE
_Error = ctypes.POINTER(ffi.wasmtime_error_t)


@lru_cache(maxsize=1024)
def _codecs(kind: Function) -> tuple[list[Codec], Codec | None]:
    parameters = [codec_of(of) for _, of in kind.parameters]
    return parameters, None if kind.result is None else codec_of(kind.result)


def _error(address: int) -> WasmtimeError:
    made: WasmtimeError = WasmtimeError._from_ptr(ctypes.cast(address, _Error))
    return made


def bind(function: Any, store: Any, kind: Function) -> Call:
    """An exported function of a guest, for one thread at a time until its store is closed."""
    parameters, result = _codecs(kind)
    inside = ctypes.addressof(function._func)
    context = ctypes.cast(store._context(), _Address).value
    empty, answer = array("Q", bytes(8 * VALUE * len(parameters))), _Answer()
    place = ctypes.addressof(answer)
    places = [(codec.lower, VALUE * index) for index, codec in enumerate(parameters)]
    many, answers = len(parameters), int(result is not None)

    def call(arguments: tuple[Any, ...], limit: int) -> Any:
        words, kept = empty[:], [function]
        for (lower, at), value in zip(places, arguments, strict=True):
            lower(value, words, at, kept)
        if error := _call(inside, context, words.buffer_info()[0], many, place, answers):
            raise _error(error)
        if result is None:
            return None
        try:
            return result.lift(answer, 0, limit)
        finally:
            _delete(place)
            answer[0] = 0  # a bool: wasmtime frees what lies there before it answers again

    return call


_served: dict[int, tuple[list[Codec], Codec | None, Served, int]] = {}
_numbers = count(1)
_Callback = ctypes.CFUNCTYPE(_Size, *[_Address] * 4, _Size, _Address, _Size)
_Finalizer = ctypes.CFUNCTYPE(None, _Address)


@_Callback  # type: ignore[untyped-decorator]  # ctypes
def _enter(number: int, context: int, kind: int, sent: int, n: int, answer: int, m: int) -> int:
    """What wasmtime calls. An exception must not leave it: whatever fails becomes a trap."""
    try:
        parameters, result, function, limit = _served[number]
        words = (ctypes.c_uint64 * (VALUE * n)).from_address(sent) if n else ()
        arguments = [of.lift(words, VALUE * i, limit) for i, of in enumerate(parameters)]
        value = function(*arguments)
        if result is not None:
            made, kept = array("Q", bytes(8 * VALUE)), list[Any]()
            result.lower(value, made, 0, kept)
            _clone(made.buffer_info()[0], answer)
        return 0
    except WasmtimeError as error:
        return as_pointer(error)
    except BaseException as error:
        return as_pointer(WasmtimeError(f"loom: {type(error).__name__}: {error}"))


@_Finalizer  # type: ignore[untyped-decorator]  # ctypes
def _forget(number: int) -> None:
    _served.pop(number, None)


def as_pointer(error: WasmtimeError) -> int:
    """An error as wasmtime's own, which it then owns."""
    return ctypes.cast(error._consume(), _Address).value or 0


_add = _api.wasmtime_component_linker_instance_add_func
_add.argtypes = [_Address, ctypes.c_char_p, _Size, _Callback, _Address, _Finalizer]
_add.restype = _Address


def serve(instance: Any, name: str, kind: Function, function: Served, limit: int) -> None:
    """Define a host function of a linker's instance.

    Args:
        limit: longest string or list that is read from the guest; a longer one traps.
    """
    number = next(_numbers)
    _served[number] = (*_codecs(kind), function, limit)
    text = name.encode()
    pointer = ctypes.cast(instance.ptr(), _Address)
    if error := _add(pointer, text, len(text), _enter, number, _forget):
        raise _error(error)
