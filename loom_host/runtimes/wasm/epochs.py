"""Asks, at every epoch of the engine, whether a guest must stop."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from wasmtime import WasmtimeError
from wasmtime import _ffi as ffi

_Finalizer = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
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
        if not reason:
            return 0
        error = WasmtimeError(f"loom: stopped: {reason}")
        return ctypes.cast(error._consume(), ctypes.c_void_p).value or 0

    callback = _EpochCallback(passed)
    ffi.wasmtime_store_epoch_deadline_callback(
        store.ptr(), callback, None, ctypes.cast(0, _Finalizer)
    )
    return callback
