"""Values of one table of a `plugin.toml`, each checked as it is taken: raises ManifestError."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from loom_sdk.errors import ManifestError

from .tables import check_keys

CAPABILITY = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+")
"""The name of one."""
HOST, HOSTS_OWN = "host", "loom."
"""The name that stands for the host itself, and how its capabilities begin."""


def capability_name(text: str, where: str) -> str:
    """Raises ManifestError for what is none, or is the host's."""
    if not CAPABILITY.fullmatch(text):
        raise ManifestError(f"{where}: capability {text!r} must look like 'weather.get'")
    if text.startswith(HOSTS_OWN):
        raise ManifestError(f"{where}: capability {text!r}: names with {HOSTS_OWN} are the host's")
    return text


def table(data: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = data.get(key)
    if not isinstance(value, Mapping):
        what = "is missing" if value is None else f"must be a table, not {value!r}"
        raise ManifestError(f"{where}: [{key}] {what}")
    return value


def optional(data: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    return table(data, key, where) if key in data else {}


def tables(data: Mapping[str, Any], key: str, where: str) -> list[Mapping[str, Any]]:
    values = data.get(key, [])
    if not isinstance(values, list) or not all(isinstance(item, Mapping) for item in values):
        raise ManifestError(f"{where}: {key} must be a list of tables, such as [[{key}]]")
    return values


def texts(data: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    values = data.get(key, [])
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise ManifestError(f'{where}: {key} must be a list of texts, such as {key} = ["a"]')
    return tuple(values)


def word(data: Mapping[str, Any], key: str, where: str) -> str:
    value = data.get(key, "")
    if not isinstance(value, str):
        raise ManifestError(f"{where}: {key} must be a text, not {value!r}")
    return value


def flag(data: Mapping[str, Any], key: str, where: str) -> bool:
    value = data.get(key, False)
    if not isinstance(value, bool):
        raise ManifestError(f"{where}: {key} must be true or false, not {value!r}")
    return value


def whole(data: Mapping[str, Any], key: str, where: str, default: int = 1) -> int:
    """From 1 on."""
    value = data.get(key, default)
    if type(value) is not int or value < 1:
        raise ManifestError(f"{where}: {key} must be a whole number of at least 1")
    return value


def schema(data: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any] | None:
    return table(data, key, where) if key in data else None


def text(data: Mapping[str, Any], key: str, where: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value:
        raise ManifestError(f'{where}: {key} must be a text, such as {key} = "1"')
    return value


def choice(
    data: Mapping[str, Any], key: str, options: tuple[str, ...], where: str, default: str = ""
) -> str:
    value = data.get(key, default)
    if value not in options:
        raise ManifestError(f"{where}: {key} = {value!r}, must be one of {', '.join(options)}")
    return str(value)


def examples(
    data: Mapping[str, Any], keys: Iterable[str], where: str
) -> tuple[Mapping[str, Any], ...]:
    """Of a capability: what it is asked, and either answers or refuses with the code `error`."""
    found = tuple(tables(data, "examples", where))
    for number, example in enumerate(found, 1):
        place = f"{where}: example {number}"
        check_keys(example, keys, place, ManifestError)
        if "error" in example:
            text(example, "error", place)
            if "output" in example or "arguments" not in example:
                raise ManifestError(f"{place}: error goes with arguments, and without output")
    return found
