"""`loom.toml` and the environment -> frozen settings. All validation of settings is here.

A file may say `extends = "voice"` to start from a shipped profile, and then change single keys:
tables are merged key by key, everything else is replaced.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from loom_sdk.errors import ConfigError

from .grants import KINDS
from .quotas import Quotas, parse_quotas
from .settings import (
    MARSHALS,
    PRIVACY,
    SANDBOXES,
    AgentSettings,
    HostSettings,
    PluginSettings,
    Policy,
    SecretSettings,
    Settings,
    TelemetrySettings,
)
from .tables import check_keys, read_toml

PROFILES = Path(__file__).parent / "profiles"


def load_settings(
    path: Path | str | None = None, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Read `loom.toml` (or only a profile), merge `overrides`, check everything.

    Raises:
        ConfigError: names the file, the key and the fix.
    """
    data: dict[str, Any] = {}
    file = Path(path) if path is not None else None
    if file is not None:
        data = read_toml(file)
    data = merge(data, overrides or {})
    return parse_settings(merge(_profile(data.pop("extends", "")), data), file)


def _profile(name: Any) -> dict[str, Any]:
    if name == "":
        return {}
    profiles = {path.stem: path for path in sorted(PROFILES.glob("*.toml"))}
    if not isinstance(name, str) or name not in profiles:
        known = ", ".join(profiles)
        raise ConfigError(f"extends = {name!r}: no such profile; known: {known}")
    data = read_toml(profiles[name])
    return merge(_profile(data.pop("extends", "")), data)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Tables merged key by key; every other value replaced."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = merge(old, value) if both else value  # type: ignore[arg-type]  # both are mappings
    return result


def parse_settings(data: Mapping[str, Any], path: Path | None = None) -> Settings:
    """The checked form of a parsed `loom.toml`. Raises ConfigError."""
    where = str(path or "settings")
    known = [item.name for item in fields(Settings) if item.name != "path"]
    check_keys(data, ["extends", *known], where)
    base = path.parent.resolve() if path else Path.cwd()
    return Settings(
        host=_host(_table(data, "host", where), base, where),
        telemetry=_telemetry(_table(data, "telemetry", where), where),
        plugins={n: _plugin(n, t, base, where) for n, t in _tables(data, "plugins", where)},
        providers=_lists(data, "providers", where),
        roles=_lists(data, "roles", where),
        agents={n: _agent(n, t, where) for n, t in _tables(data, "agents", where)},
        secrets={n: _secret(n, t, where) for n, t in _tables(data, "secrets", where)},
        path=path,
    )


def _table(data: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    table = data.get(key, {})
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: {key} must be a table, not {table!r}")
    return table


def _tables(data: Mapping[str, Any], key: str, where: str) -> list[tuple[str, Mapping[str, Any]]]:
    table = _table(data, key, where)
    return [(str(name), _table(table, name, f"{where} [{key}]")) for name in table]


def _lists(data: Mapping[str, Any], key: str, where: str) -> dict[str, tuple[str, ...]]:
    items = _table(data, key, where).items()
    return {str(name): _names(value, f"{where} [{key}] {name}") for name, value in items}


def _names(value: Any, where: str) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(v, str) for v in values):
        raise ConfigError(f'{where} must be a list of plugin names, such as ["stt-whisper"]')
    return tuple(values)


def _typed(kind: type[Any], table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Values of a flat table, checked against the defaults' types."""
    defaults = kind()
    known = {item.name: getattr(defaults, item.name) for item in fields(kind)}
    check_keys(table, list(known), where)
    checked: dict[str, Any] = {}
    for key, value in table.items():
        checked[key] = _like(known[key], value, f"{where} {key}")
    return checked


def _like(default: Any, value: Any, where: str) -> Any:
    if isinstance(default, bool) or isinstance(value, bool):
        fits = isinstance(default, bool) and isinstance(value, bool)
    elif isinstance(default, float):
        fits = isinstance(value, int | float)
    elif isinstance(default, Path):
        fits = isinstance(value, str)
    elif isinstance(default, tuple):
        return _texts(value, where)
    else:
        fits = isinstance(value, type(default))
    if not fits:
        raise ConfigError(f"{where} = {value!r}: must be a {_WORDS.get(type(default), 'text')}")
    number = isinstance(default, int | float) and not isinstance(default, bool)
    if number and not 0 <= value < math.inf:
        raise ConfigError(f"{where} = {value!r}: must be finite and not negative")
    return float(value) if isinstance(default, float) else value


_WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text"}


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
        raise ConfigError(f"{where} = {value!r}: must be a list of texts")
    return tuple(value)


def _host(table: Mapping[str, Any], base: Path, where: str) -> HostSettings:
    values = _typed(HostSettings, table, f"{where} [host]")
    if values.get("marshal", "direct") not in MARSHALS:
        raise ConfigError(f"{where} [host] marshal: must be 'direct' or 'stock'")
    home = Path.home()
    defaults = {
        "data_dir": Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share") / "loom",
        "cache_dir": Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "loom",
        "runtime_dir": Path(os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/loom-{os.getuid()}")
        / "loom",
    }
    for key, default in defaults.items():
        given = values.get(key)
        values[key] = (base / Path(given).expanduser()) if given else default
    values["plugin_paths"] = tuple(
        str((base / Path(item).expanduser()).resolve()) for item in values.get("plugin_paths", ())
    )
    return HostSettings(**values)


def _telemetry(table: Mapping[str, Any], where: str) -> TelemetrySettings:
    settings = TelemetrySettings(**_typed(TelemetrySettings, table, f"{where} [telemetry]"))
    if settings.sample_ratio > 1:
        raise ConfigError(f"{where} [telemetry] sample_ratio: must be from 0 to 1")
    if settings.http_port > 65535:
        raise ConfigError(f"{where} [telemetry] http_port: must be from 0 to 65535")
    if settings.log_level not in ("debug", "info", "warning", "error"):
        raise ConfigError(f"{where} [telemetry] log_level: debug, info, warning or error")
    if settings.log_format not in ("text", "json"):
        raise ConfigError(f"{where} [telemetry] log_format: text or json")
    return settings


def _plugin(name: str, table: Mapping[str, Any], base: Path, where: str) -> PluginSettings:
    place = f"{where} [plugins.{name}]"
    plain = {k: v for k, v in table.items() if k not in _TABLES}
    check_keys(table, [item.name for item in fields(PluginSettings)], place)
    values = _typed(PluginSettings, plain, place)
    if values.get("start", "eager") not in ("eager", "background"):
        raise ConfigError(f"{place} start: must be 'eager' or 'background'")
    if values.get("tier", "") not in ("", "native", "wasm", "grpc"):
        raise ConfigError(f"{place} tier: must be native, wasm or grpc")
    if path := values.get("path", ""):
        values["path"] = _component(path, base, place)
    if values.get("isolation", "") not in ("", "thread", "process"):
        raise ConfigError(f"{place} isolation: must be 'thread' or 'process'")
    if values.get("marshal", "") not in ("", *MARSHALS):
        raise ConfigError(f"{place} marshal: must be 'direct' or 'stock'")
    if values.get("sandbox", "") not in ("", *SANDBOXES):
        raise ConfigError(f"{place} sandbox: must be one of {', '.join(SANDBOXES)}")
    if values.get("quality", 0.0) > 1:
        raise ConfigError(f"{place} quality: must be from 0 to 1")
    quotas = _table(table, "quotas", place)
    try:
        parse_quotas(quotas, Quotas())
    except ValueError as error:
        raise ConfigError(f"{place} quotas: {error}") from error
    tls: Mapping[str, str] = {}
    if table.keys() & REMOTE_KEYS:
        from .endpoint import check_remote, tls_table  # TLS is not for every start

        tls = tls_table(_table(table, "tls", place), base, f"{place} tls")
        check_remote(table, tls, place)
    return PluginSettings(
        **values,
        tls=tls,
        allow=_allow(_table(table, "allow", place), f"{place} allow"),
        folders=_folders(_table(table, "folders", place), base, f"{place} folders"),
        config=dict(_table(table, "config", place)),
        quotas=dict(quotas),
    )


REMOTE_KEYS = {"address", "tls", "insecure", "keepalive_s"}
_TABLES = ("tls", "allow", "folders", "config", "quotas")


def _folders(table: Mapping[str, Any], base: Path, where: str) -> dict[str, str]:
    texts = {str(name): str(_like("", path, f"{where} {name}")) for name, path in table.items()}
    return {name: str((base / Path(path).expanduser()).resolve()) for name, path in texts.items()}


def _component(path: str, base: Path, place: str) -> str:
    if not path.endswith(".wasm"):
        raise ConfigError(
            f"{place} path = {path!r}: must be a .wasm component; a plugin's folder goes into "
            "host.plugin_paths"
        )
    return str((base / Path(path).expanduser()).resolve())


def _allow(table: Mapping[str, Any], where: str) -> dict[str, tuple[str, ...]]:
    """Lists of texts by kind; `storage = true` is short for its only value."""
    check_keys(table, list(KINDS), where)
    if rules := _texts(table.get("network", ()), f"{where} network"):
        from .network import parse_rule

        try:
            for rule in rules:
                parse_rule(rule)
        except ValueError as error:
            raise ConfigError(f"{where} network: {error}") from error
    short = {True: ("own",), False: ()}
    return {
        kind: short[value] if kind == "storage" and isinstance(value, bool)
        else _texts(value, f"{where} {kind}")
        for kind, value in table.items()
    }  # fmt: skip


def _agent(name: str, table: Mapping[str, Any], where: str) -> AgentSettings:
    place = f"{where} [agents.{name}]"
    check_keys(table, ["plugin", "parameters"], place)
    parameters = _table(table, "parameters", place)
    check_keys(parameters, ["routing"], f"{place} parameters")
    routing = _table(parameters, "routing", f"{place} parameters")
    policy = Policy(**_typed(Policy, routing, f"{place} parameters routing"))
    if policy.privacy not in PRIVACY:
        raise ConfigError(f"{place} routing.privacy: must be one of {', '.join(PRIVACY)}")
    return AgentSettings(
        plugin=_like("", table.get("plugin", ""), f"{place} plugin"), policy=policy
    )


def _secret(name: str, table: Mapping[str, Any], where: str) -> SecretSettings:
    place = f"{where} [secrets.{name}]"
    settings = SecretSettings(**_typed(SecretSettings, table, place))
    if sum(map(bool, (settings.env, settings.file, settings.command))) != 1:
        raise ConfigError(f"{place}: exactly one of env, file and command")
    return settings
