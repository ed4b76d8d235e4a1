"""The preloaded parent of the worker processes: imports wasmtime once, then forks on request.

It has one thread, never runs a guest, and imports nothing of the host beside the engine. Requests
come as datagrams with descriptors; it answers with the child's pid and a pidfd, and tells when a
child has ended. It owns the children's control groups. When the host is gone it kills them all and
ends.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
from typing import Any

from loom_host.confine import cgroups, landlock
from loom_host.confine.report import Unavailable

from . import lockdown, memory, session
from .engine import Engine
from .preopens import MAX_FOLDERS

_DATAGRAM = 1 << 16
_DESCRIPTORS = 3 + MAX_FOLDERS


class Zygote:
    """Serves one host over a SOCK_SEQPACKET socket."""

    def __init__(self, host: socket.socket) -> None:
        self._host = host
        self._children: dict[int, tuple[int, cgroups.Group | None]] = {}
        self._engines: dict[bool, Engine] = {}
        self._engine(metered=False)
        self._wakes, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        cgroups.sweep()
        gc.collect()
        gc.freeze()  # what is shared now stays shared

    def _engine(self, metered: bool) -> Engine:
        """Made before the fork, so that all share it."""
        if metered not in self._engines:
            # A thread here would not survive a fork.
            engine = self._engines[metered] = Engine(parallel=False, metered=metered)
            engine.prepare()
        return self._engines[metered]

    def run(self) -> None:
        poll = select.poll()
        poll.register(self._host, select.POLLIN)
        poll.register(self._wakes, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if self._wakes in ready:
                os.read(self._wakes, 4096)
                self._reap(os.WNOHANG)
            if self._host.fileno() in ready and not self._request():
                break
        for pid in list(self._children):
            os.kill(pid, signal.SIGKILL)
        self._reap(0)

    def _request(self) -> bool:
        try:
            text, received, _, _ = socket.recv_fds(self._host, _DATAGRAM, _DESCRIPTORS)
        except ConnectionError:
            return False
        if not text:
            return False
        request = json.loads(text)
        try:
            self._fork(request, received)
        except OSError as error:
            self._say({"number": request["number"], "error": f"cannot fork: {error.strerror}"})
        finally:
            for descriptor in received:
                os.close(descriptor)
        return True

    def _fork(self, request: dict[str, Any], received: list[int]) -> None:
        engine = self._engine(request["metered"])
        group, refused = self._group(request)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                _child(request, received, parent, group, refused, engine)
            finally:
                os._exit(70)
        self._children[pid] = request["number"], group
        pidfd = os.pidfd_open(pid)
        try:
            self._say({"number": request["number"], "pid": pid}, pidfd)
        finally:
            os.close(pidfd)

    def _group(self, request: dict[str, Any]) -> tuple[cgroups.Group | None, str]:
        try:
            limits = lockdown.group_limits(request["memory"])
            return cgroups.create(str(request["number"]), limits), ""
        except (Unavailable, OSError) as error:
            return None, str(error)

    def _reap(self, flags: int) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, flags)
                if pid == 0:
                    return
                number, group = self._children.pop(pid)
                starved = group is not None and group.out_of_memory()
                if group is not None:
                    group.remove()
                code = os.waitstatus_to_exitcode(status)
                self._say({"number": number, "exit": code, "out_of_memory": starved})

    def _say(self, message: dict[str, Any], *descriptors: int) -> None:
        with contextlib.suppress(ConnectionError):
            socket.send_fds(self._host, [json.dumps(message).encode()], list(descriptors))


def _child(
    request: dict[str, Any],
    received: list[int],
    parent: int,
    group: cgroups.Group | None,
    refused: str,
    engine: Engine,
) -> None:
    """In the fork, to its end."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    session.quiet_signals()
    data, control, file, *folders = received
    sockets = socket.socket(fileno=data), socket.socket(fileno=control)
    try:
        kept = [*received, memory.keep_open()]
        layers = {} if group is not None else {"cgroup": f"unenforced: {refused}"}
        files = _files(request, file, folders)
        layers |= lockdown.lock_down(request["memory"], parent, kept, files, group)
        if why := lockdown.essential(layers, files):
            session.refuse(sockets[0], f"a worker process cannot be confined here: {why}")
        elif request["mode"] == "compile":
            session.compile_and_send(sockets[0], file, request["metered"])
        else:
            work = session.Session(*sockets, request["frame_limit"], layers, folders)
            work.serve(engine, file)
        os._exit(0)
    except Exception as error:
        session.refuse(sockets[0], f"its worker process failed: {type(error).__name__}: {error}")


def _files(request: dict[str, Any], code: int, folders: list[int]) -> lockdown.Files:
    """What a child may reach: `writable` tells of each folder whether it may write."""
    rights = {code: landlock.READ_FILE}
    for descriptor, writable in zip(folders, request["writable"], strict=True):
        rights[descriptor] = landlock.READ | (landlock.CHANGE if writable else 0)
    owner = request["owner"]
    return lockdown.Files(rights, owner and (owner[0], owner[1]), request["file_size"])


def main(descriptor: int) -> None:
    """Run until the host's end of the socket closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKIO_WORKER_THREADS"] = "1"  # wasmtime's WASI needs a timer, not a pool
    Zygote(socket.socket(fileno=descriptor)).run()
