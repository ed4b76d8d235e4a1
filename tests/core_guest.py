"""Guests of the wasm tier in a page of WAT, built from plugin.wit within a fifth of a second."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

from wasmtime import wat2wasm

from loom_host.runtimes.wasm.build import wit_dir

_MODULE = """(module
  (memory (export "memory") {pages})
  (data (i32.const 16) "1")
  (data (i32.const 1028) "\\10\\00\\00\\00\\01\\00\\00\\00")  ;; api-version
  (data (i32.const 1300) "\\01")  ;; healthy
  (global $next (mut i32) (i32.const 4096))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
    (global.set $next (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func (export "loom:plugin/plugin@1.0.0#init")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "loom:plugin/plugin@1.0.0#invoke") (param $call i32) (result i32)
    {invoke} (i32.const 1104))
  (func (export "loom:plugin/plugin@1.0.0#handle-event") (param $event i32) (result i32)
    {handle} (i32.const 1200))
  (func (export "loom:plugin/plugin@1.0.0#health") (result i32) (i32.const 1300))
  (func (export "loom:plugin/plugin@1.0.0#shutdown")))"""


def core_guest(invoke: str = "", handle: str = "", pages: int = 1) -> bytes:
    """The core module: it answers all with nothing, after it ran these instructions.

    Args:
        pages: of 64 KiB that it begins with.
    """
    return bytes(wat2wasm(_MODULE.format(invoke=invoke, handle=handle, pages=pages)))


def component_of(module: bytes, path: Path) -> Path:
    """Write the module as a component of the world of plugin.wit."""
    tools = str(Path(sysconfig.get_path("scripts")) / "wasm-tools")
    core, typed = path.with_suffix(".core"), path.with_suffix(".typed")
    core.write_bytes(module)
    wit = str(wit_dir() / "plugin.wit")
    for words in (
        ["embed", wit, "--world", "loom-plugin", str(core), "-o", str(typed)],
        ["new", str(typed), "-o", str(path)],
    ):
        subprocess.run([tools, "component", *words], check=True, capture_output=True)
    return path


def plugin_of(folder: Path, module: bytes, manifest: str = "") -> Path:
    """A folder with the plugin `test/tiny` of that module; `manifest` follows its first table."""
    folder.mkdir(exist_ok=True)
    component_of(module, folder / "tiny.wasm")
    (folder / "plugin.toml").write_text(
        '[plugin]\nid = "test/tiny"\nversion = "1.0.0"\napi = "1"\ntype = "tool"\n'
        f'tier = "wasm"\nentry = "tiny.wasm"\nlicense = "MIT"\n{manifest}'
    )
    return folder
