"""Applies layers one by one and says of each what became of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

ENFORCED = "enforced"

Layer = tuple[str, Callable[[], str]]
"""Name, and what applies it: returns what is missing in words, empty when all of it holds."""


class Unavailable(Exception):
    """This machine, or this user, cannot have the layer; the text says why."""


def apply(layers: Iterable[Layer]) -> dict[str, str]:
    """Apply in order. A layer's name to `enforced`, `partial: why` or `unenforced: why`."""
    found = {}
    for name, work in layers:
        try:
            missing = work()
        except (Unavailable, OSError, ValueError) as error:
            found[name] = f"unenforced: {error}"
        else:
            found[name] = f"partial: {missing}" if missing else ENFORCED
    return found
