"""The host's side of the zygote: starts it at first use, asks it for workers, ends it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import wasmtime

import loom_sdk
from loom_sdk.errors import PluginCrashed

from .preopens import NO_FOLDERS, Room

_FORK_TIMEOUT_S = 10.0
"""A zygote that has not forked by then is stuck, and is replaced with all that it forked."""
_END_TIMEOUT_S = 1.0
_DATAGRAM = 1 << 16

_BOOT = """
import sys, types
folder, descriptor, *paths = sys.argv[1:]
sys.path += paths
for name in ("loom_host", "loom_host.runtimes", "loom_host.runtimes.wasm"):
    package = sys.modules[name] = types.ModuleType(name)
    package.__path__ = [folder + "/" + name.replace(".", "/")]
from loom_host.runtimes.wasm import zygote
zygote.main(int(descriptor))
"""
"""Imports the zygote's modules without their packages' `__init__`, which import the host: what is
not loaded is not shared with every worker, and cannot be attacked there."""


class Offspring:
    """A process that the zygote forked. Ended by its pidfd, which no other process can inherit."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid, self._pidfd = pid, pidfd
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Exit code, negative for a signal."""
        self.out_of_memory = False
        """The kernel killed it for the memory of its control group."""

    def kill(self) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def ended(self, code: int, out_of_memory: bool = False) -> None:
        self.out_of_memory = out_of_memory
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        if not self.exited.done():
            self.exited.set_result(code)


class Nursery:
    """One zygote at a time, made again when it is gone."""

    def __init__(self) -> None:
        self._starting = asyncio.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._numbers = count(1)
        self._asked: dict[int, asyncio.Future[Offspring]] = {}
        self._alive: dict[int, Offspring] = {}

    async def fork(
        self,
        mode: str,
        memory: int,
        frame_limit: int,
        descriptors: Sequence[int],
        room: Room = NO_FOLDERS,
        metered: bool = False,
    ) -> Offspring:
        """A locked-down worker.

        Args:
            mode: `guest` or `compile`.
            memory: its quota in bytes.
            descriptors: data socket, control socket, the file it works on, and the folders of its
                room; still the caller's.
            room: its folders.
            metered: its engine counts fuel.

        Raises:
            PluginCrashed: no process could be started.
        """
        sock = await self._ready()
        number = next(self._numbers)
        future: asyncio.Future[Offspring] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        request: dict[str, Any] = {
            "number": number, "mode": mode, "memory": memory, "frame_limit": frame_limit,
            "metered": metered, **asdict(room),
        }  # fmt: skip
        late = asyncio.get_running_loop().call_later(_FORK_TIMEOUT_S, self._overdue, number)
        future.add_done_callback(lambda _: late.cancel())
        try:
            await self._send(sock, request, descriptors)
            return await asyncio.shield(future)
        except OSError as error:
            raise PluginCrashed(f"no worker process could be started: {error}") from error
        finally:
            if not future.done():
                future.add_done_callback(_unwanted)

    def _overdue(self, number: int) -> None:
        if number in self._asked:
            self._lost()

    async def _send(
        self, sock: socket.socket, request: dict[str, Any], descriptors: Sequence[int]
    ) -> None:
        text = json.dumps(request).encode()
        while True:
            try:
                socket.send_fds(sock, [text], descriptors)
                return
            except BlockingIOError:
                await asyncio.sleep(0.001)

    async def _ready(self) -> socket.socket:
        async with self._starting:
            if self._socket is None:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with theirs:
                    try:
                        self._process = await asyncio.to_thread(_spawn, theirs)
                    except BaseException:
                        ours.close()
                        raise
                ours.setblocking(False)
                self._socket = ours
                asyncio.get_running_loop().add_reader(ours, self._read)
            return self._socket

    def _read(self) -> None:
        assert self._socket is not None
        try:
            text, descriptors, _, _ = socket.recv_fds(self._socket, _DATAGRAM, 1)
        except BlockingIOError:
            return
        except ConnectionError:
            text, descriptors = b"", []
        if not text:
            self._lost()
            return
        said = json.loads(text)
        number = said["number"]
        if "pid" in said:
            child = self._alive[number] = Offspring(said["pid"], descriptors[0])
            self._asked.pop(number).set_result(child)
        elif "exit" in said:
            self._alive.pop(number).ended(said["exit"], said["out_of_memory"])
        else:
            self._asked.pop(number).set_exception(PluginCrashed(said["error"]))

    def _lost(self) -> None:
        """The zygote is gone; its children died with it."""
        sock, self._socket = self._socket, None
        if sock is not None:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        for child in self._alive.values():
            child.kill()
            child.ended(-signal.SIGKILL)
        self._alive.clear()
        for future in self._asked.values():
            if not future.done():
                future.set_exception(PluginCrashed("the parent of the worker processes ended"))
        self._asked.clear()

    async def aclose(self) -> None:
        """End the zygote and what it forked."""
        process, sock = self._process, self._socket
        if process is None or sock is None:
            return
        self._process = None
        sock.shutdown(socket.SHUT_WR)
        try:
            await asyncio.to_thread(process.wait, _END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        try:
            async with asyncio.timeout(_END_TIMEOUT_S):
                while self._socket is not None:  # the last words, then its end
                    self._read()
                    await asyncio.sleep(0)
        except TimeoutError:
            self._lost()


def _unwanted(future: asyncio.Future[Offspring]) -> None:
    """Its caller has given up: end what came after all."""
    if not future.cancelled() and future.exception() is None:
        future.result().kill()


def _spawn(theirs: socket.socket) -> subprocess.Popen[bytes]:
    """In a thread, for the few milliseconds that it takes. No environment, no site packages
    beside what the zygote imports."""
    folder = Path(__file__).resolve().parents[3]
    paths = [Path(str(module.__file__)).resolve().parent.parent for module in (loom_sdk, wasmtime)]
    number = theirs.fileno()
    command = [sys.executable, "-I", "-S", "-c", _BOOT, str(folder), str(number), *map(str, paths)]
    return subprocess.Popen(
        command,
        env={"LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "1"},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[number],
        start_new_session=True,
    )
