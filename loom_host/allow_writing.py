"""Grants into a `loom.toml` that people write: all else in it stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli

from loom_sdk.errors import ConfigError

from .tables import read_toml


def write_allow(path: Path, grants: Mapping[str, Mapping[str, tuple[str, ...]]]) -> None:
    """Replace `allow` of each plugin; the file appears whole or not at all.

    Args:
        grants: plugin to kind to values.

    Raises:
        ConfigError: the file cannot be read or written, or is not TOML.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(path.read_text(encoding="utf-8"))
        plugins = document.setdefault("plugins", tomlkit.table(is_super_table=True))
        for name, allow in grants.items():
            _put(plugins, name, allow)
        text = tomlkit.dumps(document)
        _check(text, read_toml(path), grants, path)
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(text, encoding="utf-8")
        fresh.chmod(path.stat().st_mode & 0o777)
        fresh.replace(path)
    except (OSError, UnicodeDecodeError, TOMLKitError, tomli.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _put(plugins: Any, name: str, allow: Mapping[str, tuple[str, ...]]) -> None:
    import tomlkit
    from tomlkit.items import Table

    table = plugins.setdefault(name, tomlkit.table())
    lists = {kind: list(values) for kind, values in allow.items()}
    if isinstance(table.get("allow"), Table):  # [plugins.NAME.allow]: it stays where it stands
        table["allow"].clear()
        table["allow"].update(lists)
        return
    inline = tomlkit.inline_table()
    inline.update(lists)
    table["allow"] = inline


def _check(
    text: str,
    before: Mapping[str, Any],
    grants: Mapping[str, Mapping[str, tuple[str, ...]]],
    path: Path,
) -> None:
    """Raises ConfigError unless what is written says the same but for the grants."""
    plugins = dict(before.get("plugins", {}))
    for name, allow in grants.items():
        lists = {kind: list(values) for kind, values in allow.items()}
        plugins[name] = {**plugins.get(name, {}), "allow": lists}
    if tomli.loads(text) != {**before, "plugins": plugins}:
        raise ConfigError(f"{path}: its tables cannot be changed in place: copy the lines instead")
