"""Starts a child's program: found, confined as its profile says, and run from a thread that lasts.

The kernel ends a child with the *thread* that started it (PR_SET_PDEATHSIG), so `Launcher` keeps
one thread for as long as the runtime lives.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from loom_host.runtimes.base import PluginSpec
from loom_sdk.errors import PluginLoadError

from .diagnosis import why_not_run
from .sandbox import DATA_FLOOR, Sandbox, places_of, profile_of
from .users import Users
from .view import Places


@dataclass(slots=True)
class Launched:
    """A program that runs; with a sandbox it waits at its door."""

    popen: subprocess.Popen[bytes]
    sandbox: Sandbox | None

    def undo(self) -> None:
        """End it before anybody else knows it."""
        self.popen.kill()
        self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if pipe is not None:
                pipe.close()
        if self.sandbox is not None:
            self.sandbox.release()


class Launcher:
    """One thread that starts the children of a runtime."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "loom-spawn")
        self._users = Users()

    async def launch(
        self,
        spec: PluginSpec,
        command: Sequence[str],
        env: Mapping[str, str],
        private: Path,
        host_socket: Path,
    ) -> Launched:
        """Start `command` in the plugin's folder, with nothing of the host's environment but `env`.

        Raises:
            PluginLoadError: the kernel refuses to run it, or a grant cannot be read.
        """
        places = partial(places_of, spec, command[0], private, host_socket)
        future = self._thread.submit(_launch, spec, command, env, places, self._users)
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        except asyncio.CancelledError:
            future.add_done_callback(_undo)
            raise

    def close(self) -> None:
        """After the children: they end with the thread."""
        self._thread.shutdown(wait=False)


def _undo(future: Future[Launched]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().undo()


def _launch(
    spec: PluginSpec,
    command: Sequence[str],
    env: Mapping[str, str],
    places: Callable[[], Places],
    users: Users,
) -> Launched:
    own = places()
    if profile_of(spec) == "none":
        popen = _popen(command, env, spec.folder)
        with suppress(ProcessLookupError):
            _limit(popen.pid, spec)
        return Launched(popen, None)
    try:
        sandbox = Sandbox(spec, command, env, own, users)
    except OSError as error:
        raise PluginLoadError(f"its sandbox cannot be made: {error}") from error
    try:
        popen = _popen(sandbox.command, sandbox.env, spec.folder, sandbox.descriptors)
    except BaseException:
        sandbox.release()
        raise
    sandbox.spawned(popen.pid)
    return Launched(popen, sandbox)


def resolve_command(folder: Path, command: Sequence[str]) -> list[str]:
    """The command with its program as a path: in the plugin's folder, absolute, or on PATH.

    Raises:
        PluginLoadError: the program is missing or not executable, or its interpreter is missing.
    """
    name = command[0]
    local = folder / name
    found = str(local) if local.is_file() else shutil.which(name)
    if found is None:
        fix = "install it or correct `entry`"
        if name.startswith("build/"):
            fix = f"run `loom plugin build {folder}` or correct `entry`"
        raise PluginLoadError(f"command {name!r} is neither in {folder} nor on PATH: {fix}")
    if not os.access(found, os.X_OK):
        raise PluginLoadError(f"{found} is not executable: run `chmod +x {found}`")
    return [found, *command[1:]]


def _popen(
    command: Sequence[str], env: Mapping[str, str], folder: Path, descriptors: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
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
            pass_fds=descriptors,
        )
    except OSError as error:
        why = why_not_run(command[0], error)
        raise PluginLoadError(f"{command[0]} cannot run: {why}") from error


def _limit(pid: int, spec: PluginSpec) -> None:
    """Without a sandbox: from outside, right after the start."""
    quotas = spec.quotas
    wanted = {resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: quotas.open_files}
    if quotas.memory:
        wanted[resource.RLIMIT_DATA] = quotas.memory + DATA_FLOOR
    if quotas.file_size:
        wanted[resource.RLIMIT_FSIZE] = quotas.file_size
    for kind, value in wanted.items():
        _, hard = resource.prlimit(pid, kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.prlimit(pid, kind, (value, value))
