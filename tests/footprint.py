"""What a host holds while nothing runs in it."""

from __future__ import annotations

import asyncio
import ctypes
import gc
from collections import Counter
from dataclasses import dataclass

import psutil

from loom_host.runtimes.grpc.instance import GrpcInstance
from loom_host.runtimes.grpc.process import ChildProcess
from loom_host.runtimes.grpc.session import Session

SAMPLES, APART_S = 10, 0.02


@dataclass
class Footprint:
    """Of this process."""

    rss_mb: float
    open_files: int
    tasks: int
    objects: dict[str, int]
    """Of the kinds that each life of a child has one of."""


async def footprint() -> Footprint:
    """After a collection, and with what is free given back to the system.

    Files that are open for a moment, as those of a look at folders' sizes, do not count.
    """
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    kinds = (GrpcInstance, ChildProcess, Session)
    objects = Counter(type(o).__name__ for o in gc.get_objects() if type(o) in kinds)
    me = psutil.Process()
    files, tasks = [], []
    for _ in range(SAMPLES):
        files.append(me.num_fds())
        tasks.append(len(asyncio.all_tasks()))
        await asyncio.sleep(APART_S)
    return Footprint(me.memory_info().rss / 1e6, min(files), min(tasks), dict(objects))
