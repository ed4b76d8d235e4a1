"""A user id for each running plugin, where the host is root: taken by a lock, given back after."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2s
from pathlib import Path
from threading import Lock

from loom_host.confine.report import Unavailable

FIRST, COUNT = 0x7040_0000, 1 << 20
"""Within 1879048192 to 2147483647, which systemd's table of ids (UIDS-GIDS.md) leaves unused, and
above what `confine.identity` gives out."""
LOCKS = Path("/run/loom/users")
"""One file for each id in use on this machine, whichever host uses it; locked while it runs."""
TRIES = 64


class OwnUser:
    """One user id, held until `release`. Its group has the same number."""

    def __init__(self, number: int, descriptor: int) -> None:
        self.number, self._descriptor = number, descriptor
        self._folders: set[Path] = set()
        self._holders, self._mutex = 1, Lock()

    def share(self) -> OwnUser | None:
        """For another process of the same plugin; None when it is given back already."""
        with self._mutex:
            self._holders += self._holders > 0
            return self if self._holders else None

    def give(self, folders: Iterable[Path]) -> None:
        """The folders with all that is in them become this user's.

        Nothing is followed out of them: a plugin may have left links there.
        """
        for folder in folders:
            self._folders.add(folder)
            for _, names, files, at in os.fwalk(folder, follow_symlinks=False):
                for name in (".", *names, *files):
                    self._give(name, at)

    def _give(self, name: str, at: int) -> None:
        with suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=at, follow_symlinks=False)
            linked = found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode)
            if found.st_uid != self.number and not linked:
                os.chown(name, self.number, self.number, dir_fd=at, follow_symlinks=False)

    def release(self) -> None:
        """By the last holder: shut the folders to who gets the number next, and give it back."""
        with self._mutex:
            self._holders -= 1
            if not self._holders:
                self._give_back()

    def _give_back(self) -> None:
        for folder in self._folders:
            with suppress(OSError):
                os.chown(folder, 0, 0, follow_symlinks=False)
                os.chmod(folder, 0o700)
        with suppress(OSError):
            (LOCKS / str(self.number)).unlink()
        os.close(self._descriptor)


class Users:
    """The user ids of one runtime's plugins."""

    def __init__(self) -> None:
        self._of: dict[str, OwnUser] = {}

    def claim(self, plugin_id: str) -> OwnUser:
        """A user id that no other running plugin has, the same one at each start if it is free.

        Raises:
            Unavailable: this process is not root, or there is no place for the locks.
        """
        held = self._of.get(plugin_id)
        if held is None or held.share() is None:
            self._of[plugin_id] = held = _claim(plugin_id)
        return held


def _claim(plugin_id: str) -> OwnUser:
    if os.geteuid() != 0:
        raise Unavailable("it runs as the host's user: a user of its own needs a host run by root")
    try:
        LOCKS.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"{LOCKS} cannot be made: {error.strerror}") from error
    start = int.from_bytes(blake2s(plugin_id.encode()).digest()[:8], "big")
    for step in range(TRIES):
        number = FIRST + (start + step) % COUNT
        descriptor = _lock(LOCKS / str(number))
        if descriptor >= 0:
            return OwnUser(number, descriptor)
    raise Unavailable(f"{TRIES} user ids in a row are in use")


def _lock(path: Path) -> int:
    """An open descriptor that holds the lock, -1 when somebody else has it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return -1
        with suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)  # it was removed between the two lines: it is nobody's


def closed_to_others(paths: Iterable[Path], *, parents: bool) -> Path | None:
    """The first that another user may not enter or read; with `parents` also on the way to it."""
    for path in paths:
        real = path.resolve()
        ways = [real, *(real.parents if parents else ())]
        for way in ways:
            with suppress(OSError):
                mode = way.stat().st_mode
                need = 0o1 if way is not real else 0o5 if stat.S_ISDIR(mode) else 0o4
                if mode & need != need:
                    return way
    return None
