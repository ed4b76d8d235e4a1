"""The runtime folder of one host, held by a lock; and what hosts that were killed have left.

Whether a host lives is told by its lock, which the kernel drops with the process: no process id is
looked at, so none that was given to a stranger can be taken for a dead host's. What is killed is
what is in the control group that bears the folder's name.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from loom_host.confine import cgroups

from .sandbox import group_name
from .users import LOCKS

LOCK = "host.lock"


class HostFolder:
    """A fresh, locked folder below `parent`."""

    def __init__(self, parent: Path, mode: int) -> None:
        # Under another name until it is locked, or a host that starts would take it for a left one.
        made = Path(tempfile.mkdtemp(prefix="new-", dir=parent))
        made.chmod(mode)
        self._lock = os.open(made / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.path = made.rename(parent / f"g-{made.name.removeprefix('new-')}")

    def remove(self) -> None:
        """Its children are gone."""
        with suppress(OSError):
            (self.path / LOCK).unlink()
            self.path.rmdir()
        os.close(self._lock)


def sweep(parent: Path) -> int:
    """Kill and remove what dead hosts have left below `parent`; the number of their folders."""
    found = 0
    for folder in parent.glob("g-*"):
        with suppress(OSError):
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _clean(folder)
                found += 1
            finally:
                os.close(lock)
    cgroups.sweep()
    if os.geteuid() == 0:
        _sweep_users()
    return found


def _clean(folder: Path) -> None:
    for private in folder.glob("p-*"):
        group = cgroups.find(group_name(private))
        group.kill()
        group.remove()
    shutil.rmtree(folder, ignore_errors=True)


def _sweep_users() -> None:
    with suppress(OSError):
        for path in LOCKS.iterdir():
            with suppress(OSError):
                lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                finally:
                    os.close(lock)
