"""What somebody may have meant who wrote a name that is not known."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(name: object, known: Iterable[str], otherwise: str) -> str:
    """`did you mean 'x'?` where a known name is near, else `otherwise`."""
    from difflib import get_close_matches  # only mistakes need it

    near = get_close_matches(str(name), list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise
