"""Plugins in Go and Rust: `build/plugin`, made from the sources beside `plugin.toml`.

What lies in the folder says how: `go.mod` or `Cargo.toml`, where `entry = ["build/plugin"]`. Only
`loom plugin build` and tests that ask for it run a compiler; an installation or a start never does.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loom_sdk.errors import PluginLoadError

from .discovery import bundle
from .manifest import Manifest

PROGRAM = "build/plugin"
RECORD = "plugin.inputs"
"""File in `build/`: hashes of the sources and of plugin.proto that it was made from."""
BUILD_TIMEOUT_S = 1200
"""A first build compiles gRPC too: two to three minutes on a busy machine."""
PROTOC_FIX = "pip install 'loom-host[build]'"
_GO_TOOLS = (
    "google.golang.org/protobuf/cmd/protoc-gen-go",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc",
)


@dataclass(frozen=True, slots=True)
class Toolchain:
    """How one language is built."""

    program: str
    fix: str
    """How to get it."""
    mark: str
    """The file by which a folder is known to be of this language."""
    sources: tuple[str, ...]
    """Patterns of the files that a build is made from."""
    make: Callable[[Path], None]


def toolchain_of(manifest: Manifest) -> Toolchain | None:
    """That of a plugin that is built here; None where there is nothing to build."""
    if not (isinstance(manifest.entry, tuple) and manifest.entry[0] == PROGRAM):
        return None
    return language_of(manifest.folder)


def language_of(folder: Path) -> Toolchain | None:
    """That of the sources in a folder; None where they are of neither language."""
    return next((t for t in TOOLCHAINS if (folder / t.mark).is_file()), None)


def missing(manifest: Manifest) -> tuple[str, str] | None:
    """What keeps it from running, and the line that mends it; None where its build is there."""
    tools = toolchain_of(manifest)
    if tools is None or _recorded(manifest.folder)[:1] == [_sources_hash(manifest.folder, tools)]:
        return None
    return "its build is missing or old", f"loom plugin build {manifest.folder}"


def is_current(folder: Path, tools: Toolchain) -> bool:
    """Whether `build/plugin` was made from these sources and this plugin.proto."""
    return _recorded(folder) == [_sources_hash(folder, tools), _proto_hash()]


def build(folder: Path, tools: Toolchain) -> Path:
    """Make `build/plugin`; returns its path.

    Raises:
        PluginLoadError: the toolchain is missing or refused; the message tells how to get it, or
            has its first words.
    """
    if shutil.which(tools.program) is None:
        raise PluginLoadError(
            f"{folder} is built with {tools.program}, which is not installed: {tools.fix}"
        )
    (folder / "build").mkdir(exist_ok=True)
    record = folder / "build" / RECORD
    record.unlink(missing_ok=True)
    tools.make(folder)
    record.write_text(f"{_sources_hash(folder, tools)}\n{_proto_hash()}\n")
    return folder / PROGRAM


def _make_go(folder: Path) -> None:
    stubs = folder / "build" / "loompb"
    mark = stubs / "proto.sha256"
    if not mark.is_file() or mark.read_text() != _proto_hash():
        shutil.rmtree(stubs, ignore_errors=True)
        stubs.mkdir()
        _go_stubs(folder)
        mark.write_text(_proto_hash())
    # Without C, the program needs no library of this machine, and its paths are not this machine's.
    environment = {"CGO_ENABLED": os.environ.get("CGO_ENABLED", "0")}
    _run(
        ["go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", PROGRAM, "."],
        folder,
        environment,
    )


def _go_stubs(folder: Path) -> None:
    """Of plugin.proto, by the generators that go.mod names."""
    module = (folder / "go.mod").read_text().split(maxsplit=2)[1]
    options = [f"--go_opt=Mplugin.proto={module}/build/loompb"]
    options += [f"--go-grpc_opt=Mplugin.proto={module}/build/loompb"]
    with tempfile.TemporaryDirectory(prefix="loom-go-") as temporary:
        for tool in _GO_TOOLS:
            made = Path(temporary, tool.rpartition("/")[2])
            _run(["go", "build", "-buildvcs=false", "-o", str(made), tool], folder)
            kind = made.name.removeprefix("protoc-gen-")
            options += [f"--plugin={made}", f"--{kind}_out=build/loompb"]
            options += [f"--{kind}_opt=paths=source_relative"]
        _run([*_protoc(), *options, "plugin.proto"], folder)


def _make_rust(folder: Path) -> None:
    compiled = "--descriptor_set_out=build/plugin.binpb"
    _run([*_protoc(), "--include_imports", compiled, "plugin.proto"], folder)
    target = _cache() / "cargo"
    target.mkdir(parents=True, exist_ok=True)
    name = tomllib.loads((folder / "Cargo.toml").read_text())["package"]["name"]
    with (target / "loom.lock").open("w") as lock:  # plugins of one name share the place
        fcntl.flock(lock, fcntl.LOCK_EX)
        _run(["cargo", "build", "--release"], folder, {"CARGO_TARGET_DIR": str(target)})
        made = folder / f"{PROGRAM}.new"
        shutil.copy(target / "release" / name, made)
    made.replace(folder / PROGRAM)


TOOLCHAINS = (
    Toolchain(
        "go", "Go 1.26 or newer from https://go.dev/dl", "go.mod",
        ("*.go", "go.mod", "go.sum"), _make_go,
    ),
    Toolchain(
        "cargo", "Rust 1.88 or newer from https://rustup.rs", "Cargo.toml",
        ("*.rs", "Cargo.toml", "Cargo.lock"), _make_rust,
    ),
)  # fmt: skip


def _protoc() -> list[str]:
    """The command, with plugin.proto's folder. Raises PluginLoadError with the install line."""
    command: list[str] = []
    if importlib.util.find_spec("grpc_tools") is not None:
        command = [sys.executable, "-m", "grpc_tools.protoc"]
    elif found := shutil.which("protoc"):
        command = [found]
    if not command:
        raise PluginLoadError(f"protoc, which reads plugin.proto, is not installed: {PROTOC_FIX}")
    return [*command, f"-I{bundle('proto')}"]


def _cache() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "loom"


def _recorded(folder: Path) -> list[str]:
    if not (folder / PROGRAM).is_file():
        return []
    try:
        return (folder / "build" / RECORD).read_text().split()
    except OSError:
        return []


def _sources_hash(folder: Path, tools: Toolchain) -> str:
    digest = hashlib.sha256()
    files = {path for pattern in tools.sources for path in folder.rglob(pattern)}
    for path in sorted(files):
        inside = path.relative_to(folder)
        if inside.parts[0] not in ("build", "target"):
            digest.update(f"{inside.as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _proto_hash() -> str:
    return hashlib.sha256((bundle("proto") / "plugin.proto").read_bytes()).hexdigest()


def _run(
    command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> None:
    """Run a part of a toolchain. Raises PluginLoadError with its first words."""
    try:
        done = subprocess.run(
            command, cwd=folder, env=os.environ | dict(environment or {}),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise PluginLoadError(
            f"{command[0]} did not end within {BUILD_TIMEOUT_S} s in {folder}: is its registry "
            "reached?"
        ) from error
    if done.returncode != 0:
        words = " | ".join(_first_words(done.stderr))
        raise PluginLoadError(f"{' '.join(command[:2])} failed in {folder}: {words}")


def _first_words(text: str) -> list[str]:
    """From the first error on, since cargo tells its progress before, and no more than four."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" |\t")]
    begin = next((n for n, line in enumerate(lines) if line.startswith("error")), 0)
    return lines[begin : begin + 4]
