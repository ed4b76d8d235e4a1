"""What a plugin's code does that wants a permission, whatever the language."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ORIGIN = re.compile(r"https?://[^/?#\s{}$*]+")


@dataclass(frozen=True, slots=True)
class Use:
    """One place in the code."""

    kind: str
    """Of permission, as in `loom_host.grants.KINDS`."""
    value: str | None
    """None where only the running code knows it."""
    file: str
    line: int
    sure: bool = True
    """Whether it was read from a syntax tree, not found by its look."""


def request_value(method: str | None, url: str | None, whole: bool = True) -> str | None:
    """`GET https://host` of a request, as grants name it; None where its host is not known.

    Args:
        whole: False where more text may follow `url`; its host must then be closed by a `/`.
    """
    match = _ORIGIN.match(url or "")
    if match is None or (not whole and match.end() == len(url or "")):
        return None
    return f"{(method or 'GET').upper()} {match[0]}"
