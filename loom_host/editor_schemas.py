"""JSON Schema of `plugin.toml` and `loom.toml`, for editors; made from what the host reads."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from . import editor_words as words
from . import manifest, settings
from .client_settings import QUOTAS as CLIENT_QUOTAS
from .config import PROFILES
from .editor_words import field_docs
from .grants import KINDS
from .quotas import Quotas

DRAFT = "http://json-schema.org/draft-07/schema#"
"""What the common editors' TOML support understands."""
TEXT: dict[str, Any] = {"type": "string"}
TEXTS: dict[str, Any] = {"type": "array", "items": TEXT}
YES_NO: dict[str, Any] = {"type": "boolean"}
WHOLE: dict[str, Any] = {"type": "integer", "minimum": 1}
SCHEMA: dict[str, Any] = {"type": "object"}
_QUOTA: dict[str, Any] = {"anyOf": [{"type": "number"}, TEXT]}
_CHOICES = {
    "host.marshal": settings.MARSHALS,
    "telemetry.log_level": ("debug", "info", "warning", "error"),
    "telemetry.log_format": ("text", "json"),
    "plugins.tier": manifest.TIERS,
    "plugins.start": ("eager", "background"),
    "plugins.isolation": ("thread", "process"),
    "plugins.marshal": settings.MARSHALS,
    "plugins.sandbox": settings.SANDBOXES,
    "plugins.privacy": settings.PRIVACY,
    "agents.parameters.routing.privacy": settings.PRIVACY,
}
"""Keys of `loom.toml` with few values."""
_EXAMPLE: dict[str, Any] = {
    "question": TEXT, "arguments": SCHEMA, "output": {}, "error": TEXT, "slow": YES_NO,
}  # fmt: skip
_CAPABILITY: dict[str, Any] = {
    "name": TEXT, "version": TEXT, "description": TEXT, "tool": YES_NO,
    "effects": {"enum": list(manifest.EFFECTS)}, "input": SCHEMA, "output": SCHEMA,
    "resumable": YES_NO,
}  # fmt: skip
_SUBSCRIPTION: dict[str, Any] = {
    "topic": TEXT, "qos": {"enum": ["realtime", "batched", "background"]}, "types": TEXTS,
    "concurrency": WHOLE,
}  # fmt: skip


def plugin_schema() -> dict[str, Any]:
    """Of `plugin.toml`."""
    permissions = dict.fromkeys(manifest.TABLES["permissions"], TEXTS) | {"storage": YES_NO}
    known: dict[str, Any] = {
        "plugin": _head(),
        "config": {"type": "object", "additionalProperties": SCHEMA},
        "capability": {"type": "array", "items": _capability()},
        "events": _closed(
            {
                "subscribes": {"type": "array", "items": _closed(_SUBSCRIPTION, ["topic"])},
                "publishes": TEXTS,
            }
        ),
        "permissions": _closed(permissions),
        "quotas": _quotas(),
        "storage": _closed({"version": WHOLE}),
    }
    tables = {name: known[name] for name in manifest.TABLES[""]}
    schema = {"$schema": DRAFT, "title": "plugin.toml of Loom"} | _closed(tables, ["plugin"])
    return _described(schema, words.PLUGIN)


def _capability() -> dict[str, Any]:
    examples = {"type": "array", "items": _closed(_EXAMPLE)}
    return _closed(_CAPABILITY | {"examples": examples}, ["name"])


def _head() -> dict[str, Any]:
    special: dict[str, Any] = {
        "id": {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]*/[a-z0-9][a-z0-9-]*$"},
        "type": {"enum": list(manifest.TYPES)},
        "tier": {"enum": list(manifest.TIERS)},
        "tiers": {"type": "array", "items": {"enum": list(manifest.TIERS)}},
        "entry": {"anyOf": [TEXT, TEXTS]},
        "instances": {"enum": ["single", "pool"]},
        "sandbox": {"enum": ["strict"]},
        "placement": {"enum": ["local", "cloud"]},
    }
    properties = {key: special.get(key, TEXT) for key in manifest.TABLES["plugin"]}
    return _closed(properties, ["id", "version", "api", "type", "tier", "entry"])


def loom_schema() -> dict[str, Any]:
    """Of `loom.toml`."""
    profiles = sorted(path.stem for path in PROFILES.glob("*.toml"))
    properties: dict[str, Any] = {"extends": {"enum": profiles}}
    hints, docs = typing.get_type_hints(settings.Settings), field_docs(settings.Settings)
    for item in fields(settings.Settings):
        if item.name != "path":
            properties[item.name] = _of(hints[item.name]) | _text(docs.get(item.name))
    _plugins(properties["plugins"]["additionalProperties"]["properties"])
    _agents(properties["agents"]["additionalProperties"]["properties"])
    _clients(properties["clients"]["additionalProperties"]["properties"])
    for place, values in _CHOICES.items():
        _extend(properties, place, {"enum": list(values)})
    schema = {"$schema": DRAFT, "title": "loom.toml"} | _closed(properties)
    return _described(schema, words.LOOM)


def _plugins(table: dict[str, Any]) -> None:
    yes_or = {"anyOf": [TEXTS, YES_NO]}
    table |= {
        "allow": _closed({kind: yes_or | _text(words.ALLOW.get(kind)) for kind in KINDS}),
        "quotas": _quotas(),
        "config": SCHEMA,
        "mcp": {"anyOf": [TEXT, TEXTS]} | _text(table["mcp"].get("description")),
    }


def _agents(table: dict[str, Any]) -> None:
    """`routing` and `tools` are read from its parameters, beside the plugin's own settings."""
    own = {"routing": table.pop("policy"), "tools": table.pop("tools")}
    table["parameters"] = {"type": "object", "properties": own}


def _clients(table: dict[str, Any]) -> None:
    table["allow"] = _closed({"invoke": table.pop("invoke")})
    known = _quotas()["properties"]
    table["quotas"] = _closed({key: known[key] for key in CLIENT_QUOTAS})


def _extend(properties: dict[str, Any], place: str, more: Mapping[str, Any]) -> None:
    """Add to the schema of a key, by its dotted name without the names of plugins and agents.

    It gets a schema of its own, as many keys share one.
    """
    *above, last = place.split(".")
    for name in above:
        found = properties[name]
        while "properties" not in found:  # a table by names, or a list of tables
            found = found.get("items") or found["additionalProperties"]
        properties = found["properties"]
    properties[last] = properties[last] | more


def _described(schema: dict[str, Any], told: Mapping[str, str]) -> dict[str, Any]:
    for place, text in told.items():
        _extend(schema["properties"], place, {"description": text})
    return schema


def _of(kind: Any) -> dict[str, Any]:
    """JSON Schema of a settings type."""
    if is_dataclass(kind) and isinstance(kind, type):
        hints, docs = typing.get_type_hints(kind), field_docs(kind)
        return _closed(
            {item.name: _of(hints[item.name]) | _text(docs.get(item.name)) for item in fields(kind)}
        )
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return {"type": "array", "items": _of(arguments[0])}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _of(arguments[1])}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_of(part) for part in arguments]}
    simple = {str: "string", bool: "boolean", int: "integer", float: "number", Path: "string"}
    return {"type": simple[kind]} if kind in simple else {}


def _text(text: str | None) -> dict[str, str]:
    return {"description": text} if text else {}


def _quotas() -> dict[str, Any]:
    docs = field_docs(Quotas) | words.QUOTAS
    return _closed(
        {
            item.name: _QUOTA | _text(f"{docs[item.name]} A number, or text such as 64MiB.")
            for item in fields(Quotas)
        }
    )


def _closed(properties: Mapping[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    closed: dict[str, Any] = {
        "type": "object", "properties": dict(properties), "additionalProperties": False,
    }  # fmt: skip
    return closed | ({"required": required} if required else {})
