"""One child process of a plugin: its group, limits, output, memory and end."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from loom_sdk.errors import PluginLoadError

KEPT_LINES = 50
"""Last lines of output that an error message may quote."""
MAX_LINE = 8192
"""Longer lines are split, in bytes."""
SAMPLE_S = 0.1
"""How often resident memory is looked at."""
DATA_FLOOR = 96 * 1024**2
"""Writable address space that gRPC's threads reserve; with less a child hangs at its start."""

_OUT_OF_MEMORY = re.compile(r"MemoryError|bad_alloc|[Cc]annot allocate memory|[Oo]ut of memory")

OnLine = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """What the kernel and the sampler hold a child to."""

    memory: int
    """Resident bytes of the child."""
    open_files: int


def resolve_command(folder: Path, command: Sequence[str]) -> list[str]:
    """The command with its program as a path: in the plugin's folder, absolute, or on PATH.

    Raises:
        PluginLoadError: the program is missing or not executable, or its interpreter is missing.
    """
    name = command[0]
    local = folder / name
    found = str(local) if local.is_file() else shutil.which(name)
    if found is None:
        raise PluginLoadError(
            f"command {name!r} is neither in {folder} nor on PATH: install it or correct `entry`"
        )
    if not os.access(found, os.X_OK):
        raise PluginLoadError(f"{found} is not executable: run `chmod +x {found}`")
    return [found, *command[1:]]


class ChildProcess:
    """A started child, leader of its own session and process group."""

    def __init__(self, popen: subprocess.Popen[bytes], limits: Limits, on_line: OnLine) -> None:
        self.pid = popen.pid
        self.last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.memory = self.peak_memory = 0
        self.over_memory = False
        """Whether it ended, or was ended, for want of memory."""
        self._popen, self._limits, self._on_line = popen, limits, on_line
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[str] = self._loop.create_future()
        """Resolved with the reason once the child is reaped and its group is gone."""
        self._kill_reason = ""
        self._pidfd = os.pidfd_open(self.pid)
        self._pipes: list[_Lines] = []
        self._sampler = self._loop.create_task(self._sample())

    @classmethod
    async def spawn(
        cls,
        command: Sequence[str],
        env: Mapping[str, str],
        folder: Path,
        limits: Limits,
        on_line: OnLine,
    ) -> ChildProcess:
        """Start `command` in `folder`, with nothing of this process's environment but `env`.

        Raises:
            PluginLoadError: the kernel refuses to run it.
        """
        popen = _popen(command, env, folder)
        try:
            with suppress(ProcessLookupError):
                _limit(popen.pid, limits)
            child = cls(popen, limits, on_line)
        except BaseException:
            popen.kill()
            popen.wait()
            raise
        try:
            await child._follow()
        except BaseException:  # also a cancelled start: nobody else knows the child yet
            await asyncio.shield(child.aclose())
            raise
        return child

    async def _follow(self) -> None:
        """Read the output first, so that its end can be quoted, then wait for the exit."""
        outputs = {"stdout": self._popen.stdout, "stderr": self._popen.stderr}
        try:
            for name, pipe in outputs.items():
                _, lines = await self._loop.connect_read_pipe(partial(_Lines, self, name), pipe)
                self._pipes.append(lines)
        except BaseException:
            for lines in self._pipes:
                lines.close()
            for pipe in outputs.values():
                if pipe is not None:
                    pipe.close()
            raise
        finally:
            self._loop.add_reader(self._pidfd, self._on_exit)

    def kill(self, reason: str) -> None:
        """End the whole group now; `reason` is what `exited` will say."""
        if not self.exited.done():
            self._kill_reason = self._kill_reason or reason
            self.signal_group(signal.SIGKILL)

    def signal_group(self, number: int) -> None:
        """Until the leader is reaped its group id cannot have been given to anybody else."""
        if not self.exited.done():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def tail(self, count: int = 5) -> str:
        """The last lines of output as a part of a message, empty when it wrote nothing."""
        lines = list(self.last_lines)[-count:]
        return "; its last lines: " + " | ".join(lines) if lines else ""

    async def aclose(self) -> None:
        """Kill what is left, reap, release. Idempotent."""
        self.kill("closed by the host")
        await asyncio.shield(self.exited)
        self._sampler.cancel()
        for pipe in self._pipes:
            pipe.close()
        await asyncio.gather(self._sampler, return_exceptions=True)

    def read_memory(self) -> None:
        """Take `VmRSS` and `VmHWM` from /proc; both are in kB. Gone or a zombie: no change."""
        try:
            text = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return
        found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", text, re.MULTILINE))
        if "VmRSS" in found:
            self.memory = int(found["VmRSS"]) * 1024
            self.peak_memory = max(self.peak_memory, int(found.get("VmHWM", 0)) * 1024)

    async def _sample(self) -> None:
        limit = self._limits.memory
        while not self.exited.done():
            self.read_memory()
            if limit and self.memory > limit:
                self.over_memory = True
                self.kill(f"killed: it used {self.memory} bytes of memory, the quota is {limit}")
            await asyncio.sleep(SAMPLE_S)

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self.signal_group(signal.SIGKILL)  # whoever it started
        code = self._popen.wait()
        os.close(self._pidfd)
        if self._popen.stdin is not None:
            self._popen.stdin.close()
        for pipe in self._pipes:
            pipe.drain()
        self.memory = 0
        if code != 0 and not self._kill_reason and any(map(_OUT_OF_MEMORY.search, self.last_lines)):
            self.over_memory = True
        self.exited.set_result(self._kill_reason or describe_exit(code))

    def line(self, stream: str, data: bytes) -> None:
        text = data.decode("utf-8", "replace").rstrip()
        if text:
            self.last_lines.append(text)
            self._on_line(stream, text)


class _Lines(asyncio.Protocol):
    """Cuts one pipe of the child into lines."""

    def __init__(self, child: ChildProcess, stream: str) -> None:
        self._child, self._stream = child, stream
        self._rest = b""
        self._transport: asyncio.ReadTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.ReadTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._emit(line)
        while len(self._rest) > MAX_LINE:
            self._child.line(self._stream, self._rest[:MAX_LINE])
            self._rest = self._rest[MAX_LINE:]

    def connection_lost(self, error: Exception | None) -> None:
        rest, self._rest = self._rest, b""
        self._emit(rest)

    def drain(self) -> None:
        """Read what the dead child left in the pipe, so that messages can quote it."""
        pipe = self._transport.get_extra_info("pipe") if self._transport is not None else None
        if pipe is None or pipe.closed:
            return
        with suppress(OSError):  # BlockingIOError: empty, and somebody else holds it open
            while data := os.read(pipe.fileno(), 65536):
                self.data_received(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _emit(self, line: bytes) -> None:
        for start in range(0, len(line), MAX_LINE):
            self._child.line(self._stream, line[start : start + MAX_LINE])


def describe_exit(code: int) -> str:
    """`exit code 1`, or `killed by SIGKILL` for the negative code of a signal."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _popen(command: Sequence[str], env: Mapping[str, str], folder: Path) -> subprocess.Popen[bytes]:
    """No `preexec_fn`: this process has threads, and vfork is faster."""
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(
            command,
            bufsize=0,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            cwd=folder,
            env=dict(env),
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise PluginLoadError(
            f"{command[0]} cannot run: the interpreter that its first line names is missing"
        ) from error
    except OSError as error:
        raise PluginLoadError(
            f"{command[0]} cannot run: {error.strerror}; is it a program for this machine, or a "
            "script that begins with `#!`?"
        ) from error


def _limit(pid: int, limits: Limits) -> None:
    """Set from outside, right after the start: it is the plugin's code that must meet them."""
    wanted = {resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: limits.open_files}
    if limits.memory:
        wanted[resource.RLIMIT_DATA] = limits.memory + DATA_FLOOR
    for kind, value in wanted.items():
        _, hard = resource.prlimit(pid, kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.prlimit(pid, kind, (value, value))
