"""Landlock: files by path, TCP by port, signals and abstract sockets by scope.

Constants from linux/landlock.h; system call numbers are the same on every architecture.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Mapping

from .libc import syscall
from .report import Unavailable

_CREATE, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH, _NET_PORT = 1, 1, 2
_CONNECT_TCP = 2
_FS_BY_ABI = {1: 13, 2: 14, 3: 15, 5: 16}
"""How many access rights to files each ABI knows; they are bits from 0 up."""
_NET, _SCOPES = 0b11, 0b11

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1, 2, 4, 8, 1 << 14
READ = READ_FILE | READ_DIR
CHANGE = 0x77B2
"""Write, make and remove anything but devices."""
DEVICE = READ_FILE | WRITE_FILE | 1 << 15
"""Use a device, with its ioctl."""
FILE_ONLY = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | 1 << 15
"""Rights that a rule for a single file may name."""


class _Rules(ctypes.Structure):
    _fields_ = [("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("descriptor", ctypes.c_int32)]


class _Port(ctypes.Structure):
    _fields_ = [("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64)]


def abi() -> int:
    """The kernel's version of Landlock, 0 without."""
    try:
        return syscall(_CREATE, ctypes.c_void_p(None), 0, _VERSION_FLAG)
    except OSError:
        return 0


def missing() -> str:
    """What this kernel's version cannot deny, empty when it is all there. Raises Unavailable."""
    version = abi()
    if version < 1:
        raise Unavailable("the kernel has no Landlock: use Linux 5.13 or later with it enabled")
    return "" if version >= 3 else f"Landlock ABI {version} lets truncate files that are readable"


def restrict(allowed: Mapping[int, int], ports: Iterable[int] | None = ()) -> str:
    """Deny every file to this process and its children, but for `allowed`. Needs
    no_new_privileges or root.

    Args:
        allowed: open file or folder to the rights below it. What is open already stays usable.
        ports: TCP ports that it may connect to; None for every port, to listen on as well.

    Returns:
        What this kernel's version cannot deny.
    """
    weak, version = missing(), abi()
    rights = (1 << _FS_BY_ABI[max(known for known in _FS_BY_ABI if known <= version)]) - 1
    net = _NET if version >= 4 and ports is not None else 0
    rules = _Rules(rights, net, _SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    handle = syscall(_CREATE, ctypes.byref(rules), size, 0)
    try:
        for descriptor, access in allowed.items():
            beneath = _Beneath(access & rights, descriptor)
            syscall(_ADD_RULE, handle, _PATH_BENEATH, ctypes.byref(beneath), 0)
        for port in ports if ports and rules.net else ():
            syscall(_ADD_RULE, handle, _NET_PORT, ctypes.byref(_Port(_CONNECT_TCP, port)), 0)
        syscall(_RESTRICT_SELF, handle, 0)
    finally:
        os.close(handle)
    return weak
