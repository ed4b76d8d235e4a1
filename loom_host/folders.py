"""Folders of this machine that a plugin may use, by name.

A plugin asks for `name`, to read, or `name:rw`, to write too; the operator allows it and says in
`[plugins.PLUGIN.folders]` where it is. The plugin sees it as `/name`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_RW = ":rw"


@dataclass(frozen=True, slots=True)
class Folder:
    """One granted folder."""

    name: str
    path: Path
    """On this machine."""
    writable: bool

    @property
    def inside(self) -> str:
        """Where the plugin sees it."""
        return f"/{self.name}"


def check_ask(text: str) -> None:
    """Raises ValueError unless a plugin may ask so for a folder."""
    if not _NAME.fullmatch(text.removesuffix(_RW)):
        raise ValueError(
            f"{text!r} must be a name in lower case, such as 'notes' to read or 'notes:rw' to write"
        )


def covers(pattern: str, value: str) -> bool:
    """Whether one grant covers another: writing covers reading; a name may have `*`."""
    if value.endswith(_RW) and not pattern.endswith(_RW):
        return False
    return fnmatchcase(value.removesuffix(_RW), pattern.removesuffix(_RW))


def granted(grants: Iterable[str], paths: Mapping[str, str]) -> tuple[Folder, ...]:
    """The folders behind the grants.

    Args:
        paths: name to where it is.

    Raises:
        ValueError: a granted name has no path, or its path is no folder.
    """
    writable: dict[str, bool] = {}
    for grant in grants:
        name = grant.removesuffix(_RW)
        writable[name] = writable.get(name, False) or grant.endswith(_RW)
    found = []
    for name, may_write in sorted(writable.items()):
        if name not in paths:
            raise ValueError(f'{name} is granted, but not where it is: add {name} = "/path"')
        path = Path(paths[name])
        if not path.is_dir():
            raise ValueError(f"{name} = {paths[name]!r} is no folder: create it")
        found.append(Folder(name, path, may_write))
    return tuple(found)
