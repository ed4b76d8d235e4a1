"""The watch over how much a guest writes into its folders.

Nobody counts it as it is written, so it is looked at: before, during and after a call.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from loom_host.folders import Folder
from loom_sdk.errors import LoomError, QuotaExceeded

MAX_ENTRIES = 10_000
"""Files and folders in a written folder; more cost every look at them too much time."""
LOOK_EVERY_S = 0.02
"""Between two looks during a call, or ten times what a look takes."""


class Used(NamedTuple):
    """What a folder holds."""

    size: int
    entries: int


def measure(folder: Path) -> Used:
    """Bytes and entries; it stops counting beyond 2 * MAX_ENTRIES, and where a path is too long to
    be followed there are as many. Links are not followed.
    """
    size = entries = 0
    waiting = [str(folder)]
    while waiting and entries <= 2 * MAX_ENTRIES:
        try:
            with os.scandir(waiting.pop()) as found:
                for entry in found:
                    entries += 1
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        size += entry.stat(follow_symlinks=False).st_size
        except OSError as error:  # else it was removed while we looked
            if error.errno == errno.ENAMETOOLONG:
                entries = 2 * MAX_ENTRIES + 1
    return Used(size, entries)


class FolderWatch:
    """Ends a call that writes a folder over its limit.

    Args:
        limit: bytes in each writable folder.
    """

    def __init__(self, folders: Sequence[Folder], limit: int, plugin_id: str) -> None:
        self._folders = [folder for folder in folders if folder.writable]
        self._limit, self._plugin_id = limit, plugin_id

    @property
    def needed(self) -> bool:
        """Whether there is a folder to watch."""
        return bool(self._folders)

    @asynccontextmanager
    async def during(self, stop: Callable[[str], None]) -> AsyncIterator[None]:
        """Raises QuotaExceeded(folder_bytes or folder_entries), in place of what the call raises,
        when it left more than was allowed and than there was before; or before it begins, when
        there is more than twice what is allowed. In between it may still delete.

        Args:
            stop: ends the call; called with why.
        """
        if not self._folders:
            yield
            return
        before = await asyncio.to_thread(self._measure)
        if over := self._over(before, before, room=2):
            raise over
        looking = asyncio.create_task(self._look(before, stop))
        failure: LoomError | None = None
        try:
            yield
        except LoomError as error:
            failure = error
        finally:
            looking.cancel()
            await asyncio.wait({looking})
        if over := await asyncio.to_thread(self._grown, before):
            raise over from failure
        if failure is not None:
            raise failure

    def _measure(self) -> list[Used]:
        return [measure(folder.path) for folder in self._folders]

    async def _look(self, before: list[Used], stop: Callable[[str], None]) -> None:
        loop = asyncio.get_running_loop()
        pause = LOOK_EVERY_S
        while True:
            await asyncio.sleep(pause)
            began = loop.time()
            if over := await asyncio.to_thread(self._grown, before):
                stop(f"over its quota {over.quota}")
                return
            pause = max(LOOK_EVERY_S, 10 * (loop.time() - began))

    def _grown(self, before: list[Used]) -> QuotaExceeded | None:
        return self._over(self._measure(), before)

    def _over(self, now: list[Used], before: list[Used], room: int = 0) -> QuotaExceeded | None:
        """What is over its limit and has grown, or is over `room` times its limit."""
        limits = Used(self._limit, MAX_ENTRIES)
        by_hand = " by hand" if room else ""
        for folder, old, new in zip(self._folders, before, now, strict=True):
            for quota, limit, was, used in zip(_QUOTAS, limits, old, new, strict=True):
                if used > (room * limit if room else max(limit, was)):
                    return QuotaExceeded(
                        f"{self._plugin_id}: {used} {_UNITS[quota]} in folder {folder.name} (quota "
                        f"{quota} = {limit}): delete some of it{by_hand}, or raise the quota",
                        plugin_id=self._plugin_id, quota=quota, limit=limit, used=used,
                    )  # fmt: skip
        return None


_QUOTAS = ("folder_bytes", "folder_entries")
_UNITS = {"folder_bytes": "bytes", "folder_entries": "entries"}
