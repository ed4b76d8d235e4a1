"""Ways out of a sandbox, tried one at a time by a program that a plugin starts.

    python attacks.py JSON NAME...    JSON: what the test knows: pids, ports, paths of the host

Each is tried by a process of its own. Prints JSON: name to `ok` and a detail where it got through,
else to the name of the errno, or of the signal that ended it.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
known: dict[str, Any] = {}
PR_CAPBSET_READ = 23


def call(name: str, *arguments: Any) -> str:
    """A system call by its number on x86_64."""
    sent = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    if libc.syscall(ctypes.c_long(NUMBERS[name]), *sent) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return "ok"


NUMBERS = {
    "mount": 165, "umount2": 166, "pivot_root": 155, "unshare": 272, "setns": 308, "ptrace": 101,
    "bpf": 321, "keyctl": 250, "userfaultfd": 323, "io_uring_setup": 425, "perf_event_open": 298,
    "chroot": 161, "reboot": 169, "open_by_handle_at": 304, "init_module": 175, "swapon": 167,
    "process_vm_readv": 310, "sethostname": 170, "settimeofday": 164, "clone3": 435, "kcmp": 312,
    "fsopen": 430, "mseal_and_later": 470,
}  # fmt: skip


def read(path: str) -> Callable[[], str]:
    def attempt() -> str:
        with open(path, "rb") as file:
            return f"ok {len(file.read(64))}"

    return attempt


def write(path: str) -> Callable[[], str]:
    def attempt() -> str:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(descriptor, b"x")
        return "ok"

    return attempt


def families() -> str:
    """The families of which any kind of socket can be had."""
    found = []
    for family in range(1, 46):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
            try:
                socket.socket(family, kind).close()
            except OSError:
                continue
            found.append(family)
            break
    return f"ok {found}"


def connect_tcp() -> str:
    socket.create_connection(("127.0.0.1", known["port"]), 2).close()
    return "ok"


def connect_unix() -> str:
    socket.socket(socket.AF_UNIX).connect(known["other_socket"])
    return "ok"


def connect_abstract() -> str:
    socket.socket(socket.AF_UNIX).connect("\0" + known["abstract"])
    return "ok"


def processes() -> str:
    """How many processes it sees, and whether any of their environments holds the secret."""
    pids = [name for name in os.listdir("/proc") if name.isdigit()]
    for pid in pids:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if known["secret"].encode() in file.read():
                    return "ok secret"
        except OSError:
            continue
    return f"none of {len(pids)}"


def fill(folder: str) -> str:
    """Bytes until there is no room; what was written stays no longer than the program."""
    block, total = bytes(1 << 20), 0
    path = f"{folder}/filler"
    try:
        for number in range(1024):
            with open(f"{path}{number % 4}", "ab", 0) as file:
                total += file.write(block)
    except OSError as error:
        return f"{errno.errorcode[error.errno or 0]} {total}"
    finally:
        for number in range(4):
            if os.path.exists(f"{path}{number}"):
                os.unlink(f"{path}{number}")
    return f"ok {total}"


def fork_bomb() -> str:
    children: list[int] = []
    gate = os.pipe()
    try:
        while len(children) < 4096:
            pid = os.fork()
            if pid == 0:
                os.close(gate[1])
                os.read(gate[0], 1)
                os._exit(0)
            children.append(pid)
    except OSError as error:
        return f"{errno.errorcode[error.errno or 0]} {len(children)}"
    finally:
        os.close(gate[1])
    return f"ok {len(children)}"


def open_files() -> str:
    held: list[int] = []
    try:
        while len(held) < 100_000:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        return f"{errno.errorcode[error.errno or 0]} {len(held)}"
    return f"ok {len(held)}"


def big_file() -> str:
    with open(f"{known['data']}/big", "wb") as file:
        file.truncate(1 << 40)
    return "ok"


def run_what_it_wrote() -> str:
    path = f"{known['data']}/tool"
    with open(path, "w") as file:
        file.write("#!/bin/sh\n")
    os.chmod(path, 0o755)
    os.execv(path, [path])
    return "ok"


def raise_limit() -> str:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard + 1, hard + 1))
    return "ok"


def capabilities() -> str:
    with open("/proc/self/status") as file:
        held = {line.split()[0]: line.split()[1] for line in file if line.startswith("Cap")}
    return "none" if set(held.values()) == {"0" * 16} else f"ok {held}"


def privileges() -> str:
    with open("/proc/self/status") as file:
        flags = dict(line.split(":\t") for line in file.read().splitlines() if ":\t" in line)
    return f"{flags['NoNewPrivs']} {flags['Seccomp']}"


def new_user_namespace() -> str:
    return call("unshare", 0x10000000)


def kill(pid: int) -> str:
    os.kill(pid, signal.SIGKILL)
    return "ok"


def become_root() -> str:
    os.setuid(0)
    return "ok"


def device() -> str:
    os.mknod(f"{known['data']}/disk", 0o600 | 0o060000, os.makedev(254, 0))
    return "ok"


ATTACKS: dict[str, Callable[[], str]] = {
    "read_shadow": read("/etc/shadow"),
    "read_passwd_of_host": lambda: read("/etc/hostname")(),
    "read_home": read("/root/.bashrc"),
    "read_file_of_test": lambda: read(known["file"])(),
    "list_runtime_folder": lambda: f"sees {sorted(os.listdir(known['runtime']))}",
    "read_kernel_memory": read("/proc/kcore"),
    "read_host_memory": lambda: read(f"/proc/{known['host']}/mem")(),
    "environments": processes,
    "write_code": lambda: write(f"{known['code']}/planted.py")(),
    "write_usr": write("/usr/planted"),
    "write_root": write("/planted"),
    "write_dev": write("/dev/planted"),
    "write_core_pattern": write("/proc/sys/kernel/core_pattern"),
    "write_sysrq": write("/proc/sysrq-trigger"),
    "read_disk": read("/dev/vda"),
    "make_device": device,
    "kill_host": lambda: kill(known["host"]),
    "kill_init": lambda: kill(1),
    "families": families,
    "connect_tcp": connect_tcp,
    "connect_unix": connect_unix,
    "connect_abstract": connect_abstract,
    "become_root": become_root,
    "capabilities": capabilities,
    "privileges": privileges,
    "identity": lambda: f"{os.getuid()} {os.getgid()} {os.getgroups()}",
    "user_namespace": new_user_namespace,
    "fill_tmp": lambda: fill("/tmp"),
    "fill_shm": lambda: fill("/dev/shm"),
    "fork_bomb": fork_bomb,
    "open_files": open_files,
    "big_file": big_file,
    "run_what_it_wrote": run_what_it_wrote,
    "raise_limit": raise_limit,
}
ATTACKS |= {f"syscall_{name}": lambda name=name: call(name, 0, 0, 0, 0, 0) for name in NUMBERS}  # type: ignore[misc]


def attempt(name: str) -> str:
    try:
        return ATTACKS[name]()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except ValueError as error:
        return f"ValueError {error}"


def apart(name: str) -> str:
    """`attempt` in a fork."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        os.write(writing, attempt(name).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return (
        said if code == 0 else f"{signal.Signals(-code).name if code < 0 else code} {said}".strip()
    )


if __name__ == "__main__":
    known.update(json.loads(sys.argv[1]))
    print(json.dumps({name: apart(name) for name in sys.argv[2:]}), flush=True)
