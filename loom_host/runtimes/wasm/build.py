"""Components from Python plugins: componentize-py around the plugin class, cached by its inputs."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import loom_sdk
from loom_sdk.errors import PluginLoadError

TOOL_VERSION = "0.25.1"
WORLD = "loom-plugin"
_APP = "loom_guest_app"
_SDK = Path(loom_sdk.__file__).parent
_SDK_MODULES = (
    "__init__",
    "calls",
    "context",
    "driver",
    "errors",
    "events",
    "guest",
    "guest_port",
    "plugin",
    "schema",
    "topics",
)
"""The part of loom_sdk that runs in a guest; the rest speaks to processes and files."""
_BUILD_TIMEOUT_S = 300
_RUN = "import componentize_py; componentize_py.script()"


def wit_dir() -> Path:
    """Folder of `plugin.wit`: inside an installed wheel, else the repository's `sdk/wit`."""
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "_bundle" / "wit", package.parent / "sdk" / "wit"):
        if (folder / "plugin.wit").is_file():
            return folder
    raise PluginLoadError("plugin.wit is not installed: reinstall loom-host")


def ensure_component(folder: Path, entry: str, cache_dir: Path) -> Path:
    """Path of the component that a manifest's `entry` names; builds it where it must.

    Args:
        entry: a `.wasm` file in `folder`, or `module:Class`.
        cache_dir: where a build goes when `folder/build` holds none for these sources.

    Raises:
        PluginLoadError: there is no such file or module, or it cannot be built.
    """
    if entry.endswith(".wasm"):
        return _existing(folder / entry)
    module, wit = _module(folder, entry), wit_dir()
    shipped = folder / "build" / f"{module}.wasm"
    if is_current(folder, entry, shipped):
        return shipped
    digest = inputs_hash(folder, entry, wit)
    out = cache_dir / f"{module}-{digest[:16]}.wasm"
    if not (out.is_file() and _recorded(out) == digest):
        build_component(folder, entry, out, wit)
    return out


def build_plugin(folder: Path, entry: str) -> Path:
    """Build into `folder/build`, where `ensure_component` finds it; returns the component."""
    if entry.endswith(".wasm"):
        return _existing(folder / entry)
    out = folder / "build" / f"{_module(folder, entry)}.wasm"
    build_component(folder, entry, out, wit_dir())
    return out


def is_current(folder: Path, entry: str, made: Path) -> bool:
    """Whether `made` was built from these very sources."""
    return made.is_file() and _recorded(made) == inputs_hash(folder, entry, wit_dir())


def build_component(folder: Path, entry: str, out: Path, wit: Path) -> None:
    """Build `module:Class` into `out`, and record its inputs beside it. Takes 5 to 10 s.

    Raises:
        PluginLoadError: componentize-py is missing or refused; the message has its last words.
    """
    module, _, attribute = entry.partition(":")
    _module(folder, entry)
    _require_tool()
    digest = inputs_hash(folder, entry, wit)
    out.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="loom-build-") as temporary:
        work = Path(temporary)
        (work / "loom_sdk").mkdir()
        for name in _SDK_MODULES:
            shutil.copy(_SDK / f"{name}.py", work / "loom_sdk")
        (work / f"{_APP}.py").write_text(
            f"from loom_sdk import guest\nfrom {module} import {attribute}\n\n"
            f"Plugin = guest.bind({attribute})\n"
        )
        made = work / "component.wasm"
        _componentize([str(work), str(folder)], wit, made, entry)
        _place(made, out, digest)


def inputs_hash(folder: Path, entry: str, wit: Path) -> str:
    """Hash of all that a build is made from: sources, SDK, WIT, entry and tool version."""
    digest = hashlib.sha256(f"{entry}\n{WORLD}\n{TOOL_VERSION}\n".encode())
    for root, path in _sources(folder, wit):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _sources(folder: Path, wit: Path) -> Iterator[tuple[Path, Path]]:
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).parts
        if "__pycache__" not in parts and parts[0] != "build":
            yield folder, path
    yield from ((_SDK, _SDK / f"{name}.py") for name in _SDK_MODULES)
    yield from ((wit, path) for path in sorted(wit.glob("*.wit")))


def _existing(path: Path) -> Path:
    if path.is_file():
        return path
    raise PluginLoadError(f"{path} is not there: build it, or correct `entry` in plugin.toml")


def _module(folder: Path, entry: str) -> str:
    module, _, attribute = entry.partition(":")
    if module.isidentifier() and attribute.isidentifier():
        _existing(folder / f"{module}.py")
        return module
    raise PluginLoadError(
        f"entry {entry!r} is neither a .wasm file nor 'module:Class' with a module in {folder}"
    )


def _recorded(component: Path) -> str:
    try:
        return component.with_suffix(".inputs").read_text().strip()
    except OSError:
        return ""


def _require_tool() -> None:
    need = f"pip install componentize-py=={TOOL_VERSION}"
    if importlib.util.find_spec("componentize_py") is None:
        raise PluginLoadError(f"a Python plugin in the wasm tier needs its compiler: {need}")
    found = importlib.metadata.version("componentize-py")
    if found != TOOL_VERSION:
        raise PluginLoadError(f"componentize-py {found} is installed, Loom needs: {need}")


def _componentize(paths: list[str], wit: Path, out: Path, entry: str) -> None:
    command = [sys.executable, "-c", _RUN, "-q", "-d", str(wit), "-w", WORLD, "componentize"]
    for path in paths:
        command += ["-p", path]
    command += [_APP, "-o", str(out)]
    # Without a virtual environment named, nothing but `paths` is searched for modules.
    kept = ("HOME", "LANG", "TMPDIR")
    environment = {key: os.environ[key] for key in kept if key in os.environ}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_BUILD_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise PluginLoadError(f"building {entry} took over {_BUILD_TIMEOUT_S} s") from error
    if done.returncode != 0 or not out.is_file():
        raise PluginLoadError(f"building {entry} failed: {_last_words(done.stderr)}")


def _last_words(text: str) -> str:
    """What a failed build said at its end: the Python exception where there is one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in reversed(lines):
        name = line.split(":", 1)[0]
        if ": " in line and name.rsplit(".", 1)[-1].isidentifier() and name[:1] != "<":
            return line
    return lines[-1] if lines else "no output"


def _place(made: Path, out: Path, digest: str) -> None:
    """Both files appear whole; the record last, so that it never vouches for an older file."""
    record = out.with_suffix(".inputs")
    record.unlink(missing_ok=True)
    for target, data in ((out, made.read_bytes()), (record, f"{digest}\n".encode())):
        handle, temporary = tempfile.mkstemp(dir=out.parent, prefix=".new-")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
