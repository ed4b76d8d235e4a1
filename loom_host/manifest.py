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

from .folders import check_ask
from .network import parse_rule
from .quotas import Quotas, parse_quotas
from .sockets import check_ask as check_socket
from .sockets import is_socket

TIERS = ("native", "wasm", "grpc")
TYPES = ("feature_extractor", "model_backend", "tool", "actuator", "event_source", "agent")
EFFECTS = ("none", "idempotent", "once")
PERMISSIONS = ("network", "filesystem", "env", "secrets", "invoke", "devices", "storage")

_TABLES: dict[str, tuple[str, ...]] = {
    "": ("plugin", "config", "capability", "events", "permissions", "quotas"),
    "plugin": (
        "id", "version", "api", "type", "tier", "tiers", "entry", "description", "instances",
        "sandbox",
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
    sandbox: str = ""
    """`strict` where it wants no less, although it is first-party."""

    @property
    def name(self) -> str:
        return self.id.partition("/")[2]

    @property
    def offers_by_types(self) -> bool:
        """Whether it lists nothing: the types of its component tell, once it is loaded."""
        listed = self.capabilities or self.subscribes
        return isinstance(self.entry, str) and self.entry.endswith(".wasm") and not listed


def check_keys(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raises ManifestError for the first unknown key, with a suggestion."""
    names = list(known)
    for key in table:
        if key not in names:
            near = get_close_matches(str(key), names, n=1)
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
    events = _optional(data, "events", where)
    check_keys(events, _TABLES["events"], f"{where} [events]")
    try:
        quotas = parse_quotas(_optional(data, "quotas", where))
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
        description=_word(head, "description", where),
        instances=_choice(head, "instances", ("single", "pool"), where, "single"),
        sandbox=_choice(head, "sandbox", ("", "strict"), where),
        config_schema=_config_schema(_optional(data, "config", where), where),
        capabilities=_capabilities(data, where),
        subscribes=tuple(_subscription(t, where) for t in _tables(events, "subscribes", where)),
        publishes=_patterns(_texts(events, "publishes", where), f"{where} [events] publishes"),
        permissions=_permissions(_optional(data, "permissions", where), where),
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
        what = "is missing" if table is None else f"must be a table, not {table!r}"
        raise ManifestError(f"{where}: [{key}] {what}")
    return table


def _optional(data: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    return _table(data, key, where) if key in data else {}


def _tables(data: Mapping[str, Any], key: str, where: str) -> list[Mapping[str, Any]]:
    tables = data.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(item, Mapping) for item in tables):
        raise ManifestError(f"{where}: {key} must be a list of tables, such as [[{key}]]")
    return tables


def _texts(data: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    values = data.get(key, [])
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise ManifestError(f'{where}: {key} must be a list of texts, such as {key} = ["a"]')
    return tuple(values)


def _word(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise ManifestError(f"{where}: {key} must be a text, not {value!r}")
    return value


def _flag(table: Mapping[str, Any], key: str, where: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise ManifestError(f"{where}: {key} must be true or false, not {value!r}")
    return value


def _schema(table: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any] | None:
    return _table(table, key, where) if key in table else None


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise ManifestError(f'{where}: {key} must be a text, such as {key} = "1"')
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
    tiers = _texts(head, "tiers", where) if "tiers" in head else (tier,)
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
                f'{key} = {{ type = "string", default = "" }}'
            )
    return table


def _capabilities(data: Mapping[str, Any], where: str) -> tuple[CapabilitySpec, ...]:
    found = [_capability(table, where) for table in _tables(data, "capability", where)]
    names = [spec.name for spec in found]
    for name in names:
        if names.count(name) > 1:
            raise ManifestError(f"{where}: capability {name!r} is listed twice: remove one")
    return tuple(found)


def _capability(table: Mapping[str, Any], where: str) -> CapabilitySpec:
    check_keys(table, _TABLES["capability"], f"{where} [[capability]]")
    name = _text(table, "name", f"{where} [[capability]]")
    if not re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+", name):
        raise ManifestError(f"{where}: capability {name!r} must look like 'weather.get'")
    place = f"{where} {name}"
    effects: Any = _choice(table, "effects", EFFECTS, place, "once")
    return CapabilitySpec(
        name=name,
        version=_word(table, "version", place),
        description=_word(table, "description", place),
        tool=_flag(table, "tool", place),
        effects=effects,
        input_schema=_schema(table, "input", place),
        output_schema=_schema(table, "output", place),
        resumable=_flag(table, "resumable", place),
        examples=tuple(_tables(table, "examples", place)),
    )


def _subscription(table: Mapping[str, Any], where: str) -> SubscriptionSpec:
    place = f"{where} [[events.subscribes]]"
    check_keys(table, _TABLES["events.subscribes"], place)
    topic = _text(table, "topic", place)
    _patterns((topic,), place)
    qos = _choice(table, "qos", ("realtime", "batched", "background"), place, "batched")
    concurrency = table.get("concurrency", 1)
    if type(concurrency) is not int or concurrency < 1:
        raise ManifestError(f"{place}: concurrency must be a whole number of at least 1")
    return SubscriptionSpec(topic, QoS[qos.upper()], _texts(table, "types", place), concurrency)


def _patterns(patterns: tuple[str, ...], where: str) -> tuple[str, ...]:
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
    for key in table:
        values[key] = _flag(table, key, place) if key == "storage" else _texts(table, key, place)
    try:
        for text in values.get("network", ()):
            check_socket(text) if is_socket(text) else parse_rule(text)
        for text in values.get("filesystem", ()):
            check_ask(text)
    except ValueError as error:
        raise ManifestError(f"{place}: {error}") from error
    return Permissions(**values)
