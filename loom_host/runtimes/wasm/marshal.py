"""Function calls across the component border, both ways, and the epoch check.

With `codecs.py` the only file that touches wasmtime's private structs; written against wasmtime
50.0.1.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from itertools import count
from typing import Any

from wasmtime import StoreContext, WasmtimeError
from wasmtime import _ffi as ffi

from .codecs import Val, codec_of


class Signature:
    """The codecs of one function, and its type as text to compare with `plugin.wit`."""

    def __init__(self, kind: Any) -> None:
        named = [(name, codec_of(parameter)) for name, parameter in kind.params]
        self.parameters = [codec for _, codec in named]
        self.result = None if kind.result is None else codec_of(kind.result)
        inside = ", ".join(f"{name}: {codec.text}" for name, codec in named)
        self.text = f"func({inside})" + (f" -> {self.result.text}" if self.result else "")

    def call(self, function: Any, store: Any, arguments: tuple[Any, ...], limit: int) -> Any:
        """Call a guest function.

        Raises:
            WasmtimeError: the guest trapped.
            TooLarge: a part of the result is longer than `limit`; nothing was converted.
        """
        sent = (Val * len(self.parameters))()
        answer = Val()
        try:
            for codec, value, c in zip(self.parameters, arguments, sent, strict=True):
                codec.lower(value, c)
            error = ffi.wasmtime_component_func_call(
                ctypes.byref(function._func),
                store._context(),
                sent,
                len(sent),
                None if self.result is None else ctypes.byref(answer),
                int(self.result is not None),
            )
            if error:
                raise WasmtimeError._from_ptr(error)
            return None if self.result is None else self.result.lift(answer, limit)
        finally:
            for c in sent:
                ffi.wasmtime_component_val_delete(ctypes.byref(c))
            ffi.wasmtime_component_val_delete(ctypes.byref(answer))


Served = Callable[..., Any]
_served: dict[int, tuple[Signature, Served, int]] = {}
_numbers = count(1)


@ffi.wasmtime_component_func_callback_t  # type: ignore[untyped-decorator]  # ctypes
def _enter(number: Any, context: Any, kind: Any, sent: Any, n: Any, answer: Any, m: Any) -> int:
    """What wasmtime calls. An exception must not leave it: whatever fails becomes a trap."""
    signature, serve, limit = _served[number]
    store = StoreContext(context)
    try:
        arguments = [
            codec.lift(sent[index], limit) for index, codec in enumerate(signature.parameters)
        ]
        value = serve(*arguments)
        if signature.result is not None:
            signature.result.lower(value, answer[0])
        return 0
    except WasmtimeError as error:
        return _as_pointer(error)
    except BaseException as error:
        return _as_pointer(WasmtimeError(f"loom: {type(error).__name__}: {error}"))
    finally:
        store._invalidate()


_Finalizer = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@_Finalizer  # type: ignore[untyped-decorator]  # ctypes
def _forget(number: Any) -> None:
    _served.pop(number, None)


def _as_pointer(error: WasmtimeError) -> int:
    return ctypes.cast(error._consume(), ctypes.c_void_p).value or 0


def serve(instance: Any, name: str, signature: Signature, function: Served, limit: int) -> None:
    """Define a host function of a linker's instance.

    Args:
        limit: longest string or list that is read from the guest; a longer one traps.
    """
    number = next(_numbers)
    _served[number] = (signature, function, limit)
    text = name.encode()
    error = ffi.wasmtime_component_linker_instance_add_func(
        instance.ptr(), ctypes.create_string_buffer(text), len(text), _enter, number, _forget
    )
    if error:
        raise WasmtimeError._from_ptr(error)


_EpochCallback = ctypes.CFUNCTYPE(
    ctypes.c_size_t,
    ctypes.POINTER(ffi.wasmtime_context_t),
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_uint64),
    ctypes.POINTER(ffi.wasmtime_update_deadline_kind_t),
)


def on_epoch(store: Any, check: Callable[[], str]) -> Any:
    """Ask `check` at every new epoch whether the guest must stop; text stops it with that text.

    Returns what must be kept alive as long as the store.
    """

    def passed(context: Any, data: Any, delta: Any, kind: Any) -> int:
        delta[0] = 1
        kind[0] = 0  # WASMTIME_UPDATE_DEADLINE_CONTINUE
        reason = check()
        return _as_pointer(WasmtimeError(f"loom: stopped: {reason}")) if reason else 0

    callback = _EpochCallback(passed)
    ffi.wasmtime_store_epoch_deadline_callback(
        store.ptr(), callback, None, ctypes.cast(0, _Finalizer)
    )
    return callback
