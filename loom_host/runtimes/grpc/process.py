"""One child process of a plugin: its group, limits, output, memory and end."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from loom_host.quotas import Quotas
from loom_sdk.errors import PluginLoadError

from .last_words import LOOKED_AT, LastWords, near_limit
from .launch import Launched
from .lines import Lines
from .meter import CpuWatch, Exceeded, folder_bytes, process_cpu_s

SAMPLE_S = 0.1
"""How often resident memory is looked at."""
DISK_EVERY = 10
"""How many samples of memory there are for one of its folders' sizes."""

_OUT_OF_MEMORY = re.compile(r"MemoryError|bad_alloc|[Cc]annot allocate memory|[Oo]ut of memory")

OnLine = Callable[[str, str], None]


class ChildProcess:
    """A started child, leader of its own session and process group.

    In a sandbox there are two: the one that the host started (bubblewrap's, whose end is the end
    of everything inside) and the plugin's, which `pid` names.
    """

    def __init__(
        self, launched: Launched, quotas: Quotas, on_line: OnLine, folders: tuple[Path, ...] = ()
    ) -> None:
        popen = launched.popen
        self.pid = popen.pid
        self.last_words = LastWords()
        self._silent = False
        """It is dead, and `last_words` holds its last ones."""
        self.memory = self.peak_memory = 0
        self.exceeded: Exceeded | None = None
        """The quota for which it ended, or was ended."""
        self.sandbox = launched.sandbox
        self.layers = {} if self.sandbox is None else self.sandbox.layers
        self._popen, self._quotas, self._on_line, self._folders = popen, quotas, on_line, folders
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[str] = self._loop.create_future()
        """Resolved with the reason once the child is reaped and its group is gone."""
        self.ending: asyncio.Future[str] = self._loop.create_future()
        """Resolved with the reason as soon as it is killed or has exited by itself: the kernel
        takes tenths of a second over a process that holds gigabytes, and nobody waits for that."""
        self._kill_reason = ""
        self._pidfd = os.pidfd_open(popen.pid)
        self._inner = -1
        self._pipes: list[Lines] = []
        self._sampler = self._loop.create_task(self._sample())

    @classmethod
    async def follow(
        cls, launched: Launched, quotas: Quotas, on_line: OnLine, folders: tuple[Path, ...] = ()
    ) -> ChildProcess:
        """Read its output, let it into its sandbox and watch it.

        Args:
            folders: each may hold `folder_bytes`.

        Raises:
            PluginLoadError: it ended before it was in its sandbox.
        """
        try:
            child = cls(launched, quotas, on_line, folders)
        except BaseException:
            launched.undo()
            raise
        try:
            await child._follow()
            await child._admit()
        except BaseException:  # also a cancelled start: nobody else knows the child yet
            await asyncio.shield(child.aclose())
            raise
        return child

    async def _follow(self) -> None:
        """Read the output first, so that its end can be quoted, then wait for the exit."""
        outputs = {"stdout": self._popen.stdout, "stderr": self._popen.stderr}
        try:
            for name, pipe in outputs.items():
                lines = partial(Lines, partial(self._line, name))
                _, protocol = await self._loop.connect_read_pipe(lines, pipe)
                self._pipes.append(protocol)
        except BaseException:
            for reader in self._pipes:
                reader.close()
            for pipe in outputs.values():
                if pipe is not None:
                    pipe.close()
            raise
        finally:
            self._loop.add_reader(self._pidfd, self._on_exit)

    async def _admit(self) -> None:
        if self.sandbox is None:
            return
        try:
            await self.sandbox.admit(self._hold)
        except PluginLoadError as error:
            await asyncio.wait({self.exited}, timeout=SAMPLE_S)
            why = f" ({self.exited.result()})" if self.exited.done() else ""
            raise PluginLoadError(f"{error.message}{why}{self.tail()}") from error
        self.layers = self.sandbox.layers

    def _hold(self, pid: int) -> None:
        """Before it goes on: by this descriptor no other process can be meant."""
        self.pid, self._inner = pid, os.pidfd_open(pid)

    @property
    def shares_network(self) -> bool:
        return self.sandbox is not None and bool(self.sandbox.reach.ports)

    def kill(self, reason: str) -> None:
        """End the whole group now; `reason` is what `exited` will say."""
        if not self.exited.done():
            self._kill_reason = self._kill_reason or reason
            self.signal_group(signal.SIGKILL)
            self._tell_ending(self._kill_reason)

    def exceed(self, exceeded: Exceeded) -> None:
        """It went over a quota that ends it."""
        if not self.exited.done() and self.exceeded is None:
            self.exceeded = exceeded
            self.kill(f"killed: {exceeded}")

    def signal_group(self, number: int) -> None:
        """Until the leader is reaped its group id cannot have been given to anybody else.

        In a sandbox only the plugin itself is told to stop, whatever it started is killed.
        """
        if self._popen.returncode is not None:
            return
        with suppress(ProcessLookupError, PermissionError):
            if self._inner >= 0 and number != signal.SIGKILL:
                signal.pidfd_send_signal(self._inner, number)
            else:
                os.killpg(self._popen.pid, number)

    def tail(self) -> str:
        """What its output and its memory tell of its end, as a part of a message."""
        near = "" if self.exceeded else near_limit(self.peak_memory, self._quotas.memory)
        return near + self.last_words.quote()

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

    def cpu_s(self) -> float:
        """Seconds of processor time so far: of its control group, else of itself and of what it
        started and has ended."""
        group = self.sandbox.group if self.sandbox else None
        used = group.cpu_s() if group else None
        return process_cpu_s(self.pid) if used is None else used

    @contextmanager
    def metered(self) -> Iterator[None]:
        """A call runs; the quota `cpu` ends the child when the call uses more."""
        if not self._quotas.cpu:
            yield
            return
        watch = CpuWatch(self._quotas.cpu, self.cpu_s, self.exceed)
        try:
            yield
        finally:
            watch.stop()

    async def _sample(self) -> None:
        count = 0
        while not self.exited.done():
            self.read_memory()
            limit = self._quotas.memory
            if limit and self.memory > limit:
                self.exceed(Exceeded("memory", limit, self.memory))
            count += 1
            if self._folders and count % DISK_EVERY == 0:
                await self._look_at_disk()
            await asyncio.sleep(SAMPLE_S)

    async def _look_at_disk(self) -> None:
        limit = self._quotas.folder_bytes
        for folder in self._folders:
            used = await asyncio.to_thread(folder_bytes, folder, limit)
            if limit and used > limit:
                self.exceed(Exceeded("folder_bytes", limit, used))

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self.signal_group(signal.SIGKILL)  # whoever it started
        code = self._popen.wait()
        for descriptor in (self._pidfd, self._inner):
            if descriptor >= 0:
                os.close(descriptor)
        self._inner = -1
        if self._popen.stdin is not None:
            self._popen.stdin.close()
        for pipe in self._pipes:
            pipe.drain()
            for text in filter(None, map(_text, pipe.waiting(LOOKED_AT))):
                self.last_words.add(text)
        self._silent = True
        self._judge_memory(code)
        self.memory = 0
        wrapped = self.sandbox is not None and self.sandbox.wrapped
        reason = self._kill_reason or describe_exit(code, wrapped=wrapped)
        self._tell_ending(reason)
        self._last = self._loop.create_task(self._release(reason))

    async def _release(self, reason: str) -> None:
        if self.sandbox is not None:
            await self.sandbox.aclose()
        self.exited.set_result(reason)

    def _tell_ending(self, reason: str) -> None:
        if not self.ending.done():
            self.ending.set_result(reason)

    def _judge_memory(self, code: int) -> None:
        group = self.sandbox.group if self.sandbox else None
        killed = group is not None and group.out_of_memory()
        if group is not None:
            self.peak_memory = max(self.peak_memory, group.peak_memory())
        said = self.last_words.match(_OUT_OF_MEMORY)
        if code != 0 and self.exceeded is None and not self._kill_reason and (killed or said):
            self.exceeded = Exceeded("memory", self._quotas.memory, self.peak_memory)
            if killed:
                self._kill_reason = f"killed: {self.exceeded}"

    def _line(self, stream: str, data: bytes) -> None:
        text = _text(data)
        if text:
            if not self._silent:  # else these are older than those that it was told of
                self.last_words.add(text)
            self._on_line(stream, text)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip()


def describe_exit(code: int, *, wrapped: bool = False) -> str:
    """`exit code 1`, or `killed by SIGKILL` for the negative code of a signal.

    Args:
        wrapped: the code is bubblewrap's, which tells signals as shells do: 128 and the number.
    """
    if wrapped and code > 128:
        code = 128 - code
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}" if not wrapped else f"exit code {128 - code}"
