"""What a component must look like: the functions of `plugin.wit`, and no import beyond.

One that does not export them is a stranger: its own functions are offered instead.
"""

from __future__ import annotations

from typing import Any

from wasmtime import Engine, WasmtimeError
from wasmtime.component import Component, Linker
from wasmtime.component import _types as t

from loom_sdk.errors import PluginLoadError

from . import border, stock
from .component_exports import Export, exports_of
from .component_types import Function, Unsupported, function_text, read_function
from .foreign import Foreign
from .host_imports import CALL, ERROR, EVENT, RESULT, SIGNATURES

HOST, PLUGIN = "loom:plugin/host@1.0.0", "loom:plugin/plugin@1.0.0"
_INIT = (
    "record { api-versions: list<string>, plugin-id: string, config: string, "
    "grants: list<string>, quotas: list<tuple<string, s64>> }"
)
_CAPABILITY = (
    "record { name: string, description: string, tool: bool, effects: string, "
    "input-schema: string, output-schema: string, resumable: bool, version: string }"
)
_SUBSCRIPTION = (
    "record { topic: string, qos: enum { realtime, batched, background }, types: list<string>, "
    "concurrency: u32 }"
)
EXPORTS = {
    "init": f"func(request: {_INIT}) -> result<record {{ api-version: string, "
    f"capabilities: list<{_CAPABILITY}>, subscriptions: list<{_SUBSCRIPTION}> }}, {ERROR}>",
    "handle-event": f"func(event: {EVENT}) -> result<s64, {ERROR}>",
    "invoke": f"func(call: {CALL}) -> result<{RESULT}, {ERROR}>",
    "health": "func() -> record { healthy: bool, message: string, memory-bytes: s64 }",
    "shutdown": "func()",
}
"""Type of every export, as `function_text` writes it. A test holds it to plugin.wit."""

_WASI = {
    "io": "error poll streams",
    "clocks": "monotonic-clock wall-clock",
    "random": "random insecure insecure-seed",
    "cli": "environment exit stdin stdout stderr terminal-input terminal-output terminal-stdin "
    "terminal-stdout terminal-stderr",
    "filesystem": "types preopens",
    "sockets": "network instance-network tcp tcp-create-socket udp udp-create-socket "
    "ip-name-lookup",
}
"""What wasmtime 50.0.1 defines of WASI 0.2, less http; a later interface is unknown by name."""
_KNOWN_WASI = frozenset(f"wasi:{name}/{item}" for name in _WASI for item in _WASI[name].split())

_WASI_REACH = ("wasi:filesystem/", "wasi:sockets/")
_MAGIC, _COMPONENT = b"\0asm", b"\0asm\x0d\0\x01\0"


def check_preamble(wasm: bytes, name: str) -> None:
    """Raises PluginLoadError where the first bytes are not those of a component."""
    if wasm.startswith(_COMPONENT):
        return
    if wasm.startswith(_MAGIC) and len(wasm) >= len(_COMPONENT):
        raise PluginLoadError(
            f"{name} is a core module, no component: wrap it with `wasm-tools component new`"
        )
    raise PluginLoadError(f"{name} is no WebAssembly file, or only the beginning of one")


def import_status(name: str, item: Any, engine: Engine) -> str:
    """`checked` against the grants at every call; `denied` where nothing is granted; `granted`;
    `types`: no code; `unknown`: a component that imports it is refused.
    """
    if name == HOST:
        return "checked"
    base, _, version = name.partition("@")
    if base in _KNOWN_WASI and version.startswith("0.2."):
        return "denied" if name.startswith(_WASI_REACH) else "granted"
    return "types" if _is_types_only(item.ty, engine) else "unknown"


def _is_types_only(kind: Any, engine: Engine) -> bool:
    if isinstance(kind, t.ComponentInstanceType):
        items = kind.exports(engine).values()
        return bool(items) and all(_is_types_only(item.ty, engine) for item in items)
    return isinstance(kind, t.ValType)


def compile_component(engine: Engine, wasm: bytes) -> Component:
    """Raises PluginLoadError when it is no valid component."""
    try:
        return Component(engine, wasm)
    except WasmtimeError as error:
        cause = str(error).strip().splitlines()[-1].strip()
        raise PluginLoadError(f"this is no component that wasmtime can compile: {cause}") from error


class Loaded:
    """A component that fits the contract, or a stranger that imports nothing unknown.

    `exports` and `imports` hold the types of the contract's functions; `foreign` is None, or the
    functions of a component that was not written for Loom and then `exports` is empty. `bind` and
    `serve` are those of the marshaller. `linker` is set by the engine that it is loaded by.

    Args:
        direct: use the direct marshaller, where it fits this wasmtime.
    """

    def __init__(
        self, component: Component, engine: Engine, name: str, direct: bool = True
    ) -> None:
        self.component, self.name = component, name
        self.linker: Linker | None = None
        marshaller = border if direct and border.fits() else stock
        self.bind, self.serve = marshaller.bind, marshaller.serve
        self.foreign: Foreign | None = None
        self.exports: dict[str, Function] = {}
        imports, exports = component.type.imports(engine), component.type.exports(engine)
        self._refuse_unknown(
            [n for n, item in imports.items() if import_status(n, item, engine) == "unknown"]
        )
        used = imports[HOST].ty.exports(engine) if HOST in imports else {}
        self.imports = self._checked(used, SIGNATURES, HOST)
        if PLUGIN not in exports:
            self.foreign = self._stranger(exports_of(component.type, engine))
            return
        self.exports = self._checked(exports[PLUGIN].ty.exports(engine), EXPORTS, PLUGIN)
        missing = sorted(EXPORTS.keys() - self.exports.keys())
        if missing:
            raise PluginLoadError(f"{name}: {PLUGIN} lacks {', '.join(missing)}")

    def _stranger(self, exports: list[Export]) -> Foreign:
        if any(export.function for export in exports):
            return Foreign(exports)
        reasons = "; ".join(f"{export.text}: {export.why_not}" for export in exports[:3])
        raise PluginLoadError(
            f"{self.name} does not export {PLUGIN}, nor any function that a capability can be made "
            f"of{': ' + reasons if reasons else ''}"
        )

    def _refuse_unknown(self, unknown: list[str]) -> None:
        if unknown:
            raise PluginLoadError(
                f"{self.name} imports {', '.join(unknown)}, which Loom does not offer: a guest "
                "may import loom:plugin/host and WASI 0.2 without http"
            )

    def _checked(
        self, items: dict[str, Any], expected: dict[str, str], interface: str
    ) -> dict[str, Function]:
        found = {}
        for name, item in items.items():
            kind = item.ty
            if not hasattr(kind, "params"):
                continue
            try:
                function = read_function(kind)
            except Unsupported as error:
                raise PluginLoadError(f"{self.name}: {interface} {name}: {error}") from error
            if (text := function_text(function)) != expected.get(name):
                raise PluginLoadError(
                    f"{self.name}: {interface} has {name} as {text}, the host has "
                    f"{expected.get(name, 'no such function')}: rebuild it with this plugin.wit"
                )
            found[name] = function
        return found
