"""The wasm tier: untrusted tools in a WebAssembly sandbox."""

from .instance import WasmInstance
from .runtime import WasmRuntime

__all__ = ["WasmInstance", "WasmRuntime"]
