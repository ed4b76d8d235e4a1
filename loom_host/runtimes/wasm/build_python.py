"""Components from Python plugins: componentize-py around the plugin class."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import loom_sdk
from loom_sdk import model_types
from loom_sdk.errors import PluginLoadError

from .compiler import existing, files_of, run_tool

TOOL_VERSION = "0.25.1"
WORLD = "loom-plugin"
_APP = "loom_guest_app"
_SDK = Path(loom_sdk.__file__).parent
_SDK_MODULES = (
    "__init__",
    "agent",
    "call_context",
    "calls",
    "constraints",
    "context",
    "docstrings",
    "driver",
    "errors",
    "events",
    "guest",
    "guest_port",
    "hints",
    "json_form",
    "model_types",
    "plugin",
    "port",
    "schema",
    "schema_refs",
    "topics",
    "values",
)
"""The part of loom_sdk that runs in a guest; the rest speaks to processes and files."""
_INSTEAD = {
    "pydantic": model_types.REFUSED,
    "annotated_types": "a guest has no annotated_types: write loom_sdk.Field, which takes the same",
}
"""By the module that is not there."""
_NOT_SOURCE = shutil.ignore_patterns("build", "__pycache__", ".*", "*.wasm")
_RUN = "import componentize_py; componentize_py.script()"


class PythonBuilder:
    """`module:Class`. A build takes 5 to 10 s."""

    def tool(self) -> str:
        return TOOL_VERSION

    def name(self, folder: Path, entry: str) -> str:
        module, _, attribute = entry.partition(":")
        if module.isidentifier() and attribute.isidentifier():
            existing(folder / f"{module}.py")
            return module
        raise PluginLoadError(
            f"entry {entry!r} is neither a .wasm file nor source: 'module:Class' with a module in "
            f"{folder}, or a .c, .zig or .js file there"
        )

    def sources(self, folder: Path) -> Iterator[tuple[Path, Path]]:
        yield from files_of(folder, ".py")
        yield from ((_SDK, _SDK / f"{name}.py") for name in _SDK_MODULES)

    def make(self, folder: Path, entry: str, wit: Path, work: Path) -> Path:
        _require_tool()
        module, _, attribute = entry.partition(":")
        (work / "loom_sdk").mkdir()
        for name in _SDK_MODULES:
            shutil.copy(_SDK / f"{name}.py", work / "loom_sdk")
        (work / f"{_APP}.py").write_text(
            f"from loom_sdk import guest\nfrom {module} import {attribute}\n\n"
            f"Plugin = guest.bind({attribute})\n"
        )
        # A copy: the tool's own Python leaves __pycache__ beside the modules that it imports.
        source = work / "plugin-source"
        shutil.copytree(folder, source, ignore=_NOT_SOURCE)
        made = work / "component.wasm"
        command = [sys.executable, "-c", _RUN, "-q", "-d", str(wit), "-w", WORLD, "componentize"]
        command += ["-p", str(work), "-p", str(source), _APP, "-o", str(made)]
        # Without a virtual environment named, nothing but these two folders is searched.
        try:
            run_tool(command, entry, work)
        except PluginLoadError as error:
            raise _explained(error, entry) from error
        return made


def _explained(error: PluginLoadError, entry: str) -> PluginLoadError:
    """What to use instead of a library that no guest has."""
    for module, instead in _INSTEAD.items():
        if f"No module named '{module}" in error.message:
            return PluginLoadError(f"building {entry} failed: {instead}")
    return error


def _require_tool() -> None:
    need = f"pip install componentize-py=={TOOL_VERSION}"
    if importlib.util.find_spec("componentize_py") is None:
        raise PluginLoadError(f"a Python plugin in the wasm tier needs its compiler: {need}")
    found = importlib.metadata.version("componentize-py")
    if found != TOOL_VERSION:
        raise PluginLoadError(f"componentize-py {found} is installed, Loom needs: {need}")
