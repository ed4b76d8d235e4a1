"""`plugin.toml`: what is right is read whole; what is wrong is told with file, key and fix."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from loom_host.discovery import find_manifests, first_party_root
from loom_host.manifest import TABLES, load_manifest, parse_manifest
from loom_sdk import QoS
from loom_sdk.errors import LoomError, ManifestError, ProtocolMismatch

PATH = Path("/plugins/weather/plugin.toml")
FULL: dict[str, Any] = {
    "plugin": {
        "id": "acme/weather", "version": "1.0", "api": "1", "type": "tool", "tier": "wasm",
        "tiers": ["wasm", "native"], "entry": "weather:Weather", "description": "Weather.",
        "instances": "pool", "sandbox": "strict", "placement": "cloud", "license": "MIT",
    },
    "config": {"units": {"type": "string", "default": "celsius"}},
    "capability": [
        {
            "name": "weather.get", "version": "2", "description": "Now.", "tool": True,
            "effects": "none", "input": {"type": "object"}, "output": {"type": "string"},
            "examples": [{"question": "Now?", "arguments": {}, "output": "dry", "slow": True}],
            "resumable": True,
        }
    ],
    "events": {
        "subscribes": [
            {"topic": "query", "qos": "realtime", "types": ["user.query"], "concurrency": 2}
        ],
        "publishes": ["notes.*"],
    },
    "permissions": {
        "network": ["https://api.example"], "filesystem": ["d:rw"], "env": ["A"], "secrets": ["k"],
        "invoke": ["llm.chat"], "devices": ["speaker"], "storage": True, "labels": ["private"],
        "provide": ["weather.get"], "subscribe": ["query"], "publish": ["notes.*", "alerts"],
    },
    "quotas": {"memory": "64MiB", "concurrency": 2},
    "storage": {"version": 3},
}  # fmt: skip


def changed(path: str, value: Any) -> dict[str, Any]:
    """FULL with one value replaced; `path` is keys and numbers joined by slashes."""
    data = copy.deepcopy(FULL)
    *parents, last = path.split("/")
    table: Any = data
    for key in parents:
        table = table[int(key)] if key.isdigit() else table[key]
    table[last] = value
    return data


def test_everything_is_read() -> None:
    manifest = parse_manifest(FULL, PATH)
    assert (manifest.id, manifest.name, manifest.folder) == ("acme/weather", "weather", PATH.parent)
    assert (manifest.tier, manifest.tiers) == ("wasm", ("wasm", "native"))
    capability, subscription = manifest.capabilities[0], manifest.subscribes[0]
    assert (capability.name, capability.effects, capability.tool) == ("weather.get", "none", True)
    assert (capability.version, capability.resumable) == ("2", True)
    assert capability.examples == tuple(FULL["capability"][0]["examples"])
    assert (subscription.topic, subscription.qos) == ("query", QoS.REALTIME)
    assert (subscription.types, subscription.concurrency) == (("user.query",), 2)
    assert manifest.publishes == ("notes.*", "alerts")
    assert manifest.permissions.storage
    assert manifest.storage_version == 3
    assert manifest.quotas.memory == 64 * 1024**2
    assert manifest.instances == "pool"


def test_defaults() -> None:
    head = {k: FULL["plugin"][k] for k in ("id", "version", "api", "type", "tier")}
    manifest = parse_manifest(
        {"plugin": head | {"entry": ["./run", "--child"]}, "capability": [{"name": "a.b"}]}, PATH
    )
    assert manifest.entry == ("./run", "--child")
    assert (manifest.tiers, manifest.instances) == (("wasm",), "single")
    assert manifest.capabilities[0].effects == "once"
    assert manifest.capabilities[0].input_schema is None


WRONG = [
    ("plugin", 5, "[plugin] must be a table"),
    ("plugin/id", "Weather", "publisher/name"),
    ("plugin/id", 1, "id must be a text"),
    ("plugin/version", "", "version must be a text"),
    ("plugin/type", "thing", "must be one of feature_extractor"),
    ("plugin/placement", "moon", "must be one of"),
    ("permissions/labels", ["public"], "write one of private, local-only"),
    ("plugin/tier", "docker", "must be one of native, wasm, grpc"),
    ("plugin/tiers", ["native"], "tiers must list 'wasm'"),
    ("plugin/tiers", ["wasm", "docker"], "only native, wasm, grpc"),
    ("plugin/tiers", "wasm", "must be a list of texts"),
    ("plugin/entry", [], "entry must be"),
    ("plugin/entry", ["a", 1], "entry must be"),
    ("plugin/description", 1, "description must be a text"),
    ("plugin/instances", "many", "must be one of single, pool"),
    ("config", [], "[config] must be a table"),
    ("config/units", "text", "must be a JSON Schema"),
    ("capability", {}, "[[capability]]"),
    ("capability", [1], "[[capability]]"),
    ("capability", FULL["capability"] * 2, "listed twice"),
    ("capability/0/name", "weather", "must look like 'weather.get'"),
    ("capability/0/effects", "twice", "must be one of none, idempotent, once"),
    ("capability/0/tool", "yes", "must be true or false"),
    ("capability/0/input", [], "[input] must be a table"),
    ("capability/0/examples", {}, "[[examples]]"),
    ("capability/0/examples", [{"arguments": {}, "error": 3}], "example 1: error must be a text"),
    ("capability/0/examples", [{"arguments": {}, "output": 1, "error": "X"}], "without output"),
    ("capability/0/examples", [{"question": "Why?", "error": "X"}], "error goes with arguments"),
    ("events", [], "[events] must be a table"),
    ("events/subscribes", {}, "[[subscribes]]"),
    ("events/subscribes/0/topic", "a..b", "not a topic pattern"),
    ("events/subscribes/0/qos", "fast", "must be one of realtime"),
    ("events/subscribes/0/types", "x", "must be a list of texts"),
    ("events/subscribes/0/concurrency", 0, "at least 1"),
    ("events/subscribes/0/concurrency", True, "at least 1"),
    ("events/publishes", "notes", "must be a list of texts"),
    ("events/publishes", [">.a"], "not a topic pattern"),
    ("permissions", True, "[permissions] must be a table"),
    ("permissions/network", "https://a", "must be a list of texts"),
    ("permissions/storage", ["own"], "must be true or false"),
    ("permissions/provide", ["weather.set", "weather.get"], "not under [[capability]] name: add"),
    ("permissions/provide", [], "'weather.get' is not under [permissions]: add"),
    ("permissions/subscribe", ["query", ">"], "not under [[events.subscribes]] topic: add"),
    ("permissions/publish", ["a..b"], "not a topic pattern"),
    ("quotas", 1, "[quotas] must be a table"),
    ("quotas/memory", "many", "not a size"),
    ("quotas/memori", 1, "did you mean 'memory'"),
]


@pytest.mark.parametrize(("path", "value", "told"), WRONG, ids=[f"{w[0]}={w[1]}" for w in WRONG])
def test_what_is_wrong_is_told_with_file_and_fix(path: str, value: Any, told: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(changed(path, value), PATH)
    assert str(PATH) in caught.value.message
    assert told in caught.value.message


def test_missing_table() -> None:
    with pytest.raises(ManifestError, match=r"\[plugin\] is missing"):
        parse_manifest({}, PATH)


def test_a_newer_api_is_a_mismatch_before_anything_else() -> None:
    data = changed("plugin/api", "2")
    data["later"] = {}
    with pytest.raises(ProtocolMismatch, match="upgrade loom-host") as caught:
        parse_manifest(data, PATH)
    assert caught.value.plugin_id == "acme/weather"


PLACES = {
    "": lambda data: data,
    "plugin": lambda data: data["plugin"],
    "capability": lambda data: data["capability"][0],
    "capability.examples": lambda data: data["capability"][0]["examples"][0],
    "events": lambda data: data["events"],
    "events.subscribes": lambda data: data["events"]["subscribes"][0],
    "permissions": lambda data: data["permissions"],
    "storage": lambda data: data["storage"],
}


@runs(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(PLACES)), st.text(min_size=1, max_size=12))
def test_an_unknown_key_is_always_an_error(place: str, key: str) -> None:
    data = copy.deepcopy(FULL)
    table = PLACES[place](data)
    if key in TABLES[place]:
        return
    table[key] = 1
    with pytest.raises(ManifestError, match="unknown key"):
        parse_manifest(data, PATH)


@pytest.mark.parametrize("place", sorted(PLACES))
def test_a_typo_is_answered_with_the_right_key(place: str) -> None:
    for known in TABLES[place]:
        data = copy.deepcopy(FULL)
        table = PLACES[place](data)
        table[known + "s"] = table.pop(known, None)  # no example has all keys
        if known in ("plugin", "api"):
            continue  # told before keys are looked at
        if known + "s" in TABLES[place]:
            continue
        with pytest.raises(ManifestError, match="did you mean"):
            parse_manifest(data, PATH)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
PATHS = sorted(
    {row[0] for row in WRONG}
    | {f"permissions/{key}" for key in FULL["permissions"]}
    | {f"capability/0/{key}" for key in FULL["capability"][0]}
)


@runs(max_examples=25, deadline=None)
@given(st.sampled_from(PATHS), VALUES)
def test_any_value_gives_a_manifest_or_a_loom_error(path: str, value: Any) -> None:
    try:
        parse_manifest(changed(path, value), PATH)
    except LoomError as error:
        assert error.message


@runs(max_examples=25, deadline=None)
@given(st.dictionaries(st.sampled_from(TABLES[""]) | st.text(max_size=5), VALUES))
def test_any_table_gives_a_manifest_or_a_loom_error(data: dict[str, Any]) -> None:
    try:
        parse_manifest(data, PATH)
    except LoomError as error:
        assert error.message


@runs(max_examples=25, deadline=None)
@given(st.binary(max_size=60))
def test_any_file_gives_a_manifest_error(tmp_path_factory: Any, content: bytes) -> None:
    path = tmp_path_factory.mktemp("m") / "plugin.toml"
    path.write_bytes(content)
    with pytest.raises(LoomError):
        load_manifest(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="No such file"):
        load_manifest(tmp_path / "plugin.toml")


def test_every_first_party_manifest_is_right() -> None:
    for name, manifest in find_manifests([first_party_root()]).items():
        assert manifest.folder.name == name
        assert manifest.description, name


def test_nobody_offers_in_the_hosts_name() -> None:
    data = changed("capability/0/name", "loom.caller")
    data["permissions"].pop("provide")
    with pytest.raises(ManifestError, match="names with loom. are the host's"):
        parse_manifest(data, PATH)
