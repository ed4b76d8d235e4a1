"""Tables of `loom.toml` and `plugin.toml`: read, with keys that nobody knows told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomli

from loom_sdk.errors import ConfigError, LoomError

from .hints import did_you_mean


def read_toml(path: Path, error: type[LoomError] = ConfigError) -> dict[str, Any]:
    """The tables of a file. Raises `error` where it cannot be read or is not TOML."""
    try:
        return tomli.loads(path.read_text(encoding="utf-8"))
    except OSError as reason:
        raise error(f"{path}: {reason.strerror}") from reason
    except (tomli.TOMLDecodeError, UnicodeDecodeError) as reason:
        raise error(f"{path} is not TOML: {reason}") from reason


def check_keys(
    table: Mapping[str, Any],
    known: Iterable[str],
    where: str,
    error: type[LoomError] = ConfigError,
) -> None:
    """Raises `error` for the first unknown key, with a suggestion."""
    names = list(known)
    for key in table:
        if key not in names:
            hint = did_you_mean(key, names, f"known keys: {', '.join(names)}")
            raise error(f"{where}: unknown key {key!r}; {hint}")
