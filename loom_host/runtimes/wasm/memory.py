"""How much linear memory each store really has, read from the kernel's map of this process.

wasmtime's C API does not tell a component's memory size. A linear memory is laid out as a guard,
then the accessible part, then the rest of a 4 GiB reservation, so the accessible part is what lies
before a huge inaccessible mapping. Elsewhere than on Linux every answer is empty.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_HUGE = 1 << 31
_WAIT_S = 0.2
_MAPS = "/proc/self/maps"
_lock = threading.Lock()
_kept: list[int] = []


def keep_open() -> int:
    """Open the kernel's map for good, for a process that may open nothing later on."""
    _kept[:] = [os.open(_MAPS, os.O_RDONLY | os.O_CLOEXEC)]
    return _kept[0]


def _read_maps() -> bytes:
    if not _kept:
        with open(_MAPS, "rb") as maps:
            return maps.read()
    parts, at = [], 0
    while part := os.pread(_kept[0], 1 << 16, at):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def linear_memories() -> dict[int, int]:
    """Start address of every linear memory in this process and its accessible bytes."""
    try:
        lines = _read_maps().splitlines()
    except OSError:
        return {}
    found: dict[int, int] = {}
    start = end = 0
    for line in lines:
        span, access = line.split(None, 2)[:2]
        low, _, high = span.partition(b"-")
        begins, ends = int(low, 16), int(high, 16)
        if access.startswith(b"rw"):
            start = start if begins == end else begins
            end = ends
            continue
        if access.startswith(b"---") and ends - begins >= _HUGE and begins == end:
            found[start] = end - start
        start = end = 0
    return found


def watching(create: Callable[[], T]) -> tuple[T, frozenset[int]]:
    """Run `create` and tell which linear memories it made.

    One at a time in this process; where another one is stuck, nothing is told.
    """
    if not _lock.acquire(timeout=_WAIT_S):
        return create(), frozenset()
    try:
        before = linear_memories()
        made = create()
        return made, frozenset(linear_memories().keys() - before.keys())
    finally:
        _lock.release()


def total(addresses: frozenset[int]) -> int:
    """Bytes that these linear memories have now."""
    return sum(_sizes(addresses))


def largest(addresses: frozenset[int], besides: int) -> int:
    """Bytes of the largest of these linear memories, not counting one of `besides` bytes."""
    sizes = _sizes(addresses)
    if besides in sizes:
        sizes.remove(besides)
    return max(sizes, default=0)


def _sizes(addresses: frozenset[int]) -> list[int]:
    if not addresses:
        return []
    sizes = linear_memories()
    return [sizes.get(address, 0) for address in addresses]
