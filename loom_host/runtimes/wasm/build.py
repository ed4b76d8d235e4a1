"""Components from source, by the manifest's `entry`; cached by all that they are made from."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from loom_sdk.errors import PluginLoadError

from .build_js import JsBuilder
from .build_native import NativeBuilder
from .build_python import PythonBuilder
from .compiler import Builder, existing, sdk_dir

_BUILDERS: Mapping[str, Builder] = {
    ".c": NativeBuilder(),
    ".zig": NativeBuilder(),
    ".js": JsBuilder(),
    ".mjs": JsBuilder(),
}
_PYTHON = PythonBuilder()


def wit_dir() -> Path:
    """Folder of `plugin.wit`."""
    return sdk_dir("wit")


def ensure_component(folder: Path, entry: str, cache_dir: Path) -> Path:
    """Path of the component that a manifest's `entry` names; builds it where it must.

    Args:
        entry: a `.wasm`, `.c`, `.zig` or `.js` file in `folder`, or `module:Class`.
        cache_dir: where a build goes when `folder/build` holds none for these sources.

    Raises:
        PluginLoadError: there is no such file or module, or it cannot be built.
    """
    if entry.endswith(".wasm"):
        return existing(folder / entry)
    shipped = built_path(folder, entry)
    if is_current(folder, entry, shipped):
        return shipped
    wit = wit_dir()
    out, digest = _cached(folder, entry, cache_dir)
    if not (out.is_file() and _recorded(out) == digest):
        with _alone(out):
            if not (out.is_file() and _recorded(out) == digest):
                build_component(folder, entry, out, wit)
    return out


def is_cached(folder: Path, entry: str, cache_dir: Path) -> bool:
    """Whether `ensure_component` finds what it built of these very sources before."""
    out, digest = _cached(folder, entry, cache_dir)
    return out.is_file() and _recorded(out) == digest


def _cached(folder: Path, entry: str, cache_dir: Path) -> tuple[Path, str]:
    digest = inputs_hash(folder, entry, wit_dir())
    return cache_dir / f"{built_path(folder, entry).stem}-{digest[:16]}.wasm", digest


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One build of a component at a time on this machine; the second finds it built."""
    out.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with out.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def built_path(folder: Path, entry: str) -> Path:
    """Where `loom plugin build` puts a component and `ensure_component` looks first."""
    if entry.endswith(".wasm"):
        return existing(folder / entry)
    return folder / "build" / f"{_builder(entry).name(folder, entry)}.wasm"


def is_current(folder: Path, entry: str, made: Path) -> bool:
    """Whether `made` was built from these very sources."""
    return made.is_file() and (
        entry.endswith(".wasm") or _recorded(made) == inputs_hash(folder, entry, wit_dir())
    )


def build_component(folder: Path, entry: str, out: Path, wit: Path) -> None:
    """Build an `entry` that is source into `out`, and record its inputs beside it.

    Raises:
        PluginLoadError: the compiler is missing or refused; the message has its last words.
    """
    builder = _builder(entry)
    builder.name(folder, entry)
    digest = inputs_hash(folder, entry, wit)
    out.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="loom-build-") as temporary:
        made = builder.make(folder, entry, wit, Path(temporary))
        if not made.is_file():
            raise PluginLoadError(f"building {entry} left no component")
        _place(made, out, digest)


def inputs_hash(folder: Path, entry: str, wit: Path) -> str:
    """Hash of all that a build is made from: sources, SDK, WIT, entry and tool version."""
    builder = _builder(entry)
    digest = hashlib.sha256(f"{entry}\n{builder.tool()}\n".encode())
    files = [*builder.sources(folder), *((wit, path) for path in sorted(wit.glob("*.wit")))]
    for root, path in files:
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _builder(entry: str) -> Builder:
    return _BUILDERS.get(Path(entry).suffix, _PYTHON)


def _recorded(component: Path) -> str:
    try:
        return component.with_suffix(".inputs").read_text().strip()
    except OSError:
        return ""


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
