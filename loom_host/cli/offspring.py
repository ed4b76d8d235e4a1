"""Ending what a closed host may leave at work: compilers that threads of this process wait for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

PAUSE_S, PATIENCE_S = 0.05, 5.0
"""A build may start its next compiler when one ends; after the patience it is left to itself."""


async def end_children() -> None:
    """End every process below this one, so that whoever waits for a compiler comes back at once.

    For the end of a command only: it spares nobody's children.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_S
    while (found := list(_below(os.getpid()))) and loop.time() < deadline:
        for process in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        await asyncio.sleep(PAUSE_S)


def _below(process: int) -> Iterator[int]:
    """Ids of those that live; proc_pid_task_children(5) names each thread's."""
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = file.read_text().split()
        except OSError:  # the thread has ended
            continue
        for child in map(int, children):
            yield from _below(child)
            if _lives(child):
                yield child


def _lives(process: int) -> bool:
    """Not so where it has ended and only waits to be asked how: state Z of proc_pid_stat(5)."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
