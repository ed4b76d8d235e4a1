"""Components from JavaScript: npm's componentize-js around the module and sdk/js/wasm/loom.js."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from loom_sdk.errors import PluginLoadError

from .cache import default_folder
from .compiler import existing, files_of, run_tool, sdk_dir

PACKAGE, VERSION = "@bytecodealliance/componentize-js", "0.23.0"
SHIM, SHIM_VERSION = "@bytecodealliance/preview2-shim", "0.25.0"
"""componentize-js imports it and does not list it, so npm removes it when it is run again."""


class JsBuilder:
    """`main.js`, an ES module that imports `./loom.js` and files beside it. Takes 10 to 30 s."""

    def tool(self) -> str:
        return f"{PACKAGE} {VERSION}"

    def name(self, folder: Path, entry: str) -> str:
        return existing(folder / entry).stem

    def sources(self, folder: Path) -> Iterator[tuple[Path, Path]]:
        yield from files_of(folder, ".js", ".mjs")
        yield from files_of(sdk_dir("js/wasm"), ".js", ".mjs")

    def make(self, folder: Path, entry: str, wit: Path, work: Path) -> Path:
        node, modules = js_tools(folder)
        sdk, source = sdk_dir("js/wasm"), work / "source"
        for root, path in files_of(folder, ".js", ".mjs"):
            target = source / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        shutil.copy(sdk / "loom.js", (source / entry).parent)
        made = work / "component.wasm"
        script, main = str(sdk / "build.mjs"), str(source / entry)
        environment = {"PATH": os.environ.get("PATH", os.defpath)}
        run_tool([node, script, str(modules), main, str(wit), str(made)], entry, work, environment)
        return made


def js_tools(folder: Path) -> tuple[str, Path]:
    """Path of node, and the `node_modules` that holds componentize-js.

    Raises:
        PluginLoadError: one of them is missing; the message has the install line.
    """
    node = shutil.which("node")
    if node is None:
        raise PluginLoadError("a plugin in JavaScript is built by Node.js 20 or newer: install it")
    for modules in (folder.resolve() / "node_modules", _prefix() / "node_modules"):
        if _version_in(modules, PACKAGE) == VERSION and _version_in(modules, SHIM):
            return node, modules
    raise PluginLoadError(f"a plugin in JavaScript needs its compiler: {install_line()}")


def install_line() -> str:
    """The shell command that installs the compiler where `js_tools` looks for it."""
    packages = f"{PACKAGE}@{VERSION} {SHIM}@{SHIM_VERSION}"
    return f"npm install --prefix {shlex.quote(str(_prefix()))} {packages}"


def _prefix() -> Path:
    return default_folder().parent / "js-tools"


def _version_in(modules: Path, package: str) -> str:
    try:
        return str(json.loads((modules / package / "package.json").read_text())["version"])
    except (OSError, ValueError, KeyError):
        return ""
