"""What a child has used of its processor time and disk."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CHECK_LEAST_S, CHECK_MOST_S = 0.01, 0.1
_TICKS = os.sysconf("SC_CLK_TCK")
_WORDS = {
    "memory": ("bytes of memory", "give the plugin less to do"),
    "cpu": ("seconds of processor time in one call", "give the call less to do"),
    "folder_bytes": ("bytes of disk in one of its folders", "let the plugin keep less"),
}


@dataclass(frozen=True, slots=True)
class Exceeded:
    """A quota that a child was ended for."""

    quota: str
    limit: float
    used: float

    def __str__(self) -> str:
        return f"it used {self.used} {_WORDS[self.quota][0]}, the quota is {self.limit}"

    @property
    def advice(self) -> str:
        return _WORDS[self.quota][1]


class CpuWatch:
    """One call's processor time: all that the child uses while the call runs.

    Args:
        limit: seconds.
        used: processor time of the child so far, in seconds.
        exceed: told once, when the call is over the limit.
    """

    def __init__(
        self, limit: float, used: Callable[[], float], exceed: Callable[[Exceeded], None]
    ) -> None:
        self._limit, self._used, self._exceed = limit, used, exceed
        self._start = used()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(CHECK_LEAST_S, self._check)

    def _check(self) -> None:
        used = self._used() - self._start
        if used > self._limit:
            self._exceed(Exceeded("cpu", self._limit, round(used, 3)))
            return
        wait = min(max((self._limit - used) / 2, CHECK_LEAST_S), CHECK_MOST_S)
        self._timer = self._loop.call_later(wait, self._check)

    def stop(self) -> None:
        self._timer.cancel()


def process_cpu_s(pid: int) -> float:
    """Of a process and of its children that have ended, in steps of 10 ms; 0 when it is gone.

    Fields 14 to 17 of proc_pid_stat(5).
    """
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return sum(map(int, fields[11:15])) / _TICKS
    return 0.0


def folder_bytes(folder: Path, enough: int) -> int:
    """Disk that what is in a folder takes, in bytes; it stops counting above `enough`.

    Even an empty file counts 1 KiB, for its name and inode.
    """
    total = 0
    waiting = [str(folder)]
    while waiting and total <= enough:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    total += max(entry.stat(follow_symlinks=False).st_blocks * 512, 1024)
                if total > enough:
                    break
    return total
