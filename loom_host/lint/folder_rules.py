"""Rules about the size of the folder, and of single files in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .finding import Finding, finding

FOLDER_MB, BINARY_MB = 50, 5
"""Above them a package is a burden to who installs it: models and data are fetched apart."""
_MB = 1_000_000
_LEFT_OUT = {"__pycache__", "node_modules", "build"}


def size_findings(folder: Path) -> Iterator[Finding]:
    total = 0
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        skipped = any(part.startswith(".") for part in inside.parts)
        if skipped or _LEFT_OUT & set(inside.parts) or not path.is_file():
            continue
        size = path.stat().st_size
        total += size
        if size > BINARY_MB * _MB and _is_binary(path):
            what = f"a binary file of {size / _MB:.0f} MB; above {BINARY_MB} MB is much"
            fix = "fetch it when it is installed or started, or build it with the plugin"
            yield finding("folder.binary", what, fix, inside.as_posix())
    if total > FOLDER_MB * _MB:
        what = f"the folder holds {total / _MB:.0f} MB; above {FOLDER_MB} MB is much"
        yield finding("folder.size", what, "leave out what is not needed to run it", ".")


def _is_binary(path: Path) -> bool:
    with path.open("rb") as file:
        return b"\0" in file.read(8192)
