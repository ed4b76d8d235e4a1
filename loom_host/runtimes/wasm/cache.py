"""Compiled components on disk. Loading one runs it, so each is authenticated with a host key.

An entry's name says what it was made from: the component's `digest`, the wasmtime version and the
engine's settings. Whatever does not verify is compiled again and replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import importlib.metadata
import mmap
import os
import platform
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wasmtime import Engine, WasmtimeError
from wasmtime.component import Component

from loom_sdk.errors import PluginLoadError

from .contract import compile_component

_KEY_BYTES = 32
_KEPT_ENTRIES = 32
WASMTIME = importlib.metadata.version("wasmtime")


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/loom/wasm`, else `~/.cache/loom/wasm`."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "loom" / "wasm"


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[bytes | mmap.mmap]:
    """A file's content without a copy of it. Raises OSError."""
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield content


def digest(content: bytes | bytearray | mmap.mmap) -> bytes:
    """sha256 over the size of the first half and both halves' sha256, each taken in a thread."""
    with memoryview(content) as view, ThreadPoolExecutor(1) as pool:
        middle = len(view) // 2
        with view[:middle] as first, view[middle:] as second:
            other = pool.submit(hashlib.sha256, second)
            digests = hashlib.sha256(first).digest() + other.result().digest()
    return hashlib.sha256(middle.to_bytes(8, "little") + digests).digest()


class CodeCache:
    """Precompiled components of one engine configuration.

    Args:
        folder: private to this user; made with mode 0700.
        settings: text that names the engine's settings.
    """

    def __init__(self, folder: Path, settings: str) -> None:
        self.folder = folder
        self.hits = self.compiled = 0
        made_by = f"{WASMTIME} {platform.machine()} {settings}"
        self._suffix = hashlib.sha256(made_by.encode()).hexdigest()[:16]
        self._key = b""

    def name_of(self, wasm: bytes | mmap.mmap) -> str:
        """An entry's name. Raises PluginLoadError when the folder's key is not ours."""
        self._prepare()
        return f"{digest(wasm).hex()}-{self._suffix}"

    def verified(self, name: str) -> int | None:
        """An open file of compiled code that is authentic, None where there is none.

        Another user may open it again through /proc/self/fd, as nobody can by its path: the
        folder is private.
        """
        path = self.folder / f"{name}.cwasm"
        try:
            expected = path.with_suffix(".mac").read_bytes()
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as code:
                authentic = hmac.compare_digest(expected, self._mac(name, code))
            if authentic:
                os.utime(file)
                os.fchmod(file, 0o644)
                self.hits += 1
                return file
        except (OSError, ValueError):
            pass
        os.close(file)
        return None

    def keep(self, name: str, code: bytes) -> int:
        """Authenticate and store code that was compiled elsewhere; as an open file.

        Raises PluginLoadError where the folder cannot be written.
        """
        self.compiled += 1
        self._store(name, code)
        file = self.verified(name)
        if file is None:
            raise PluginLoadError(f"{self.folder} cannot be written: free some space there")
        self.hits -= 1
        return file

    def component(self, engine: Engine, wasm: bytes | mmap.mmap) -> Component:
        """Load or compile. Raises PluginLoadError when it is no valid component."""
        name = self.name_of(wasm)
        found = self._load(engine, name)
        if found is not None:
            self.hits += 1
            return found
        made = compile_component(engine, bytes(wasm))
        self.compiled += 1
        self._store(name, made.serialize())
        return made

    def _prepare(self) -> None:
        if self._key:
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        path = self.folder / "host.key"
        if not path.exists():
            self._write(path, os.urandom(_KEY_BYTES), replace=False)
        key = path.read_bytes()
        about = path.stat()
        if len(key) != _KEY_BYTES or about.st_mode & 0o077 or about.st_uid != os.getuid():
            raise PluginLoadError(
                f"{path} must be {_KEY_BYTES} bytes, yours and of mode 0600: delete it, it is "
                "made again"
            )
        self._key = key

    def _mac(self, name: str, code: bytes | bytearray | mmap.mmap) -> bytes:
        return hmac.digest(self._key, name.encode() + b"\0" + digest(code), "sha256")

    def _load(self, engine: Engine, name: str) -> Component | None:
        path = self.folder / f"{name}.cwasm"
        try:
            expected = path.with_suffix(".mac").read_bytes()
            with (
                path.open("rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as code,
            ):
                if not hmac.compare_digest(expected, self._mac(name, code)):
                    return None
            os.utime(path)
            return Component.deserialize_file(engine, str(path))
        except (OSError, ValueError, WasmtimeError):
            return None

    def _store(self, name: str, code: bytes | bytearray) -> None:
        path = self.folder / f"{name}.cwasm"
        # A full disk costs the next start its time, not this one its plugin.
        with contextlib.suppress(OSError):
            self._write(path, code)
            self._write(path.with_suffix(".mac"), self._mac(name, code))
            self._prune()

    def _prune(self) -> None:
        """Keep the latest entries; sources change while a plugin is written."""
        entries = sorted(self.folder.glob("*.cwasm"), key=lambda path: path.stat().st_mtime)
        for path in entries[:-_KEPT_ENTRIES]:
            path.unlink(missing_ok=True)
            path.with_suffix(".mac").unlink(missing_ok=True)

    def _write(self, path: Path, data: bytes | bytearray, replace: bool = True) -> None:
        handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=".new-")  # mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            if replace:
                os.replace(temporary, path)
            else:
                with contextlib.suppress(FileExistsError):
                    os.link(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
