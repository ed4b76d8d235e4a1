"""What a component must look like: the functions of `plugin.wit`, and no import beyond."""

from __future__ import annotations

from typing import Any

from wasmtime import Engine
from wasmtime.component import Component

from loom_sdk.errors import PluginLoadError

from .host_imports import CALL, ERROR, EVENT, RESULT, SIGNATURES
from .marshal import Signature

HOST, TYPES, PLUGIN = (
    "loom:plugin/host@1.0.0",
    "loom:plugin/types@1.0.0",
    "loom:plugin/plugin@1.0.0",
)
_INIT = (
    "record{api-versions: list<string>, plugin-id: string, config: string, "
    "grants: list<string>, quotas: list<tuple<string, s64>>}"
)
_CAPABILITY = (
    "record{name: string, description: string, tool: bool, effects: string, "
    "input-schema: string, output-schema: string, resumable: bool, version: string}"
)
_SUBSCRIPTION = (
    "record{topic: string, qos: enum{realtime, batched, background}, types: list<string>, "
    "concurrency: u32}"
)
EXPORTS = {
    "init": f"func(request: {_INIT}) -> result<record{{api-version: string, "
    f"capabilities: list<{_CAPABILITY}>, subscriptions: list<{_SUBSCRIPTION}>}}, {ERROR}>",
    "handle-event": f"func(event: {EVENT}) -> result<s64, {ERROR}>",
    "invoke": f"func(call: {CALL}) -> result<{RESULT}, {ERROR}>",
    "health": "func() -> record{healthy: bool, message: string, memory-bytes: s64}",
    "shutdown": "func()",
}
"""Type of every export, as `marshal.Signature.text` writes it. A test holds it to plugin.wit."""

_WASI = tuple(
    f"wasi:{name}/" for name in ("io", "clocks", "random", "cli", "filesystem", "sockets")
)


class Loaded:
    """A component that fits the contract. `signatures` holds its exports' and imports' types."""

    def __init__(self, component: Component, engine: Engine, name: str) -> None:
        self.component, self.name = component, name
        imports, exports = component.type.imports(engine), component.type.exports(engine)
        self._refuse_unknown(list(imports))
        if PLUGIN not in exports:
            raise PluginLoadError(
                f"{name} does not export {PLUGIN}: build it for the world `loom-plugin` of "
                "plugin.wit"
            )
        self.exports = self._checked(exports[PLUGIN].ty.exports(engine), EXPORTS, PLUGIN)
        missing = sorted(EXPORTS.keys() - self.exports.keys())
        if missing:
            raise PluginLoadError(f"{name}: {PLUGIN} lacks {', '.join(missing)}")
        used = imports[HOST].ty.exports(engine) if HOST in imports else {}
        self.imports = self._checked(used, SIGNATURES, HOST)

    def _refuse_unknown(self, names: list[str]) -> None:
        unknown = [n for n in names if n not in (HOST, TYPES) and not n.startswith(_WASI)]
        if unknown:
            raise PluginLoadError(
                f"{self.name} imports {', '.join(unknown)}, which Loom does not offer: a guest "
                "may import loom:plugin/host and WASI 0.2 without http"
            )

    def _checked(
        self, items: dict[str, Any], expected: dict[str, str], interface: str
    ) -> dict[str, Signature]:
        found = {}
        for name, item in items.items():
            kind = item.ty
            if not hasattr(kind, "params"):
                continue
            try:
                signature = Signature(kind)
            except TypeError as error:
                raise PluginLoadError(f"{self.name}: {interface} {name}: {error}") from error
            if signature.text != expected.get(name):
                raise PluginLoadError(
                    f"{self.name}: {interface} has {name} as {signature.text}, the host has "
                    f"{expected.get(name, 'no such function')}: rebuild it with this plugin.wit"
                )
            found[name] = signature
        return found
