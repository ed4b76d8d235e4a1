"""Processes that lock themselves down as a wasm worker does, then try what a hostile one would.

    locked.py GRANTED OTHER    two files; prints attempt -> [what it said, exit code] as JSON

One process an attempt, since some of them are deadly.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable

from loom_host.confine import landlock
from loom_host.runtimes.wasm import lockdown

QUOTA = 64 * 1024**2
_libc = ctypes.CDLL(None, use_errno=True)


def raw(number: int, *arguments: int) -> str:
    """A system call past Python's own checks: `ok` or the name of the errno."""
    _libc.syscall.restype = ctypes.c_long
    result = _libc.syscall(number, *(ctypes.c_long(a) for a in arguments))
    return "ok" if result >= 0 else errno.errorcode[ctypes.get_errno()]


def attempt(work: Callable[[], object]) -> str:
    try:
        work()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")
    except (MemoryError, RuntimeError) as error:
        return type(error).__name__
    return "ok"


def thread() -> None:
    done = threading.Event()
    threading.Thread(target=done.set).start()
    assert done.wait(5)


def threads() -> None:
    hold = threading.Event()
    threading.stack_size(64 * 1024)
    try:
        for _ in range(200):
            threading.Thread(target=hold.wait, args=(20,), daemon=True).start()
    finally:
        hold.set()


def attempts(granted: int, other: str) -> dict[str, Callable[[], str]]:
    victim = os.getppid()
    return {
        "read_granted": lambda: attempt(lambda: os.open(f"/proc/self/fd/{granted}", os.O_RDONLY)),
        "write_granted": lambda: attempt(lambda: os.open(f"/proc/self/fd/{granted}", os.O_WRONLY)),
        "read_other": lambda: attempt(lambda: os.open(other, os.O_RDONLY)),
        "read_passwd": lambda: attempt(lambda: os.open("/etc/passwd", os.O_RDONLY)),
        "read_environ": lambda: attempt(lambda: os.open(f"/proc/{victim}/environ", os.O_RDONLY)),
        "list_root": lambda: attempt(lambda: os.listdir("/")),
        "create": lambda: attempt(lambda: os.open("/tmp/made", os.O_CREAT | os.O_WRONLY)),
        "unlink": lambda: attempt(lambda: os.unlink(other)),
        "mkdir": lambda: attempt(lambda: os.mkdir("/tmp/made-folder")),
        "chmod": lambda: attempt(lambda: os.chmod(other, 0o777)),
        "socket_inet": lambda: attempt(socket.socket),
        "socket_unix": lambda: attempt(lambda: socket.socket(socket.AF_UNIX)),
        "socketpair": lambda: attempt(socket.socketpair),
        "kill_parent": lambda: attempt(lambda: os.kill(victim, signal.SIGTERM)),
        "kill_init": lambda: attempt(lambda: os.kill(1, 0)),
        "fork": lambda: attempt(os.fork),
        "setuid": lambda: attempt(lambda: os.setuid(0)),
        "raise_limit": lambda: raw(302 if os.uname().machine == "x86_64" else 261, 0, 7, 1, 0),
        "memfd": lambda: attempt(lambda: os.memfd_create("x")),
        "pipe": lambda: attempt(os.pipe),
        "data": lambda: attempt(lambda: mmap.mmap(-1, 10 * QUOTA, flags=mmap.MAP_PRIVATE)),
        "thread": lambda: attempt(thread),
        "threads": lambda: attempt(threads),
        "exec": lambda: attempt(lambda: os.execv("/bin/true", ["true"])),
        "ptrace": lambda: raw(101 if os.uname().machine == "x86_64" else 117, 16, victim, 0, 0),
        "unshare": lambda: raw(272 if os.uname().machine == "x86_64" else 97, 0x10000000),
        "x32": lambda: raw(0x40000000 + 39),
        "abort": lambda: os.abort(),
    }


def child(name: str, result: int, path: str, other: str, parent: int) -> None:
    if name == "layers_without_root" and os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(54321, 54321, 54321)
        os.setresuid(54321, 54321, 54321)
    granted = os.open(path, os.O_RDONLY)
    rights = {granted: landlock.READ_FILE}
    files = lockdown.Files(rights)
    layers = lockdown.lock_down(QUOTA, parent, [result, granted], files, None)
    answer = json.dumps(layers) if name.startswith("layers") else attempts(granted, other)[name]()
    os.write(result, answer.encode())
    os._exit(0)


def outcome(name: str, path: str, other: str) -> tuple[str, int]:
    """What a locked-down fork said, and its exit code."""
    parent = os.getpid()
    said, result = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            child(name, result, path, other, parent)
        finally:
            os._exit(1)
    os.close(result)
    with os.fdopen(said) as reader:
        text = reader.read()
    return text, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    path, other = sys.argv[1:]
    names = ("layers", "layers_without_root", *attempts(0, ""))
    print(json.dumps({name: outcome(name, path, other) for name in names}))


main()
