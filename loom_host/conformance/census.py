"""What a plugin holds of the machine: memory, open files, threads, processes."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from loom_host.handle import PluginHandle
from loom_sdk.errors import PluginUnhealthy

from .kit import Skip

_KB = re.compile(r"^(?:RssAnon|RssShmem|VmSwap):\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Census:
    """Of a moment; in the native tier of the whole host."""

    memory: int = 0
    """Bytes: of a guest its linear memory, of processes what no file stands behind."""
    renewals: int = 0
    """Guests so far that took another's place."""
    files: int = 0
    threads: int = 0
    processes: int = 0
    """Those that have ended and that nobody has asked about count, too."""


def census(handle: PluginHandle, tier: str) -> Census:
    """Raises Skip where the machine does not tell, PluginUnhealthy where the plugin is gone."""
    instance = handle.instance
    if instance is None:
        raise PluginUnhealthy(handle.explain(), plugin_id=handle.spec.id)
    usage = instance.usage()
    if tier == "wasm":
        if not usage.memory_bytes:
            raise Skip("this machine does not tell how much memory a guest has")
        return Census(usage.memory_bytes, int(usage.extra.get("renewals", 0)))
    here = psutil.Process()
    try:
        if tier == "native":
            children = len(here.children(recursive=True))
            return Census(0, 0, here.num_fds(), here.num_threads(), children)
        return _of_processes(_family(psutil.Process(usage.pid)))
    except psutil.AccessDenied as error:
        raise Skip(f"this machine does not tell: {error}") from error
    except psutil.NoSuchProcess as error:
        raise PluginUnhealthy(f"its process is gone: {error}") from error


def _family(child: psutil.Process) -> list[psutil.Process]:
    """All processes of a plugin: those of its sandbox, below the one that the host started."""
    root = child
    while (parent := root.parent()) is not None and parent.pid != os.getpid():
        root = parent
    if parent is None:  # not below this process: a sandbox of another kind
        root = child
    return [root, *root.children(recursive=True)]


def _of_processes(family: list[psutil.Process]) -> Census:
    memory = files = threads = 0
    for process in family:
        with suppress(psutil.NoSuchProcess, FileNotFoundError):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            memory += _memory(process.pid)
            files += process.num_fds()
            threads += process.num_threads()
    return Census(memory, 0, files, threads, len(family))


def _memory(pid: int) -> int:
    """proc_pid_status(5); a zombie has none."""
    return 1024 * sum(map(int, _KB.findall(Path(f"/proc/{pid}/status").read_text())))
