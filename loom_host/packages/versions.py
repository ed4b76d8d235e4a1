"""Versions of packages, compared as PEP 440 compares them, which takes SemVer's common forms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loom_sdk.errors import ManifestError

if TYPE_CHECKING:
    from packaging.version import Version


def parse_version(text: str, where: str) -> Version:
    """Raises ManifestError that shows a right one."""
    from packaging.version import InvalidVersion, Version

    try:
        return Version(text)
    except InvalidVersion as error:
        raise ManifestError(f"{where}: version {text!r} is none; write it like 1.4.2") from error
