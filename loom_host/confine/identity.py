"""Who a process is: its user, its privileges, who may look into it, with whom it dies."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal

from .libc import capset, prctl
from .report import Unavailable

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 24, 47, 4
_CAP_VERSION_3, _CAPABILITIES = 0x20080522, 64
"""From linux/prctl.h and linux/capability.h."""

UID_BASE = 0x7000_0000
"""First user id of those given out: systemd's table of ids (UIDS-GIDS.md) leaves 1879048192 to
2147483647 unused. The process id, at most 2**22, is added, so no two processes share one."""


class _CapHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapData(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


def can_have_own_user() -> str:
    """Raises Unavailable."""
    if os.geteuid() != 0:
        raise Unavailable("it runs as the host's user: a user of its own needs a host run by root")
    return ""


def own_user() -> str:
    """A user id that nothing else has, no groups, no capabilities. Needs root."""
    can_have_own_user()
    return become(UID_BASE + os.getpid())


def become(number: int) -> str:
    """The user and group `number`, with no other groups. Needs root."""
    _no_bounding()  # while it may
    os.setgroups([])
    os.setresgid(number, number, number)
    os.setresuid(number, number, number)
    return ""


def no_capabilities() -> str:
    """No set of this process has any, nor gets one when it runs a program."""
    _no_bounding()
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    capset(_CapHeader(_CAP_VERSION_3, 0), (_CapData * 2)())
    return ""


def _no_bounding() -> None:
    with contextlib.suppress(OSError):  # EPERM: without CAP_SETPCAP; EINVAL: it was the last
        for number in range(_CAPABILITIES):
            prctl(_PR_CAPBSET_DROP, number)


def no_new_privileges() -> str:
    """No setuid program or file capability can give any back."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    return ""


def unreadable() -> str:
    """No other process of the same user can trace it or read its memory; no core file."""
    prctl(_PR_SET_DUMPABLE, 0)
    return ""


def die_with_parent(parent: int) -> str:
    """SIGKILL when the thread that started this process ends. After any change of user, which
    clears it.

    Args:
        parent: process id of the parent as it was before the fork.
    """
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)  # it ended before the line above
    return ""
