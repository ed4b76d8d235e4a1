"""What editors know of `plugin.toml` and `loom.toml` is what the host reads."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from loom_host import load_settings, manifest, settings
from loom_host.editor_schemas import loom_schema, plugin_schema
from loom_host.grants import KINDS
from loom_host.quotas import Quotas
from loom_host.scaffold import Wish, create
from loom_sdk.errors import LoomError

from .support import ROOT

MAPS_OF_TABLES = ("plugins", "agents", "clients", "secrets")


def table_at(schema: dict[str, Any], place: str) -> dict[str, Any]:
    """The properties of a table, through names and lists of tables."""
    for name in filter(None, place.split(".")):
        schema = schema["properties"][name]
        while "properties" not in schema:
            schema = schema.get("items") or schema["additionalProperties"]
    found: dict[str, Any] = schema["properties"]
    return found


@pytest.mark.parametrize("table", manifest.TABLES)
def test_every_table_of_a_manifest_has_the_keys_that_are_read(table: str) -> None:
    assert set(table_at(plugin_schema(), table)) == set(manifest.TABLES[table])


def test_quotas_and_grants_are_those_of_the_host() -> None:
    quotas = {item.name for item in fields(Quotas)}
    assert set(table_at(plugin_schema(), "quotas")) == quotas
    assert set(table_at(loom_schema(), "plugins.quotas")) == quotas
    assert set(table_at(loom_schema(), "plugins.allow")) == set(KINDS)


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("host", settings.HostSettings),
        ("telemetry", settings.TelemetrySettings),
        ("plugins", settings.PluginSettings),
        ("routing", settings.RoutingSettings),
        ("agents.parameters.routing", settings.Policy),
        ("agents.parameters.tools", settings.ToolPolicy),
        ("secrets", settings.SecretSettings),
        ("storage", settings.StorageSettings),
        ("event_log", settings.EventLogSettings),
    ],
)
def test_every_table_of_the_settings_has_the_keys_that_are_read(place: str, kind: Any) -> None:
    assert set(table_at(loom_schema(), place)) == {item.name for item in fields(kind)}


def test_every_table_of_the_settings_is_there() -> None:
    top = {item.name for item in fields(settings.Settings)} - {"path"} | {"extends"}
    assert set(loom_schema()["properties"]) == top


def samples(schema: dict[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Each key with a value that the schema allows, as a small `loom.toml`."""
    for name, part in schema.get("properties", {}).items():
        inner = f"{place}.{name}".removeprefix(".")
        if inner in MAPS_OF_TABLES:
            yield from samples(part["additionalProperties"], f"{inner}.x")
        elif "properties" in part:
            yield from samples(part, inner)
        else:
            yield inner, part


KEYS = dict(samples(loom_schema()))


@pytest.mark.parametrize("key", KEYS)
def test_the_host_knows_every_key_that_editors_offer(key: str) -> None:
    part = KEYS[key].get("anyOf", [KEYS[key]])[0]
    kinds = {"string": "", "integer": 1, "number": 1, "boolean": False, "array": [], "object": {}}
    value = part["enum"][0] if "enum" in part else kinds[part.get("type", "string")]
    tables: dict[str, Any] = {}
    *above, last = key.split(".")
    inner = tables
    for name in above:
        inner = inner.setdefault(name, {})
    inner[last] = value
    assert jsonschema_rs.validator_for(loom_schema()).is_valid(tables)
    try:
        load_settings(None, tables)
    except LoomError as error:  # the value may be refused, the key not
        assert "unknown" not in error.message


def test_a_key_that_the_host_does_not_know_is_none_for_editors() -> None:
    validator = jsonschema_rs.validator_for(loom_schema())
    for table in ("host", "telemetry", "routing", "storage", "event_log"):
        assert not validator.is_valid({table: {"no_such_key": 1}})
    for table in MAPS_OF_TABLES:
        assert not validator.is_valid({table: {"x": {"no_such_key": 1}}})
    assert not validator.is_valid({"clients": {"x": {"invoke": ["*"]}}})
    assert validator.is_valid({"clients": {"x": {"allow": {"invoke": ["*"]}}}})


def undescribed(schema: dict[str, Any], place: str = "") -> Iterator[str]:
    for name, part in schema.get("properties", {}).items():
        inner = f"{place}.{name}".removeprefix(".")
        if "description" not in part:
            yield inner
        yield from undescribed(part, inner)
        for below in (part.get("items"), part.get("additionalProperties")):
            if isinstance(below, dict):
                yield from undescribed(below, inner)


@pytest.mark.parametrize("schema", [plugin_schema(), loom_schema()], ids=["plugin", "loom"])
def test_every_key_is_described_for_who_points_at_it(schema: dict[str, Any]) -> None:
    jsonschema_rs.meta.validate(schema)
    assert list(undescribed(schema)) == []


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("loom.toml")), ids=str)
def test_the_examples_fit(path: Path) -> None:
    data = tomllib.loads(path.read_text())
    wrong = jsonschema_rs.validator_for(loom_schema()).iter_errors(data)
    assert [error.message for error in wrong] == []


def test_keys_that_share_a_form_have_descriptions_of_their_own() -> None:
    for schema in (plugin_schema(), loom_schema()):
        head = table_at(schema, "plugin" if "plugin" in schema["properties"] else "host")
        told = [part["description"] for part in head.values()]
        assert len(set(told)) == len(told)


@pytest.mark.parametrize("lang", ["python", "c", "javascript", "zig"])
def test_a_new_plugin_names_the_schema_beside_it(lang: str, tmp_path: Path) -> None:
    create(Wish("greeter", lang=lang), tmp_path / "greeter")
    manifest_text = (tmp_path / "greeter" / "plugin.toml").read_text()
    assert manifest_text.startswith("#:schema ./plugin.schema.json\n")
    beside = json.loads((tmp_path / "greeter" / "plugin.schema.json").read_text())
    assert beside == plugin_schema()
    assert jsonschema_rs.validator_for(beside).is_valid(tomllib.loads(manifest_text))
