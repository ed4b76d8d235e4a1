"""`plugin.toml` -> `Manifest`: everything about a plugin that is known without loading its code."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from loom_sdk import QoS
from loom_sdk.errors import BusError, ManifestError, ProtocolMismatch
from loom_sdk.plugin import API_VERSION, CapabilitySpec, SubscriptionSpec
from loom_sdk.topics import check_pattern

from .quotas import Quotas, parse_quotas

TIERS = ("native", "wasm", "grpc")
TYPES = ("feature_extractor", "model_backend", "tool", "actuator", "event_source", "agent")
EFFECTS = ("none", "idempotent", "once")
PERMISSIONS = ("network", "filesystem", "env", "secrets", "invoke", "devices", "storage")

_TABLES: dict[str, tuple[str, ...]] = {
    "": ("plugin", "config", "capability", "events", "permissions", "quotas"),
    "plugin": (
        "id", "version", "api", "type", "tier", "tiers", "entry", "description", "instances",
    ),
    "capability": (
        "name", "version", "description", "tool", "effects", "input", "output", "examples",
        "resumable",
    ),
    "events": ("subscribes", "publishes"),
    "events.subscribes": ("topic", "qos", "types", "concurrency"),
    "permissions": PERMISSIONS,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a plugin asks for beside subscribing, publishing and providing."""

    network: tuple[str, ...] = ()
    filesystem: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    invoke: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    storage: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    """A plugin's own statement: what it is, offers and asks for."""

    id: str
    version: str
    type: str
    tier: str
    tiers: tuple[str, ...]
    entry: str | tuple[str, ...]
    folder: Path
    description: str = ""
    instances: str = "single"
    config_schema: Mapping[str, Any] = field(default_factory=dict)
    """JSON Schema `properties` of the plugin's own settings."""
    capabilities: tuple[CapabilitySpec, ...] = ()
    subscribes: tuple[SubscriptionSpec, ...] = ()
    publishes: tuple[str, ...] = ()
    permissions: Permissions = field(default_factory=Permissions)
    quotas: Quotas = field(default_factory=Quotas)

    @property
    def name(self) -> str:
        return self.id.partition("/")[2]


def check_keys(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raises ManifestError for the first unknown key, with a suggestion."""
    names = list(known)
    for key in table:
        if key not in names:
            near = get_close_matches(key, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(names)}"
            raise ManifestError(f"{where}: unknown key {key!r}; {hint}")


def load_manifest(path: Path) -> Manifest:
    """Read and check one `plugin.toml`.

    Raises:
        ManifestError: it cannot be read or is wrong; names file, key and fix.
        ProtocolMismatch: it was written for a newer api.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} is not TOML: {error}") from error
    return parse_manifest(data, path)


def parse_manifest(data: Mapping[str, Any], path: Path) -> Manifest:
    """The checked form of a parsed `plugin.toml`. Raises as `load_manifest`."""
    where = str(path)
    head = _table(data, "plugin", where)
    _check_api(head, where)
    check_keys(data, _TABLES[""], where)
    check_keys(head, _TABLES["plugin"], f"{where} [plugin]")
    tier = _choice(head, "tier", TIERS, where)
    events = data.get("events", {})
    check_keys(events, _TABLES["events"], f"{where} [events]")
    try:
        quotas = parse_quotas(data.get("quotas", {}))
    except ValueError as error:
        raise ManifestError(f"{where} [quotas]: {error}") from error
    return Manifest(
        id=_plugin_id(head, where),
        version=_text(head, "version", where),
        type=_choice(head, "type", TYPES, where),
        tier=tier,
        tiers=_tiers(head, tier, where),
        entry=_entry(head, where),
        folder=path.parent,
        description=str(head.get("description", "")),
        instances=_choice(head, "instances", ("single", "pool"), where, "single"),
        config_schema=_config_schema(data.get("config", {}), where),
        capabilities=tuple(_capability(t, where) for t in data.get("capability", ())),
        subscribes=tuple(_subscription(t, where) for t in events.get("subscribes", ())),
        publishes=_patterns(events.get("publishes", ()), f"{where} [events] publishes"),
        permissions=_permissions(data.get("permissions", {}), where),
        quotas=quotas,
    )


def _check_api(head: Mapping[str, Any], where: str) -> None:
    api = _text(head, "api", where)
    if api != API_VERSION:
        raise ProtocolMismatch(
            f"{where} asks for api {api}, this host speaks {API_VERSION}: "
            "upgrade loom-host, or use the plugin's older release",
            plugin_id=str(head.get("id", "")),
        )


def _table(data: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    table = data.get(key)
    if not isinstance(table, Mapping):
        raise ManifestError(f"{where}: the table [{key}] is missing")
    return table


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise ManifestError(f"{where}: {key} must be a text, such as {key} = \"1\"")
    return value


def _choice(
    table: Mapping[str, Any], key: str, options: tuple[str, ...], where: str, default: str = ""
) -> str:
    value = table.get(key, default)
    if value not in options:
        raise ManifestError(f"{where}: {key} = {value!r}, must be one of {', '.join(options)}")
    return str(value)


def _plugin_id(head: Mapping[str, Any], where: str) -> str:
    value = _text(head, "id", where)
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*/[a-z0-9][a-z0-9-]*", value):
        raise ManifestError(
            f"{where}: id = {value!r} must be publisher/name in lower case letters, "
            "digits and dashes, such as 'acme/weather'"
        )
    return value


def _tiers(head: Mapping[str, Any], tier: str, where: str) -> tuple[str, ...]:
    tiers = tuple(head.get("tiers", (tier,)))
    wrong = [item for item in tiers if item not in TIERS]
    if wrong or tier not in tiers:
        raise ManifestError(f"{where}: tiers must list {tier!r} and only {', '.join(TIERS)}")
    return tiers


def _entry(head: Mapping[str, Any], where: str) -> str | tuple[str, ...]:
    entry = head.get("entry")
    if isinstance(entry, str) and entry:
        return entry
    if isinstance(entry, list) and entry and all(isinstance(part, str) for part in entry):
        return tuple(entry)
    raise ManifestError(
        f"{where}: entry must be 'module:Class', a .wasm file or a command line as a list"
    )


def _config_schema(table: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    for key, schema in table.items():
        if not isinstance(schema, Mapping):
            raise ManifestError(
                f"{where} [config]: {key} must be a JSON Schema, such as "
                f"{key} = {{ type = \"string\", default = \"\" }}"
            )
    return table


def _capability(table: Mapping[str, Any], where: str) -> CapabilitySpec:
    check_keys(table, _TABLES["capability"], f"{where} [[capability]]")
    name = _text(table, "name", f"{where} [[capability]]")
    if not re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+", name):
        raise ManifestError(f"{where}: capability {name!r} must look like 'weather.get'")
    return CapabilitySpec(
        name=name,
        version=str(table.get("version", "")),
        description=str(table.get("description", "")),
        tool=bool(table.get("tool", False)),
        effects=_choice(table, "effects", EFFECTS, f"{where} {name}", "once"),  # type: ignore[arg-type]  # checked against EFFECTS
        input_schema=table.get("input"),
        output_schema=table.get("output"),
        resumable=bool(table.get("resumable", False)),
        examples=tuple(table.get("examples", ())),
    )


def _subscription(table: Mapping[str, Any], where: str) -> SubscriptionSpec:
    place = f"{where} [[events.subscribes]]"
    check_keys(table, _TABLES["events.subscribes"], place)
    topic = _text(table, "topic", place)
    _patterns([topic], place)
    qos = _choice(table, "qos", ("realtime", "batched", "background"), place, "batched")
    concurrency = table.get("concurrency", 1)
    if not isinstance(concurrency, int) or concurrency < 1:
        raise ManifestError(f"{place}: concurrency must be a whole number of at least 1")
    return SubscriptionSpec(topic, QoS[qos.upper()], tuple(table.get("types", ())), concurrency)


def _patterns(values: Iterable[Any], where: str) -> tuple[str, ...]:
    patterns = tuple(str(value) for value in values)
    for pattern in patterns:
        try:
            check_pattern(pattern)
        except BusError as error:
            raise ManifestError(f"{where}: {error}") from error
    return patterns


def _permissions(table: Mapping[str, Any], where: str) -> Permissions:
    place = f"{where} [permissions]"
    check_keys(table, PERMISSIONS, place)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key == "storage":
            values[key] = bool(value)
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            values[key] = tuple(value)
        else:
            raise ManifestError(f"{place}: {key} must be a list of texts")
    return Permissions(**values)
