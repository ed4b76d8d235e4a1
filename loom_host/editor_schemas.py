"""JSON Schema of `plugin.toml` and `loom.toml`, for editors; made from what the host reads."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from . import manifest, settings
from .grants import KINDS
from .quotas import Quotas

DRAFT = "http://json-schema.org/draft-07/schema#"
"""What the common editors' TOML support understands."""
TEXT: dict[str, Any] = {"type": "string"}
TEXTS: dict[str, Any] = {"type": "array", "items": TEXT}
YES_NO: dict[str, Any] = {"type": "boolean"}
WHOLE: dict[str, Any] = {"type": "integer", "minimum": 1}
SCHEMA: dict[str, Any] = {"type": "object"}
_CAPABILITY: dict[str, Any] = {
    "name": TEXT, "version": TEXT, "description": TEXT, "tool": YES_NO,
    "effects": {"enum": list(manifest.EFFECTS)}, "input": SCHEMA, "output": SCHEMA,
    "examples": {"type": "array", "items": SCHEMA}, "resumable": YES_NO,
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
        "capability": {"type": "array", "items": _closed(_CAPABILITY, ["name"])},
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
    return {"$schema": DRAFT, "title": "plugin.toml of Loom"} | _closed(tables, ["plugin"])


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
    properties: dict[str, Any] = {"extends": {"enum": ["voice", "text"]}}
    hints = typing.get_type_hints(settings.Settings)
    for item in fields(settings.Settings):
        if item.name != "path":
            properties[item.name] = _of(hints[item.name])
    allow = _closed({kind: {"anyOf": [TEXTS, YES_NO]} for kind in KINDS})
    plugin = properties["plugins"]["additionalProperties"]["properties"]
    plugin |= {
        "allow": allow,
        "quotas": _quotas(),
        "config": SCHEMA,
        "mcp": {"anyOf": [TEXT, TEXTS]},
    }
    agent = properties["agents"]["additionalProperties"]["properties"]
    agent.pop("policy", None)  # their keys are those of `parameters`
    agent["parameters"] = SCHEMA
    return {"$schema": DRAFT, "title": "loom.toml"} | _closed(properties)


def _of(kind: Any) -> dict[str, Any]:
    """JSON Schema of a settings type."""
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return _closed({item.name: _of(hints[item.name]) for item in fields(kind)})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return {"type": "array", "items": _of(arguments[0])}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _of(arguments[1])}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_of(part) for part in arguments]}
    simple = {str: "string", bool: "boolean", int: "integer", float: "number", Path: "string"}
    return {"type": simple[kind]} if kind in simple else {}


def _quotas() -> dict[str, Any]:
    size = {"anyOf": [{"type": "number"}, TEXT], "description": 'a number, or such as "64MiB"'}
    return _closed({item.name: size for item in fields(Quotas)})


def _closed(properties: Mapping[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    closed: dict[str, Any] = {
        "type": "object", "properties": dict(properties), "additionalProperties": False,
    }  # fmt: skip
    return closed | ({"required": required} if required else {})
