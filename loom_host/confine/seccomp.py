"""System call filters: a policy in names, assembled to BPF here, without libseccomp.

Structures and values from linux/seccomp.h, linux/filter.h and linux/bpf_common.h.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from .bpf import install
from .report import Unavailable
from .syscalls import AUDIT_ARCH, MACHINE, NEWEST, numbers

__all__ = ["ALLOW", "KILL", "Policy", "When", "assemble", "install", "refuse"]

ALLOW, KILL = 0x7FFF0000, 0x80000000
"""SECCOMP_RET_ALLOW and SECCOMP_RET_KILL_PROCESS."""
_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16
_X32_BIT = 0x40000000


def refuse(code: int = errno.EPERM) -> int:
    """The action that fails a call with an errno."""
    return 0x00050000 | code


@dataclass(frozen=True, slots=True)
class When:
    """Holds when `argument & mask` is one of `values`; only the low 32 bits are looked at unless
    `wide`, which compares both halves with the (small) values."""

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """Actions by name of the system call. Names that a machine does not have are left out."""

    default: int
    allow: tuple[str, ...] = ()
    allow_when: Mapping[str, When] = field(default_factory=dict)
    """Any other arguments are refused with EPERM."""
    answers: Mapping[str, int] = field(default_factory=dict)
    """Name to errno."""
    kill: tuple[str, ...] = ()
    known_only: bool = False
    """Answer ENOSYS to what is newer than this file's tables, for a default that allows."""


def assemble(policy: Policy, machine: str = MACHINE) -> bytes:
    """The BPF program, 8 bytes an instruction.

    Raises:
        Unavailable: the machine's system calls are not known.
    """
    known = numbers(machine)
    if not known:
        raise Unavailable(f"no table of system calls for {machine}: x86_64 and aarch64 have one")
    code = [_jump(_LOAD, _ARCH_AT), _jump(_EQUAL, AUDIT_ARCH[machine], 1, 0), _end(KILL)]
    code.append(_jump(_LOAD, _NUMBER_AT))
    if machine == "x86_64":
        code += [_jump(_AT_LEAST, _X32_BIT, 0, 1), _end(KILL)]
    if policy.known_only:
        code += [_jump(_AT_LEAST, NEWEST + 1, 0, 1), _end(refuse(errno.ENOSYS))]
    actions = dict.fromkeys(policy.allow, ALLOW)
    actions |= {name: refuse(number) for name, number in policy.answers.items()}
    actions |= dict.fromkeys(policy.kill, KILL)
    for name, action in actions.items():
        if name in known:
            code += [_jump(_EQUAL, known[name], 0, 1), _end(action)]
    for name, when in policy.allow_when.items():
        if name in known:
            body = _condition(when)
            code += [_jump(_EQUAL, known[name], 0, len(body)), *body]
    return b"".join([*code, _end(policy.default)])


def _condition(when: When) -> list[bytes]:
    """Ends the program: ALLOW where the argument fits, EPERM where not."""
    low = _ARGUMENTS_AT + 8 * when.argument  # little-endian, as both machines are
    code = []
    if when.wide:
        code += [_jump(_LOAD, low + 4), _jump(_EQUAL, 0, 1, 0), _end(refuse())]
    code += [_jump(_LOAD, low), _jump(_AND, when.mask)]
    for value in when.values:
        code += [_jump(_EQUAL, value, 0, 1), _end(ALLOW)]
    return [*code, _end(refuse())]


def _jump(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("<HBBI", code, yes, no, value)


def _end(action: int) -> bytes:
    return _jump(_RETURN, action)
