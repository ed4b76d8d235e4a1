"""The folders that a guest gets. Reading and writing is wasmtime's, which lets no path lead out of
one; a worker process is held to its folders by the kernel, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from loom_sdk.errors import PluginLoadError

if TYPE_CHECKING:
    from loom_host.folders import Folder

MAX_FOLDERS = 8
"""Of one plugin: each is an open file that travels to its worker process."""


class Preopen(NamedTuple):
    """A folder as wasmtime is told of it."""

    path: str
    """As this process reaches it."""
    inside: str
    writable: bool


def in_thread(folders: Sequence[Folder]) -> tuple[Preopen, ...]:
    """As the host itself reaches them."""
    return tuple(Preopen(str(f.path), f.inside, f.writable) for f in folders)


@dataclass(frozen=True, slots=True)
class Room:
    """The folders of a worker: what travels beside their open descriptors."""

    writable: tuple[bool, ...] = ()
    owner: tuple[int, int] | None = None
    file_size: int = 0


NO_FOLDERS = Room()


@contextmanager
def opened(folders: Sequence[Folder], limit: int) -> Iterator[tuple[Room, list[int]]]:
    """Open the folders for a worker about to be forked, which gets descriptors of its own.

    Args:
        limit: bytes in each writable folder; a file gets one more, so that it shows who goes over.

    Raises:
        PluginLoadError: as `owner_of`, or one cannot be opened.
    """
    held: list[int] = []
    try:
        for folder in folders:
            held.append(os.open(folder.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        writable = tuple(folder.writable for folder in folders)
        yield Room(writable, owner_of(folders), limit + 1 if any(writable) else 0), held
    except OSError as error:
        raise PluginLoadError(f"a granted folder cannot be opened: {error}") from error
    finally:
        for descriptor in held:
            os.close(descriptor)


def owner_of(folders: Sequence[Folder]) -> tuple[int, int] | None:
    """User and group that a worker is to be: those of the folders that it writes, else of the
    first; None without folders.

    Raises:
        PluginLoadError: too many folders, or no one user owns all that it may write.
    """
    if len(folders) > MAX_FOLDERS:
        raise PluginLoadError(f"{len(folders)} folders are granted, at most {MAX_FOLDERS} can be")
    owners = [(f.writable, f.path.stat().st_uid, f.path.stat().st_gid) for f in folders]
    if len({uid for writable, uid, _ in owners if writable}) > 1:
        raise PluginLoadError("the folders that it may write belong to several users: use one")
    owners.sort(key=lambda owner: not owner[0])
    return owners[0][1:] if owners else None
