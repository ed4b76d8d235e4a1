"""Tables of `loom.toml` and `plugin.toml`: read, with keys that nobody knows told."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
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


def typed(kind: type[Any], table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Values of a flat table, checked against the defaults' types. Raises ConfigError."""
    defaults = kind()
    known = {item.name: getattr(defaults, item.name) for item in fields(kind)}
    check_keys(table, list(known), where)
    checked: dict[str, Any] = {}
    for key, value in table.items():
        checked[key] = like(known[key], value, f"{where} {key}")
    return checked


def like(default: Any, value: Any, where: str) -> Any:
    """The value where it is of the default's type. Raises ConfigError."""
    if isinstance(default, bool) or isinstance(value, bool):
        fits = isinstance(default, bool) and isinstance(value, bool)
    elif isinstance(default, float):
        fits = isinstance(value, int | float)
    elif isinstance(default, Path):
        fits = isinstance(value, str)
    elif isinstance(default, tuple):
        return texts(value, where)
    else:
        fits = isinstance(value, type(default))
    if not fits:
        raise ConfigError(f"{where} = {value!r}: must be a {_WORDS.get(type(default), 'text')}")
    number = isinstance(default, int | float) and not isinstance(default, bool)
    if number and not 0 <= value < math.inf:
        raise ConfigError(f"{where} = {value!r}: must be finite and not negative")
    return float(value) if isinstance(default, float) else value


_WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text"}


def texts(value: Any, where: str) -> tuple[str, ...]:
    """A list of texts. Raises ConfigError."""
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
        raise ConfigError(f"{where} = {value!r}: must be a list of texts")
    return tuple(value)
