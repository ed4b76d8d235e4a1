"""`loom.toml` and the environment -> frozen settings. All validation of settings is here.

A file may say `extends = "voice"` to start from a shipped profile, and then change single keys:
tables are merged key by key, everything else is replaced.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from loom_sdk.errors import ConfigError

from .approval_words import tool_policy_of
from .client_settings import client_of
from .grants import KINDS
from .mcp_words import check_server
from .privacy import check_labels
from .quotas import Quotas, parse_quotas
from .settings import (
    MARSHALS,
    PRIVACY,
    SANDBOXES,
    AgentSettings,
    HostSettings,
    PluginSettings,
    Policy,
    RoutingSettings,
    SecretSettings,
    Settings,
    TelemetrySettings,
)
from .sockets import check_ask, is_socket
from .storage_words import event_log_of, storage_of
from .tables import check_keys, like, read_toml, texts, typed

PROFILES = Path(__file__).parent / "profiles"


def load_settings(
    path: Path | str | None = None, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Read `loom.toml` (or only a profile), merge `overrides`, check everything.

    What `loom.lock` says is installed joins the plugins.

    Raises:
        ConfigError: names the file, the key and the fix.
    """
    data: dict[str, Any] = {}
    file = Path(path) if path is not None else None
    if file is not None:
        data = read_toml(file)
    data = merge(data, overrides or {})
    settings = parse_settings(merge(_profile(data.pop("extends", "")), data), file)
    if not settings.lock_file.is_file():
        return settings
    from .packages.installed import with_installed  # which few hosts need

    return with_installed(settings)


def _profile(name: Any) -> dict[str, Any]:
    if name == "":
        return {}
    profiles = {path.stem: path for path in sorted(PROFILES.glob("*.toml"))}
    if not isinstance(name, str) or name not in profiles:
        known = ", ".join(profiles)
        raise ConfigError(f"extends = {name!r}: no such profile; known: {known}")
    data = read_toml(profiles[name])
    return merge(_profile(data.pop("extends", "")), data)


def passing_folders(place: Path, tier: str) -> dict[str, str]:
    """Keys of `[host]` for a host that runs for a test alone: its folders, below `place`.

    For the wasm tier without the cache: what was compiled is kept for the next one.
    """
    names = ("data", "runtime") if tier == "wasm" else ("data", "runtime", "cache")
    return {f"{name}_dir": str(place / name) for name in names}


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
        routing=_routing(_table(data, "routing", where), where),
        agents={n: _agent(n, t, where) for n, t in _tables(data, "agents", where)},
        clients={n: client_of(n, t, where) for n, t in _tables(data, "clients", where)},
        secrets={n: _secret(n, t, where) for n, t in _tables(data, "secrets", where)},
        storage=storage_of(_table(data, "storage", where), where),
        event_log=event_log_of(_table(data, "event_log", where), where),
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


def _host(table: Mapping[str, Any], base: Path, where: str) -> HostSettings:
    values = typed(HostSettings, table, f"{where} [host]")
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
    settings = TelemetrySettings(**typed(TelemetrySettings, table, f"{where} [telemetry]"))
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
    values = typed(PluginSettings, plain, place)
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
    if values.get("privacy", "") not in ("", *PRIVACY):
        raise ConfigError(f"{place} privacy: must be one of {', '.join(PRIVACY)}")
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
        allow=_allow(_table(table, "allow", place), f"{place} allow")
        or (NOTHING if "allow" in table else {}),
        folders=_folders(_table(table, "folders", place), base, f"{place} folders"),
        config=dict(_table(table, "config", place)),
        quotas=dict(quotas),
        mcp=check_server(table["mcp"], place) if "mcp" in table else (),
    )


REMOTE_KEYS = {"address", "tls", "insecure", "keepalive_s"}
NOTHING = {"provide": ()}
"""What `allow = {}` means, which is not the same as no `allow` for a plugin that was installed."""
_TABLES = ("tls", "allow", "folders", "config", "quotas", "mcp")


def _folders(table: Mapping[str, Any], base: Path, where: str) -> dict[str, str]:
    texts = {str(name): str(like("", path, f"{where} {name}")) for name, path in table.items()}
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
    if rules := texts(table.get("network", ()), f"{where} network"):
        from .network import parse_rule

        try:
            for rule in rules:
                check_ask(rule) if is_socket(rule) else parse_rule(rule)
        except ValueError as error:
            raise ConfigError(f"{where} network: {error}") from error
    try:
        check_labels(texts(table.get("labels", ()), f"{where} labels"))
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    short = {True: ("own",), False: ()}
    return {
        kind: short[value] if kind == "storage" and isinstance(value, bool)
        else texts(value, f"{where} {kind}")
        for kind, value in table.items()
    }  # fmt: skip


def _routing(table: Mapping[str, Any], where: str) -> RoutingSettings:
    settings = RoutingSettings(**typed(RoutingSettings, table, f"{where} [routing]"))
    for key in ("failures", "open_s", "half_life_s"):
        if not getattr(settings, key):
            raise ConfigError(f"{where} [routing] {key}: must be above 0")
    return settings


def parse_policy(table: Mapping[str, Any], where: str) -> Policy:
    """The checked form of `parameters.routing`. Raises ConfigError."""
    policy = Policy(**typed(Policy, table, where))
    if policy.privacy not in PRIVACY:
        raise ConfigError(f"{where} privacy: must be one of {', '.join(PRIVACY)}")
    return policy


def _agent(name: str, table: Mapping[str, Any], where: str) -> AgentSettings:
    place = f"{where} [agents.{name}]"
    plain = {key: value for key, value in table.items() if key != "parameters"}
    own = [item.name for item in fields(AgentSettings) if item.name not in ("policy", "tools")]
    check_keys(table, own, place)
    parameters = dict(_table(table, "parameters", place))
    if not table.get("plugin"):
        check_keys(parameters, ["routing", "tools"], f"{place} parameters")
    routing = _table(parameters, "routing", f"{place} parameters")
    policy = parse_policy(routing, f"{place} parameters routing")
    tools = tool_policy_of(parameters.pop("tools", {}), f"{place} parameters tools")
    parameters.pop("routing", None)
    values = typed(AgentSettings, plain, place)
    return AgentSettings(**values, policy=policy, tools=tools, parameters=parameters)


def _secret(name: str, table: Mapping[str, Any], where: str) -> SecretSettings:
    place = f"{where} [secrets.{name}]"
    settings = SecretSettings(**typed(SecretSettings, table, place))
    if sum(map(bool, (settings.env, settings.file, settings.command))) != 1:
        raise ConfigError(f"{place}: exactly one of env, file and command")
    return settings
