"""What a component is, told without running it: size, exports, imports, schemas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wasmtime.component import Component

from loom_sdk.errors import PluginLoadError

from .cache import CodeCache, default_folder
from .component_exports import Export, exports_of, offered
from .component_schema import input_schema, output_schema
from .component_types import function_text
from .contract import PLUGIN, Loaded, check_preamble, compile_component, import_status
from .engine import SETTINGS, Engine

COMPILED_MAX = 1024**2
"""Bytes of a component that is compiled only to be judged: 0.3 s."""
MEANINGS = {
    "checked": "served by the host; every call is checked against the grants",
    "granted": "linked; it reaches nothing outside the sandbox",
    "denied": "linked; access is denied unless a grant allows it",
    "types": "types only, no code",
    "unknown": "not offered: Loom refuses to load this component",
}


def inspect(path: Path, plugin: str, cache_dir: Path | None = None) -> dict[str, Any]:
    """The facts of one `.wasm` file as plain data.

    It is compiled, as a host would at its first start, and not instantiated.

    Args:
        plugin: short name that capabilities of the component's world get.
        cache_dir: of compiled code; None for the user's.

    Raises:
        PluginLoadError: it cannot be read, is no component, or does not compile.
    """
    engine = Engine()
    component = _compiled(path, engine, cache_dir or default_folder())
    exports = exports_of(component.type, engine.wasmtime)
    found, refused = offered(exports, plugin)
    ours = PLUGIN in component.type.exports(engine.wasmtime)
    return {
        "file": str(path),
        "size": path.stat().st_size,
        "loom_plugin": ours,
        "problem": _problem(component, engine, path.name),
        "exports": [_plain(export) for export in exports if export.function] if ours
        else [_row(name, export) for name, export in found.items()],
        "not_offered": [] if ours
        else [{"export": export.text, "why": export.why_not} for export in refused],
        "imports": _imports(component, engine),
    }  # fmt: skip


def _compiled(path: Path, engine: Engine, cache_dir: Path) -> Component:
    try:
        wasm = path.read_bytes()
    except OSError as error:
        raise PluginLoadError(f"cannot read {path}: {error.strerror}") from error
    check_preamble(wasm, path.name)
    try:
        return CodeCache(cache_dir, SETTINGS[False]).component(engine.wasmtime, wasm)
    except PluginLoadError as error:
        raise PluginLoadError(f"{path.name}: {error.message}") from error


def _problem(component: Component, engine: Engine, name: str) -> str:
    """Why a host would refuse it, empty where it would not."""
    try:
        Loaded(component, engine.wasmtime, name)
    except PluginLoadError as error:
        return error.message
    return ""


def refusal(path: Path) -> str:
    """Why a host would refuse the component, empty where it would not or that takes too long.

    Nothing is written: what is larger than `COMPILED_MAX` is not compiled, and not looked into.
    """
    engine = Engine()
    try:
        with path.open("rb") as file:
            wasm = file.read(COMPILED_MAX + 1)
        check_preamble(wasm, path.name)
        if len(wasm) > COMPILED_MAX:
            return ""
        return _problem(compile_component(engine.wasmtime, wasm), engine, path.name)
    except PluginLoadError as error:
        return error.message
    except OSError as error:
        return f"cannot read {path.name}: {error.strerror}"


def _plain(export: Export) -> dict[str, Any]:
    assert export.function is not None, "its caller has looked"
    return {"export": export.text, "type": function_text(export.function)}


def _row(name: str, export: Export) -> dict[str, Any]:
    assert export.function is not None, "what is offered is a function"
    return {
        "capability": name,
        **_plain(export),
        "version": export.version,
        "input": input_schema(export.function),
        "output": output_schema(export.function),
    }


def _imports(component: Component, engine: Engine) -> list[dict[str, str]]:
    rows = []
    for name, item in component.type.imports(engine.wasmtime).items():
        status = import_status(name, item, engine.wasmtime)
        rows.append({"name": name, "status": status, "meaning": MEANINGS[status]})
    return rows
