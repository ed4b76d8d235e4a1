"""One run of the runner: started ahead of its code, bounded in time and output, ended for sure."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RUNNER = Path(__file__).with_name("python_eval_runner.py")
MAX_REPORT = 4_000_000
"""Bytes; a longer one is not of the runner's making."""
DRAIN_S = 0.2
"""For what was printed to be read, where a process that left the group holds the pipe."""
_KEPT = ("PATH", "LANG", "HOME", "TMPDIR")
_QUIET = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
"""A thread pool for matrices costs more memory than a run may have."""


@dataclass(slots=True)
class Outcome:
    """How a run went."""

    report: dict[str, Any] = field(default_factory=dict)
    """`value`, `repr` and `cut`, or `error`: of the runner; empty when it broke off."""
    output: str = ""
    """What was printed, stdout and stderr as they came."""
    cut: bool = False
    """Whether more was printed than is kept."""
    late: bool = False
    exit_code: int = 0


class _Kept(asyncio.Protocol):
    """The first bytes of a pipe; the rest is read and dropped, so that its writer never waits."""

    def __init__(self) -> None:
        self.data, self.limit = bytearray(), 0
        self.ended = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.data += data[: self.limit + 1 - len(self.data)]

    def connection_lost(self, _: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


class Runner:
    """A process that waits for its code. Made by `start`, used once."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._pipes: list[asyncio.BaseTransport] = []
        self._printed, self._told = _Kept(), _Kept()

    @classmethod
    async def start(cls, warm: Sequence[str]) -> Runner:
        """Raises OSError when no process can be had."""
        printed, reports = os.pipe(), os.pipe()
        path = [folder for folder in sys.path if folder]
        words = (str(reports[1]), json.dumps(path), json.dumps(warm))
        environ = {name: os.environ[name] for name in _KEPT if name in os.environ}
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", str(RUNNER), *words, stdin=PIPE, stdout=printed[1],
                stderr=printed[1], env=environ | _QUIET, pass_fds=(reports[1],),
                start_new_session=True,
            )  # fmt: skip
        except BaseException:
            os.close(printed[0])
            os.close(reports[0])
            raise
        finally:
            os.close(printed[1])
            os.close(reports[1])
        runner = cls(process)
        await runner._listen(printed[0], runner._printed)
        await runner._listen(reports[0], runner._told)
        return runner

    async def _listen(self, descriptor: int, kept: _Kept) -> None:
        loop = asyncio.get_running_loop()
        pipe, _ = await loop.connect_read_pipe(lambda: kept, os.fdopen(descriptor, "rb", 0))
        self._pipes.append(pipe)

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def run(self, code: str, *, seconds: float, chars: int, memory: int) -> Outcome:
        """Give it the code and wait for its end; whatever happens, it is over afterwards."""
        outcome = Outcome()
        self._printed.limit, self._told.limit = 4 * chars, MAX_REPORT
        request = json.dumps({"code": code, "chars": chars, "memory": memory})
        try:
            async with asyncio.timeout(seconds):
                await self._feed(request.encode())
                outcome.exit_code = await self._process.wait()
        except TimeoutError:
            outcome.late = True
        finally:
            await self.aclose()
        text = self._printed.data.decode("utf-8", "replace")
        outcome.output, outcome.cut = text[:chars], len(text) > chars
        with suppress(ValueError):
            outcome.report = json.loads(self._told.data or b"{}")
        return outcome

    async def _feed(self, request: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(ConnectionError):
            self._process.stdin.write(request)
            await self._process.stdin.drain()
        self._process.stdin.close()

    async def aclose(self) -> None:
        """End it and what it started; then what they printed is read, if they let go of it."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        await asyncio.wait((self._printed.ended, self._told.ended), timeout=DRAIN_S)
        for pipe in self._pipes:
            pipe.close()
