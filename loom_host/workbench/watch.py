"""Sees what is saved in a plugin's folder, by looking: that works on every file system."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

LOOK_EVERY_S = 0.25
IGNORED = frozenset({"build", "dist", "target", "node_modules", "__pycache__", "venv"})
"""Folders of what is made; those whose names begin with a dot are ignored too."""
LEFTOVERS = ("~", ".pyc", ".swp", ".swx", ".tmp")
"""Endings of what editors and interpreters write beside a file."""

Seen = dict[str, tuple[int, int]]


async def saved(folder: Path, before: Seen) -> AsyncIterator[list[str]]:
    """The names of files that were saved, made or removed, once all is quiet for one look.

    Args:
        before: what `look` saw before the files were first used.
    """
    changed: set[str] = set()
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        now = await asyncio.to_thread(look, folder)
        fresh = {name for name in {*before, *now} if before.get(name) != now.get(name)}
        before = now
        if changed and not fresh:
            yield sorted(changed)
            changed = set()
        changed |= fresh


def look(folder: Path) -> Seen:
    """Path inside the folder to time of change (ns) and size, for each file that counts."""
    return dict(_files(folder, ""))


def _files(folder: Path, prefix: str) -> Iterator[tuple[str, tuple[int, int]]]:
    try:
        entries = list(os.scandir(folder))
    except OSError:  # it was removed while we looked
        return
    for entry in entries:
        name = entry.name
        if name.startswith(".") or name in IGNORED or name.endswith(LEFTOVERS):
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path), f"{prefix}{name}/")
            else:
                found = entry.stat()
                yield f"{prefix}{name}", (found.st_mtime_ns, found.st_size)
        except OSError:
            continue
