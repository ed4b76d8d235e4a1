"""The files of installed packages: one folder for each, named by its digest, never changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loom_sdk.errors import PluginLoadError

from .archive import DESCRIPTION, Archive, canonical
from .lock import Locked

FOLDER = "installed"
"""Below the host's data folder."""


class PackageStore:
    """Installed packages below `data_dir`."""

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir / FOLDER

    def folder(self, locked: Locked) -> Path:
        """Where a package's files are, or would be: `NAME-DIGEST`."""
        name = locked.id.partition("/")[2]
        return self._root / f"{name}-{locked.digest[:16]}"

    def holds(self, folder: Path) -> bool:
        """Whether a plugin's folder is one of these."""
        return folder.parent == self._root

    def put(self, archive: Archive, locked: Locked) -> Path:
        """Write the files; they appear all at once, without write permission."""
        target = self.folder(locked)
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=self._root, prefix=".new-"))
        try:
            for name, (data, executable) in archive.files.items():
                path = new / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                path.chmod(0o555 if executable else 0o444)
            (new / DESCRIPTION).parent.mkdir(exist_ok=True)
            (new / DESCRIPTION).write_bytes(canonical(archive.description))
            new.chmod(0o755)
            shutil.rmtree(target, ignore_errors=True)
            os.rename(new, target)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        return target

    def remove(self, locked: Locked) -> None:
        shutil.rmtree(self.folder(locked), ignore_errors=True)

    def verified(self, name: str, locked: Locked) -> Path:
        """The folder, once every file in it is the one that was signed.

        Raises PluginLoadError that names the file that is not.
        """
        folder = self.folder(locked)
        listed = _description(folder, name, locked)["files"]
        there = {
            path.relative_to(folder).as_posix(): path
            for path in folder.rglob("*")
            if path.is_symlink() or not path.is_dir()
        }
        there.pop(DESCRIPTION, None)
        for file in sorted(set(there) | set(listed)):
            if problem := _changed(there.get(file), listed.get(file)):
                raise _broken(name, locked, f"{file} {problem}")
        return folder


def _description(folder: Path, name: str, locked: Locked) -> Mapping[str, Any]:
    try:
        raw = (folder / DESCRIPTION).read_bytes()
    except OSError as error:
        raise _broken(name, locked, "its files are not here") from error
    if hashlib.sha256(raw).hexdigest() != locked.digest:
        raise _broken(name, locked, f"{DESCRIPTION} is not the one in loom.lock")
    described: Mapping[str, Any] = json.loads(raw)
    return described


def _changed(path: Path | None, entry: Mapping[str, Any] | None) -> str:
    if path is None:
        return "is gone"
    if entry is None:
        return "was added"
    mode = path.lstat().st_mode
    if not stat.S_ISREG(mode) or bool(mode & stat.S_IXUSR) != entry["executable"]:
        return "was changed"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return "" if digest == entry["sha256"] else "was changed"


def _broken(name: str, locked: Locked, what: str) -> PluginLoadError:
    return PluginLoadError(
        f"{name} is not what was installed: {what}; install it again "
        f"({locked.source or locked.id}) or `loom plugin remove {name}`",
        plugin_id=locked.id,
    )
