"""Closes every open file of this process but those named."""

from __future__ import annotations

import os
from collections.abc import Iterable


def keep_only(descriptors: Iterable[int]) -> None:
    """Standard input, output and error become /dev/null unless they are named."""
    kept = set(descriptors)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number in {0, 1, 2} - kept:
        os.dup2(null, number)
    low = 3
    for number in sorted(n for n in kept if n > 2):
        os.closerange(low, number)
        low = number + 1
    os.closerange(low, max(_highest(), low, null) + 1)


def _highest() -> int:
    try:
        return max(int(name) for name in os.listdir("/proc/self/fd"))
    except OSError:
        return os.sysconf("SC_OPEN_MAX")
