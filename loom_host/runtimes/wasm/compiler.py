"""What every builder of components shares: where the SDKs are, and running a foreign compiler."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from loom_sdk.errors import PluginLoadError

BUILD_TIMEOUT_S = 600
"""A first build of C compiles the C library too: 15 to 80 s on a busy machine."""
LINKER_MOST = 8
"""Errors of one link that are told."""
_KEPT = ("HOME", "LANG", "TMPDIR", "XDG_CACHE_HOME")


class Builder(Protocol):
    """Makes components from the sources of one language."""

    def tool(self) -> str:
        """Name and version of the compiler that it needs, without looking for it."""
        ...

    def name(self, folder: Path, entry: str) -> str:
        """File name, without its ending, of what `entry` makes. Raises PluginLoadError."""
        ...

    def sources(self, folder: Path) -> Iterator[tuple[Path, Path]]:
        """All files that a build is made from beside the WIT, as (root, path) in a fixed order."""
        ...

    def make(self, folder: Path, entry: str, wit: Path, work: Path) -> Path:
        """Build in the empty folder `work`; returns the component there. Raises PluginLoadError."""
        ...


def sdk_dir(name: str) -> Path:
    """A part of the SDKs (`wit`, `c`, `zig`, `js/wasm`): of an installed wheel, else of `sdk/`."""
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "_bundle" / name, package.parent / "sdk" / name):
        if folder.is_dir():
            return folder
    raise PluginLoadError(f"sdk/{name} is not installed: reinstall loom-host")


def files_of(root: Path, *endings: str) -> Iterator[tuple[Path, Path]]:
    """(root, file) for every source file below `root`, without what builds leave there."""
    left = {"__pycache__", "build", "node_modules"}
    for path in sorted(root.rglob("*")):
        if path.suffix in endings and not left & set(path.relative_to(root).parts):
            yield root, path


def existing(path: Path) -> Path:
    if path.is_file():
        return path
    raise PluginLoadError(f"{path} is not there: build it, or correct `entry` in plugin.toml")


def run_tool(
    command: Sequence[str], entry: str, cwd: Path, environment: Mapping[str, str] | None = None
) -> None:
    """Run a compiler with next to nothing of this process's environment.

    Raises:
        PluginLoadError: it failed or took too long; the message has its last words.
    """
    kept = {key: os.environ[key] for key in _KEPT if key in os.environ} | dict(environment or {})
    try:
        done = subprocess.run(
            command,
            env=kept,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise PluginLoadError(f"building {entry} took over {BUILD_TIMEOUT_S} s") from error
    except OSError as error:
        raise PluginLoadError(f"building {entry}: {command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        raise PluginLoadError(f"building {entry} failed: {_last_words(done.stderr)}")


def _last_words(text: str) -> str:
    """What a failed build said: a compiler's first error, else all of a linker's, else its causes,
    else an exception.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in lines:
        if ": error: " in line:
            return line
    linker = [line.removeprefix("error: ") for line in lines if line.startswith("error: wasm-ld:")]
    if linker:
        return "; ".join(linker[:LINKER_MOST])
    if "Caused by:" in lines:
        return "; ".join(lines[lines.index("Caused by:") + 1 :])
    for line in reversed(lines):
        name = line.split(":", 1)[0]
        if ": " in line and name.rsplit(".", 1)[-1].isidentifier() and name[:1] != "<":
            return line
    return lines[-1] if lines else "no output"
