"""System calls of a child: any language's runtime must live, so what is dangerous is listed.

What only an attacker calls kills, which shows; what libraries try now and then fails. Calls that
are newer than the tables do not exist.
"""

from __future__ import annotations

import errno

from loom_host.confine.seccomp import ALLOW, Policy, When

_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET of linux/sched.h."""
UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
_KILLED = """
    acct bpf chroot delete_module fanotify_init finit_module fsconfig fsmount fsopen fspick
    init_module ioperm iopl kexec_file_load kexec_load mount mount_setattr move_mount nfsservctl
    open_by_handle_at open_tree pivot_root quotactl quotactl_fd reboot setns swapoff swapon umount2
    unshare
"""
_REFUSED = """
    add_key adjtimex clock_adjtime clock_settime kcmp keyctl lookup_dcookie name_to_handle_at
    perf_event_open pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace
    request_key sethostname setdomainname settimeofday syslog userfaultfd vhangup
"""
_ABSENT = "clone3 io_uring_setup io_uring_enter io_uring_register"
"""Libraries have a fallback; the flags of clone3 cannot be looked at."""


def policy(inet: bool) -> Policy:
    """For a child; `inet`: it was granted sockets of the internet."""
    families = (UNIX, INET, INET6, NETLINK) if inet else (UNIX,)
    return Policy(
        default=ALLOW,
        allow_when={
            "clone": When(0, (0,), _NAMESPACES),
            "socket": When(0, families),
            "socketpair": When(0, (UNIX,)),
        },
        answers=dict.fromkeys(_REFUSED.split(), errno.EPERM)
        | dict.fromkeys(_ABSENT.split(), errno.ENOSYS),
        kill=tuple(_KILLED.split()),
        known_only=True,
    )
