"""Backups of a store: one tar file with the files of a checkpoint and their checksums.

The last member is `manifest.json`: {"loom": "store", "version": 1, "created_ms": ..., "files":
{NAME: {"size": bytes, "sha256": hex}}}. A backup that was cut off lacks it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from loom_sdk.errors import StorageError

MANIFEST, VERSION = "manifest.json", 1
CHUNK = 1024**2
LEFT_OVER_S = 24 * 3600
"""A checkpoint so old is of a backup that was broken off."""

_MALFORMED = (ValueError, KeyError, TypeError, AttributeError)
"""What a manifest raises that is JSON, but another."""

Tell = Callable[[int, int], None]
"""Called with the bytes that are done and all that there are."""


def new_checkpoint(data_dir: Path) -> Path:
    """Where to make a checkpoint; those that broken-off backups left are removed."""
    folder = data_dir / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for old in folder.iterdir():
        if time.time() - old.stat().st_mtime > LEFT_OVER_S:
            shutil.rmtree(old, ignore_errors=True)
    return folder / f"{time.time_ns():x}-{os.getpid()}"


def backup_path(target: Path) -> Path:
    """The file to write: a new one with the time in its name where the target is a folder."""
    if target.is_dir():
        return target / time.strftime("loom-store-%Y%m%d-%H%M%S.tar", time.gmtime())
    return target


def backup_in(source: Path) -> Path:
    """The file to read: the newest backup where the source is a folder. Raises StorageError."""
    if not source.is_dir():
        return source
    found = sorted(source.glob("loom-store-*.tar"))
    if not found:
        raise StorageError(f"{source} holds no backup: none of its files is a loom-store-*.tar")
    return found[-1]


def pack(checkpoint: Path, target: Path, tell: Tell) -> int:
    """Write the backup; the target appears when it is whole. Returns bytes. Raises OSError."""
    files = sorted(path for path in checkpoint.iterdir() if path.is_file())
    total, done = sum(path.stat().st_size for path in files), 0
    listed: dict[str, dict[str, Any]] = {}
    partial = target.with_name(target.name + ".partial")
    try:
        with open(partial, "wb", opener=_private) as out:
            with tarfile.open(fileobj=out, mode="w") as tar:
                for path in files:
                    with path.open("rb") as file:
                        reader = _Reader(file, done, lambda n: tell(n, total))
                        info = tarfile.TarInfo(path.name)
                        info.size, info.mode = path.stat().st_size, 0o600
                        tar.addfile(info, reader)
                    done += info.size
                    listed[path.name] = {"size": info.size, "sha256": reader.sha256.hexdigest()}
                _add_manifest(tar, listed)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target.stat().st_size


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _add_manifest(tar: tarfile.TarFile, listed: dict[str, dict[str, Any]]) -> None:
    head = {"loom": "store", "version": VERSION, "created_ms": time.time_ns() // 1_000_000}
    data = json.dumps({**head, "files": listed}, indent=1).encode()
    info = tarfile.TarInfo(MANIFEST)
    info.size, info.mode = len(data), 0o600
    tar.addfile(info, io.BytesIO(data))


class _Reader:
    """A file that is hashed as it is read."""

    def __init__(self, file: IO[bytes], done: int, tell: Callable[[int], None]) -> None:
        self._file, self._done, self._tell = file, done, tell
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.sha256.update(data)
        self._done += len(data)
        self._tell(self._done)
        return data


def unpack(source: Path, folder: Path, tell: Tell) -> None:
    """Write the files of a backup into a new folder, every checksum verified.

    Raises:
        StorageError: it is no backup, or is damaged; nothing is left of the folder.
    """
    folder.mkdir(parents=True, mode=0o700)
    try:
        with _wrong_told(source), tarfile.open(source, "r:") as tar:
            _unpack(source, tar, folder, tell)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextlib.contextmanager
def _wrong_told(source: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, *_MALFORMED) as error:
        raise StorageError(
            f"{source} is no whole backup of a store: {error}; take another one"
        ) from error
    except OSError as error:
        raise StorageError(f"{source} cannot be restored: {error}") from error


def _unpack(source: Path, tar: tarfile.TarFile, folder: Path, tell: Tell) -> None:
    found: dict[str, str] = {}
    total, manifest = source.stat().st_size, None
    for member in tar:
        if not member.isfile() or Path(member.name).name != member.name or manifest:
            raise ValueError(f"it has a member {member.name!r}")
        file = tar.extractfile(member)
        assert file is not None  # a regular file
        if member.name == MANIFEST:
            manifest = json.loads(file.read())
            continue
        found[member.name] = _copy(file, folder / member.name)
        tell(tar.offset, total)
    if manifest is None:
        raise ValueError("its end is missing")
    if (manifest["loom"], manifest["version"]) != ("store", VERSION):
        raise ValueError("it was written by another version")
    for name in {*manifest["files"]} ^ {*found}:
        raise ValueError(f"{name} is not in it, or not listed")
    for name, row in manifest["files"].items():
        if found[name] != row["sha256"]:
            raise ValueError(f"the checksum of {name} is wrong")
    tell(total, total)


def _copy(file: IO[bytes], target: Path) -> str:
    """The sha256 of what was copied."""
    sha256 = hashlib.sha256()
    with open(target, "xb", opener=_private) as out:
        while data := file.read(CHUNK):
            sha256.update(data)
            out.write(data)
        out.flush()
        os.fsync(out.fileno())
    return sha256.hexdigest()


def put_in_place(restored: Path, store: Path) -> Path | None:
    """Make a restored folder the store. Returns where the one that was there has gone, if any."""
    old = store.with_name(store.name + ".replaced")
    with exclusive(store):
        if store.exists():
            shutil.rmtree(old, ignore_errors=True)
            store.rename(old)
        restored.rename(store)
    return old if old.exists() else None


@contextlib.contextmanager
def exclusive(store: Path) -> Iterator[None]:
    """Keep hosts from opening a store; raises StorageError where one has it open.

    Not in a process that has it open itself: closing the file would give up the lock of RocksDB.
    """
    try:
        descriptor = os.open(store / "LOCK", os.O_RDWR)
    except FileNotFoundError:
        yield
        return
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StorageError(f"a host has the store at {store} open: stop it first") from error
    try:
        yield
    finally:
        os.close(descriptor)
