"""Names of files in a package: what every file system can hold, and nothing that leads out."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

LONGEST = 200
"""Bytes of a path: leaves room for the folder it is put into, within 255 of common systems."""
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for devices."""
_BAD = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')


def wrong_with(path: str) -> str:
    """Why `path` may not be in a package; empty where it may."""
    if path.startswith("/"):
        return "is absolute"
    if _BAD.search(path):
        return "has a character that not every file system takes"
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "leads out of its folder or has an empty part"
    if any(part.endswith((".", " ")) or _DEVICES.fullmatch(part) for part in parts):
        return "has a part that not every file system takes"
    if unicodedata.normalize("NFC", path) != path:
        return "is not in Unicode normal form NFC"
    if len(path.encode()) > LONGEST:
        return f"is longer than {LONGEST} bytes"
    return ""


def clash(paths: Iterable[str]) -> str:
    """Two of them that some file system takes for one, or a file that is a folder of another."""
    seen: dict[str, str] = {}
    for path in sorted(paths):
        folded = path.casefold()
        folders = [folded[:i] for i, letter in enumerate(folded) if letter == "/"]
        for name in (folded, *folders):
            if name in seen:
                return f"{seen[name]!r} and {path!r}"
        seen[folded] = path
    return ""
