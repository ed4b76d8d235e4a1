"""Compiled code for worker processes: from the authenticated cache, else from a compiler that runs
confined, since what it reads is a stranger's. What comes back is authenticated and stored."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path

from loom_sdk.errors import LoomError, PluginCrashed, PluginLoadError

from . import messages
from .cache import CodeCache
from .contract import check_preamble
from .frames import CHUNK, CODE, DONE, FAILED, OUT_OF_MEMORY, OVERHEAD, FrameError, Splitter
from .lockdown import COMPILE_MEMORY
from .nursery import Nursery, Offspring

MAX_CODE = 1024**3
"""Most bytes of compiled code that are taken from the compiler."""
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class CodeStore:
    """Opens compiled components for the workers of one host.

    Args:
        metered: compile so that fuel is counted.
    """

    def __init__(self, cache: CodeCache, nursery: Nursery, metered: bool = False) -> None:
        self._cache, self._nursery, self._metered = cache, nursery, metered
        self._one_at_a_time = asyncio.Lock()

    async def open(self, find: Callable[[], Path]) -> int:
        """An open file of authentic compiled code, which is then the caller's.

        Raises:
            PluginLoadError: no such file, no component, or it cannot be compiled.
        """
        async with self._one_at_a_time:
            path, wasm, name = await asyncio.to_thread(self._look, find)
            file = await asyncio.to_thread(self._cache.verified, name)
            if file is not None:
                return file
            try:
                code = await self._compile(wasm)
            except LoomError as error:
                raise PluginLoadError(f"{path.name}: {error.message}") from error
            return await asyncio.to_thread(self._cache.keep, name, code)

    def _look(self, find: Callable[[], Path]) -> tuple[Path, bytes, str]:
        path = find()
        try:
            wasm = path.read_bytes()
        except OSError as error:
            raise PluginLoadError(f"cannot read {path}: {error.strerror}") from error
        check_preamble(wasm, path.name)
        return path, wasm, self._cache.name_of(wasm)

    async def _compile(self, wasm: bytes) -> bytes:
        ours, theirs = socket.socketpair()
        source = os.memfd_create("component", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        child = None
        try:
            with theirs:
                await asyncio.to_thread(_fill, source, wasm)
                files = [theirs.fileno(), theirs.fileno(), source]
                child = await self._nursery.fork(
                    "compile", COMPILE_MEMORY, 0, files, metered=self._metered
                )
            ours.setblocking(False)
            return await _collect(ours, child)
        finally:
            ours.close()
            os.close(source)
            if child is not None:
                child.kill()
                await asyncio.wait({child.exited}, timeout=1)


class SharedCode:
    """One component's compiled code, found and verified once for all workers of a plugin."""

    def __init__(self, store: CodeStore, find: Callable[[], Path]) -> None:
        self._store, self._find = store, find
        self._opening = asyncio.Lock()
        self._file, self._users = -1, 0

    async def open(self) -> int:
        """Its open file, until as many `close`. Raises PluginLoadError as `CodeStore.open`."""
        async with self._opening:
            if self._file < 0:
                self._file = await self._store.open(self._find)
            self._users += 1
            return self._file

    def close(self) -> None:
        self._users -= 1
        if not self._users:
            os.close(self._file)
            self._file = -1


def _fill(source: int, wasm: bytes) -> None:
    with open(source, "wb", closefd=False) as file:
        file.write(wasm)
    fcntl.fcntl(source, fcntl.F_ADD_SEALS, _SEALS)


async def _end_of(child: Offspring) -> str:
    await asyncio.wait({child.exited}, timeout=1)
    code = child.exited.result() if child.exited.done() else 0
    if child.out_of_memory or code == OUT_OF_MEMORY:
        return f"needs more than {COMPILE_MEMORY} bytes of memory: make the component smaller"
    return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"


async def _collect(ours: socket.socket, child: Offspring) -> bytes:
    """Raises PluginLoadError: the compiler's reason; PluginCrashed: it gave none."""
    loop, frames, code = asyncio.get_running_loop(), Splitter(CHUNK + OVERHEAD), bytearray()
    try:
        while True:
            part = await loop.sock_recv(ours, CHUNK)
            if not part:
                raise PluginCrashed(f"the compiler {await _end_of(child)}")
            frames.feed(part)
            for frame in frames:
                if frame.kind == DONE:
                    return bytes(code)
                if frame.kind == FAILED:
                    raise messages.unpack_error(frame.fields)
                if frame.kind != CODE or len(code) > MAX_CODE:
                    raise FrameError(f"a frame of kind {frame.kind} after {len(code)} bytes")
                for field in frame.fields:
                    code += field
    except FrameError as error:
        raise PluginCrashed(f"the compiler broke the protocol: {error}") from error
