"""Plugins that run on Node.js: the packages and the SDK that they need, in their `build/` folder.

`package-lock.json` beside `plugin.toml` says exactly which packages. npm fetches them once; a
plugin that is built needs Node alone and no network. Its modules find the SDK by
`"imports": {"#loom-sdk": "./build/loom-sdk/src/index.js"}` in package.json.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from loom_sdk.errors import PluginLoadError

from .discovery import PACKAGE, bundle
from .manifest import Manifest

BUILD_TIMEOUT_S = 600
RECORD = "inputs"
"""File in `build/` that tells what it was made from."""
NODE_FIX = "install Node.js 20 or newer: apt install nodejs npm"
_NPM = (
    "npm", "ci", "--omit=dev", "--ignore-scripts", "--no-bin-links", "--no-audit", "--no-fund",
)  # fmt: skip
"""A package holds no links."""


def needs_packages(manifest: Manifest) -> bool:
    """Whether `loom plugin build` has npm packages to fetch for it."""
    runs_node = isinstance(manifest.entry, tuple) and manifest.entry[0] == "node"
    return runs_node and (manifest.folder / "package-lock.json").is_file()


def missing(manifest: Manifest) -> tuple[str, str] | None:
    """What keeps a Node plugin from running here, and the line that mends it."""
    if not (isinstance(manifest.entry, tuple) and manifest.entry[0] == "node"):
        return None
    if shutil.which("node") is None:
        return "Node.js is missing", NODE_FIX
    if needs_packages(manifest) and not is_current(manifest.folder):
        return "its npm packages are missing or old", f"loom plugin build {manifest.folder}"
    if _lacks_packages(manifest.folder):
        what = (
            "package.json names packages, and there is neither package-lock.json nor node_modules"
        )
        where = manifest.folder
        return what, f"npm install --package-lock-only in {where}, then loom plugin build {where}"
    return None


def _lacks_packages(folder: Path) -> bool:
    """Whether it names packages and has neither a lock file nor a folder of them."""
    around = (folder, *folder.resolve().parents)  # where Node looks
    places = [folder / "package-lock.json", *(place / "node_modules" for place in around)]
    if any(place.exists() for place in (*places, folder / "build" / "node_modules")):
        return False
    with suppress(OSError, ValueError):
        named = json.loads((folder / "package.json").read_bytes())
        return isinstance(named, dict) and bool(named.get("dependencies"))
    return False


def is_current(folder: Path) -> bool:
    """Whether `build/` was made from this lock file and this SDK."""
    try:
        return (folder / "build" / RECORD).read_text() == inputs_hash(folder)
    except OSError:
        return False


def inputs_hash(folder: Path) -> str:
    """Hash of all that a build is made from."""
    digest = hashlib.sha256((folder / "package-lock.json").read_bytes())
    for path in _sdk_files():
        digest.update(f"{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def build(folder: Path) -> Path:
    """Fetch the packages and put them, with the SDK, into `folder/build`; returns that folder.

    Raises:
        PluginLoadError: npm is missing or refused; the message has its last words.
    """
    target = folder / "build"
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=target) as temporary:
        work = Path(temporary)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(folder / name, work)
        _npm(work, folder)
        (work / "node_modules").mkdir(exist_ok=True)  # there may be none to fetch
        _copy_sdk(work / "loom-sdk")
        (target / RECORD).unlink(missing_ok=True)
        for name in ("node_modules", "loom-sdk"):
            shutil.rmtree(target / name, ignore_errors=True)
            (work / name).rename(target / name)
    (target / RECORD).write_text(inputs_hash(folder))
    return target


def _npm(work: Path, folder: Path) -> None:
    try:
        done = subprocess.run(
            _NPM, cwd=work, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False
        )
    except FileNotFoundError as error:
        raise PluginLoadError(
            f"{folder} is built with npm, which is missing: {NODE_FIX}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise PluginLoadError(
            f"npm did not end within {BUILD_TIMEOUT_S} s in {folder}: is its registry reached?"
        ) from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()[-5:]
        raise PluginLoadError(f"npm ci failed for {folder}: {' | '.join(lines)}")


def _sdk() -> Path:
    packaged = PACKAGE / "_bundle" / "js"
    return packaged if packaged.is_dir() else PACKAGE.parent / "sdk" / "js"


def _sdk_files() -> Iterator[Path]:
    yield _sdk() / "package.json"
    yield from sorted((_sdk() / "src").glob("*.*"))
    yield bundle("proto") / "plugin.proto"


def _copy_sdk(target: Path) -> None:
    (target / "src").mkdir(parents=True)
    for path in _sdk_files():
        shutil.copy(path, target / "src" if path.parent.name == "src" else target)
