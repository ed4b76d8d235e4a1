"""This process as a child of the host: it ends with the host and knows its own memory."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


def resident_bytes() -> int:
    """Resident memory of this process."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, MemoryError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def exit_now(error: SystemExit) -> NoReturn:
    """What `sys.exit` in a plugin means: this process ends, also from a worker thread."""
    code = error.code if isinstance(error.code, int) else int(error.code is not None)
    sys.stdout.flush()
    os._exit(code)


def end_with_host(stop: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """SIGTERM runs `stop`; the host's death, seen in two ways, kills the whole process group.

    The host holds the other end of stdin, so its end means that the host is gone. Where a
    blocked interpreter cannot see that, the kernel sends SIGTERM (PDEATHSIG).
    """
    parent = os.getppid()
    tasks = set[asyncio.Task[Any]]()

    def terminate() -> None:
        if os.getppid() != parent:
            _kill_group()
        tasks.add(asyncio.create_task(stop()))

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
    pipe = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    threading.Thread(target=_watch_host, args=(pipe,), daemon=True).start()


def _watch_host(pipe: int) -> None:
    import ctypes

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    while os.read(pipe, 64):
        pass
    _kill_group()


def _kill_group() -> None:
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
