"""`plugin.toml` -> `Manifest`: everything about a plugin that is known without loading its code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loom_sdk import QoS
from loom_sdk.errors import BusError, ManifestError, ProtocolMismatch
from loom_sdk.plugin import API_VERSION, CapabilitySpec, SubscriptionSpec
from loom_sdk.topics import check_pattern

from . import manifest_values as take
from .folders import check_ask
from .privacy import check_labels
from .quotas import Quotas, parse_quotas
from .sockets import check_ask as check_socket
from .sockets import is_socket
from .tables import check_keys, read_toml

TIERS = ("native", "wasm", "grpc")
TYPES = ("feature_extractor", "model_backend", "tool", "actuator", "event_source", "agent")
EFFECTS = ("none", "idempotent", "once")
PERMISSIONS = ("network", "filesystem", "env", "secrets", "invoke", "devices", "storage", "labels")

TABLES: dict[str, tuple[str, ...]] = {
    "": ("plugin", "config", "capability", "events", "permissions", "quotas", "storage"),
    "plugin": (
        "id", "version", "api", "type", "tier", "tiers", "entry", "description", "instances",
        "sandbox", "placement", "license",
    ),
    "capability": (
        "name", "version", "description", "tool", "effects", "input", "output", "examples",
        "resumable",
    ),
    "capability.examples": ("question", "arguments", "output", "error", "slow"),
    "storage": ("version",),
    "events": ("subscribes", "publishes"),
    "events.subscribes": ("topic", "qos", "types", "concurrency"),
    "permissions": (*PERMISSIONS, "provide", "subscribe", "publish"),
}  # fmt: skip
_DECLARED = {"provide": "[[capability]] name", "subscribe": "[[events.subscribes]] topic"}
"""Permissions that are asked for by what is declared; said again, they must agree with it."""


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
    labels: tuple[str, ...] = ()


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
    license: str = ""
    """An SPDX name, such as `MIT`; a package needs one."""
    instances: str = "single"
    config_schema: Mapping[str, Any] = field(default_factory=dict)
    """JSON Schema `properties` of the plugin's own settings."""
    capabilities: tuple[CapabilitySpec, ...] = ()
    subscribes: tuple[SubscriptionSpec, ...] = ()
    publishes: tuple[str, ...] = ()
    permissions: Permissions = field(default_factory=Permissions)
    quotas: Quotas = field(default_factory=Quotas)
    storage_version: int = 1
    """Of the data that it keeps in the host's storage."""
    sandbox: str = ""
    """`strict` where it wants no less, although it is first-party."""
    placement: str = ""
    """`cloud` where it says that data leaves the machine; that none does is not believed."""
    dynamic: bool = False
    """Whether it tells at Init what it offers: no file says so, the host does of MCP servers."""

    @property
    def name(self) -> str:
        return self.id.partition("/")[2]

    @property
    def offers_by_types(self) -> bool:
        """Whether it lists nothing: the types of its component, or its Init, tell."""
        listed = self.capabilities or self.subscribes
        wasm = isinstance(self.entry, str) and self.entry.endswith(".wasm")
        return self.dynamic or (wasm and not listed)


def load_manifest(path: Path) -> Manifest:
    """Read and check one `plugin.toml`.

    Raises:
        ManifestError: it cannot be read or is wrong; names file, key and fix.
        ProtocolMismatch: it was written for a newer api.
    """
    return parse_manifest(read_toml(path, ManifestError), path)


def parse_manifest(data: Mapping[str, Any], path: Path) -> Manifest:
    """The checked form of a parsed `plugin.toml`. Raises as `load_manifest`."""
    where = str(path)
    head = take.table(data, "plugin", where)
    _check_api(head, where)
    check_keys(data, TABLES[""], where, ManifestError)
    check_keys(head, TABLES["plugin"], f"{where} [plugin]", ManifestError)
    tier = take.choice(head, "tier", TIERS, where)
    events = take.optional(data, "events", where)
    check_keys(events, TABLES["events"], f"{where} [events]", ManifestError)
    try:
        quotas = parse_quotas(take.optional(data, "quotas", where))
    except ValueError as error:
        raise ManifestError(f"{where} [quotas]: {error}") from error
    wants = take.optional(data, "permissions", where)
    capabilities = _capabilities(data, where)
    subscribes = tuple(_subscription(t, where) for t in take.tables(events, "subscribes", where))
    _check_declared(wants, "provide", [spec.name for spec in capabilities], where)
    _check_declared(wants, "subscribe", [spec.topic for spec in subscribes], where)
    return Manifest(
        id=_plugin_id(head, where),
        version=take.text(head, "version", where),
        type=take.choice(head, "type", TYPES, where),
        tier=tier,
        tiers=_tiers(head, tier, where),
        entry=_entry(head, where),
        folder=path.parent,
        description=take.word(head, "description", where),
        license=take.word(head, "license", where),
        instances=take.choice(head, "instances", ("single", "pool"), where, "single"),
        sandbox=take.choice(head, "sandbox", ("", "strict"), where),
        placement=take.choice(head, "placement", ("", "local", "cloud"), where),
        config_schema=_config_schema(take.optional(data, "config", where), where),
        capabilities=capabilities,
        subscribes=subscribes,
        publishes=_publishes(events, wants, where),
        permissions=_permissions(wants, where),
        quotas=quotas,
        storage_version=_storage_version(take.optional(data, "storage", where), where),
    )


def _storage_version(table: Mapping[str, Any], where: str) -> int:
    check_keys(table, TABLES["storage"], f"{where} [storage]", ManifestError)
    return take.whole(table, "version", f"{where} [storage]")


def _check_api(head: Mapping[str, Any], where: str) -> None:
    api = take.text(head, "api", where)
    if api != API_VERSION:
        raise ProtocolMismatch(
            f"{where} asks for api {api}, this host speaks {API_VERSION}: "
            "upgrade loom-host, or use the plugin's older release",
            plugin_id=str(head.get("id", "")),
        )


def _plugin_id(head: Mapping[str, Any], where: str) -> str:
    value = take.text(head, "id", where)
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*/[a-z0-9][a-z0-9-]*", value):
        raise ManifestError(
            f"{where}: id = {value!r} must be publisher/name in lower case letters, "
            "digits and dashes, such as 'acme/weather'"
        )
    return value


def _tiers(head: Mapping[str, Any], tier: str, where: str) -> tuple[str, ...]:
    tiers = take.texts(head, "tiers", where) if "tiers" in head else (tier,)
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
    found = [_capability(table, where) for table in take.tables(data, "capability", where)]
    names = [spec.name for spec in found]
    for name in names:
        if names.count(name) > 1:
            raise ManifestError(f"{where}: capability {name!r} is listed twice: remove one")
    return tuple(found)


def _capability(table: Mapping[str, Any], where: str) -> CapabilitySpec:
    check_keys(table, TABLES["capability"], f"{where} [[capability]]", ManifestError)
    name = take.capability_name(take.text(table, "name", f"{where} [[capability]]"), where)
    place = f"{where} {name}"
    effects: Any = take.choice(table, "effects", EFFECTS, place, "once")
    return CapabilitySpec(
        name=name,
        version=take.word(table, "version", place),
        description=take.word(table, "description", place),
        tool=take.flag(table, "tool", place),
        effects=effects,
        input_schema=take.schema(table, "input", place),
        output_schema=take.schema(table, "output", place),
        resumable=take.flag(table, "resumable", place),
        examples=take.examples(table, TABLES["capability.examples"], place),
    )


def _subscription(table: Mapping[str, Any], where: str) -> SubscriptionSpec:
    place = f"{where} [[events.subscribes]]"
    check_keys(table, TABLES["events.subscribes"], place, ManifestError)
    topic = take.text(table, "topic", place)
    _patterns((topic,), place)
    qos = take.choice(table, "qos", ("realtime", "batched", "background"), place, "batched")
    concurrency = take.whole(table, "concurrency", place)
    return SubscriptionSpec(topic, QoS[qos.upper()], take.texts(table, "types", place), concurrency)


def _patterns(patterns: tuple[str, ...], where: str) -> tuple[str, ...]:
    for pattern in patterns:
        try:
            check_pattern(pattern)
        except BusError as error:
            raise ManifestError(f"{where}: {error}") from error
    return patterns


def _publishes(events: Mapping[str, Any], wants: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Of [events] and of [permissions]: either place will do."""
    listed = take.texts(events, "publishes", where)
    more = take.texts(wants, "publish", f"{where} [permissions]")
    both = (*listed, *(topic for topic in more if topic not in listed))
    return _patterns(both, f"{where} [events] publishes")


def _check_declared(wants: Mapping[str, Any], kind: str, declared: list[str], where: str) -> None:
    if kind not in wants:
        return
    said = take.texts(wants, kind, f"{where} [permissions]")
    for name in {*said} ^ {*declared}:
        missing = "[permissions]" if name in declared else _DECLARED[kind]
        raise ManifestError(
            f"{where} [permissions] {kind}: {name!r} is not under {missing}: add it there, or "
            f"leave {kind} out of [permissions], since {_DECLARED[kind]} asks for it already"
        )


def _check_rule(text: str) -> None:
    from .network import parse_rule  # few plugins ask for it

    parse_rule(text)


def _permissions(table: Mapping[str, Any], where: str) -> Permissions:
    place = f"{where} [permissions]"
    check_keys(table, TABLES["permissions"], place, ManifestError)
    values: dict[str, Any] = {}
    for key in (key for key in PERMISSIONS if key in table):
        values[key] = (take.flag if key == "storage" else take.texts)(table, key, place)
    try:
        for text in values.get("network", ()):
            check_socket(text) if is_socket(text) else _check_rule(text)
        for text in values.get("filesystem", ()):
            check_ask(text)
        check_labels(values.get("labels", ()))
    except ValueError as error:
        raise ManifestError(f"{place}: {error}") from error
    return Permissions(**values)
