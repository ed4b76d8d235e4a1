"""How grants are written in `loom.toml`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def allow_lines(plugin: str, allow: Mapping[str, tuple[str, ...]]) -> str:
    """The plugin's table with the whole of `allow`."""
    pairs = (f"{kind} = [{', '.join(map(_quoted, values))}]" for kind, values in allow.items())
    name = plugin if _BARE.fullmatch(plugin) else _quoted(plugin)
    inside = f" {', '.join(pairs)} " if allow else ""
    return f"[plugins.{name}]\nallow = {{{inside}}}"


def _quoted(text: str) -> str:
    """A basic string of TOML: JSON's, where DEL is escaped, too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
