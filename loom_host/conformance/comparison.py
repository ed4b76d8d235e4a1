"""Whether an answer is what an example says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

SHOWN = 200
"""Characters of a value in a message."""


def difference(said: Any, found: Any, where: str = "the output") -> str:
    """The first place where `found` does not contain `said`; empty where it does.

    Of objects the keys that are said must be there; all else must be equal. None says nothing.
    """
    if said is None:
        return ""
    if isinstance(said, Mapping):
        if not isinstance(found, Mapping):
            return f"{where} is {shown(found)}, the example says {shown(said)}"
        for key, value in said.items():
            if key not in found:
                return f"{where} lacks {key!r}, for which the example says {shown(value)}"
            if wrong := _of_key(value, found[key], f"{where}/{key}"):
                return wrong
        return ""
    return _of_key(said, found, where)


def _of_key(said: Any, found: Any, where: str) -> str:
    if isinstance(said, Mapping):
        return difference(said, found, where)
    if said == found and isinstance(said, bool) == isinstance(found, bool):
        return ""
    return f"{where} is {shown(found)}, the example says {shown(said)}"


def shown(value: Any) -> str:
    """A JSON value for a message."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
