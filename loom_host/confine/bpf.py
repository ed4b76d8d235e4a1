"""Installs a filter of system calls that `seccomp` has assembled.

A file of its own: who enters a sandbox needs no more than this. Values from linux/seccomp.h.
"""

from __future__ import annotations

import ctypes

from .libc import prctl

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


def install(program: bytes) -> str:
    """Filter this thread and what it starts from now on. Needs no_new_privileges or root.

    Raises OSError where the kernel has no seccomp.
    """
    kept = ctypes.create_string_buffer(program, len(program))
    header = _Program(len(program) // 8, ctypes.addressof(kept))
    prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(header))
    return ""
