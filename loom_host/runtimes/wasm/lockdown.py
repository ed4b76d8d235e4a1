"""What a worker process gives up before it sees a guest: the layers of `loom_host.confine`.

The filter of system calls lists what is allowed: the set that a wasm engine needs is small and
known, and what a later kernel adds stays shut. Anything else fails with EPERM, so that a library
that probes goes on; calls that only an attacker makes kill the process, which shows.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from loom_host.confine import cgroups, descriptors, identity, landlock, rlimits, seccomp
from loom_host.confine.cgroups import Group
from loom_host.confine.report import ENFORCED, Layer, apply

OPEN_FILES = 48
"""Two sockets, the code, the kernel's map, /dev/null, and what wasmtime opens for its timers."""
THREADS = 48
DATA_MARGIN = 96 * 1024**2
"""Writable memory beside the guest's: stacks, compiled code before it is sealed, values."""
GROUP_MARGIN = 64 * 1024**2
"""Resident memory beside the guest's: the interpreter's and wasmtime's own pages."""
COMPILE_MEMORY = 4 * 1024**3
"""For the compiler: an 18 MB component takes half of a GiB."""

_THREAD, _NAMESPACES = 0x00010000, 0x7E020000
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_ALLOWED = """
    read write readv writev pread64 lseek close fstat newfstatat statx
    recvfrom recvmsg sendto sendmsg shutdown getsockopt
    poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd2
    mmap munmap mprotect mremap madvise brk membarrier
    futex set_robust_list rseq set_tid_address
    clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time
    getpid gettid getppid getuid geteuid getgid getegid getrandom getrusage sysinfo uname
    rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall
    sched_yield sched_getaffinity exit exit_group
"""
_KILLED = """
    execve execveat ptrace process_vm_readv process_vm_writev bpf kexec_load init_module
    finit_module delete_module mount umount2 pivot_root setns unshare io_uring_setup userfaultfd
    perf_event_open keyctl add_key request_key open_by_handle_at
"""


_READING_FOLDERS = " getdents64 readlinkat faccessat2 fadvise64 preadv preadv2"
_WRITING_FOLDERS = """
    openat ftruncate fallocate pwrite64 pwritev pwritev2 mkdirat unlinkat renameat renameat2
    utimensat fsync fdatasync
"""
"""No linkat and symlinkat: a link would outlive the guest, for other programs to follow."""


@dataclass(frozen=True, slots=True)
class Files:
    """What a worker may reach of the machine's files."""

    rights: Mapping[int, int]
    """Open file or folder to the Landlock rights below it."""
    owner: tuple[int, int] | None = None
    """User and group of its folders, which it is to be; None without folders."""
    file_size: int = 0
    """Largest file that it may write, in bytes; 0 where it writes none."""


def policy(pid: int, files: Files | None = None) -> seccomp.Policy:
    """The system calls of a worker whose process id is `pid`."""
    allowed = _ALLOWED
    opening = {"openat": seccomp.When(2, (0,), _WRITING)}
    if files is not None and files.owner is not None:
        allowed += _READING_FOLDERS
    if files is not None and files.file_size:
        allowed, opening = allowed + _WRITING_FOLDERS, {}
    return seccomp.Policy(
        default=seccomp.refuse(),
        allow=tuple(allowed.split()),
        allow_when={
            **opening,
            "clone": seccomp.When(0, (_THREAD,), _THREAD | _NAMESPACES),
            "fcntl": seccomp.When(1, (0, 1, 2, 3, 4, 1030)),  # F_DUPFD to F_SETFL, F_DUPFD_CLOEXEC
            "ioctl": seccomp.When(1, (0x5421, 0x5451, 0x541B)),  # FIONBIO, FIOCLEX, FIONREAD
            "prctl": seccomp.When(0, (15, 0x53564D41)),  # PR_SET_NAME, PR_SET_VMA
            "prlimit64": seccomp.When(2, (0,), wide=True),  # reading a limit
            "tgkill": seccomp.When(0, (pid,)),  # abort
        },
        answers=dict.fromkeys(("clone3", "memfd_create", "openat2"), errno.ENOSYS),  # fall back
        kill=tuple(_KILLED.split()),
    )


def group_limits(memory: int) -> dict[str, int]:
    """Limits of a worker's control group.

    Args:
        memory: the guest's quota in bytes.
    """
    return {"memory": memory + GROUP_MARGIN, "processes": THREADS}


def lock_down(
    memory: int, parent: int, kept: Iterable[int], files: Files, group: Group | None
) -> dict[str, str]:
    """Confine this process, which has one thread, for good. Layer to what became of it.

    Args:
        memory: the guest's quota in bytes.
        parent: process id of the parent, with which this process ends.
        kept: descriptors that stay open.
        files: what may be opened.
        group: to join; None where the machine has none.
    """
    os.setsid()
    os.umask(0o077)
    os.chdir("/")
    descriptors.keep_only(kept)
    layers: list[Layer] = []
    if group is not None:
        layers.append(("cgroup", lambda: group.join(os.getpid())))
    layers += [
        ("rlimits", lambda: rlimits.limit(_limits(memory, files))),
        ("own_user", lambda: _be(files.owner)),
        ("no_new_privileges", identity.no_new_privileges),
        ("unreadable", identity.unreadable),
        ("dies_with_parent", lambda: identity.die_with_parent(parent)),
        ("landlock", lambda: landlock.restrict(files.rights)),
        ("seccomp", lambda: _filter(files)),
    ]
    return apply(layers)


def _filter(files: Files) -> str:
    return seccomp.install(seccomp.assemble(policy(os.getpid(), files)))


def _be(owner: tuple[int, int] | None) -> str:
    """Who owns its folders, where it has some, so that it can use them."""
    if owner is None:
        return identity.own_user()
    identity.can_have_own_user()
    user, group = owner
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    identity.no_capabilities()
    return f"it runs as the owner of its folders, user {user}"


def _limits(memory: int, files: Files) -> dict[str, int]:
    limits = {
        "open_files": OPEN_FILES,
        "file_size": files.file_size,
        "core": 0,
        "data": rlimits.data_now() + memory + DATA_MARGIN,
    }
    if (
        os.geteuid() == 0 and files.owner is None
    ):  # it counts a user's, so only for a user of its own
        limits["processes"] = THREADS
    return limits


def foreseen() -> dict[str, str]:
    """What a worker's layers would be on this machine, as far as that is known beforehand; only
    those that would not be enforced."""

    def grouped() -> str:
        group = cgroups.create("check", group_limits(1 << 26))
        group.remove()
        return group.missing

    def assembled() -> str:
        seccomp.assemble(policy(0))
        return ""

    layers: list[Layer] = [
        ("cgroup", grouped),
        ("own_user", identity.can_have_own_user),
        ("landlock", landlock.missing),
        ("seccomp", assembled),
    ]
    return {name: state for name, state in apply(layers).items() if state != ENFORCED}


def essential(layers: Mapping[str, str], files: Files) -> str:
    """Why a guest must not run here, empty when it may: the list of system calls is the border,
    the rest is depth; with folders, Landlock alone tells them from other files.
    """
    needed = ["no_new_privileges", "rlimits", "seccomp"]
    missing = [name for name in needed if layers[name] != ENFORCED]
    if files.owner is not None and layers["landlock"].startswith("unenforced"):
        missing.append("landlock")
    return "; ".join(f"{name} is {layers[name]}" for name in missing)
