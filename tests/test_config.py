"""`loom.toml`: profiles, merging, and every wrong value told with its key and its fix."""

from __future__ import annotations

import math
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from loom_host.config import load_settings, merge, parse_settings
from loom_host.quotas import Quotas, parse_quotas, parse_size, tightest
from loom_host.settings import (
    AgentSettings,
    HostSettings,
    PluginSettings,
    Policy,
    RoutingSettings,
    SecretSettings,
    Settings,
    TelemetrySettings,
)
from loom_sdk.errors import ConfigError, LoomError


def test_no_file_gives_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/d")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/r")
    settings = load_settings()
    assert settings.plugins == {}
    assert settings.host == HostSettings(Path("/d/loom"), Path("/c/loom"), Path("/r/loom"))
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name)
    host = load_settings().host
    assert host.data_dir == Path.home() / ".local/share/loom"
    assert host.runtime_dir == Path(f"/tmp/loom-{os.getuid()}/loom")


def test_every_key_is_read(tmp_path: Path) -> None:
    path = tmp_path / "loom.toml"
    path.write_text(
        """
        [host]
        data_dir = "data"
        plugin_paths = ["mine"]
        publish_wait_ms = 10
        require_enforced = true
        [telemetry]
        sample_ratio = 1
        log_level = "debug"
        [plugins.weather]
        tier = "wasm"
        quality = 1
        allow = { network = ["https://a"], storage = true, publish = [] }
        config = { units = "kelvin" }
        quotas = { memory = "1MiB" }
        [providers]
        "weather.get" = "weather"
        [roles]
        vad = ["vad"]
        [agents.voice]
        plugin = "voice-agent"
        parameters.routing = { privacy = "private", latency_budget_ms = 50 }
        [secrets.token]
        command = ["pass", "token"]
        """
    )
    settings = load_settings(path)
    assert settings.path == path
    assert settings.host.data_dir == tmp_path / "data"
    assert settings.host.plugin_paths == (str(tmp_path / "mine"),)
    assert settings.telemetry == TelemetrySettings(log_level="debug")
    assert isinstance(settings.telemetry.sample_ratio, float)
    weather = settings.plugins["weather"]
    assert weather.allow == {"network": ("https://a",), "storage": ("own",), "publish": ()}
    assert (weather.config, weather.quotas) == ({"units": "kelvin"}, {"memory": "1MiB"})
    assert settings.providers == {"weather.get": ("weather",)}
    assert settings.agents["voice"] == AgentSettings("voice-agent", Policy("private", 50.0))
    assert settings.secrets["token"].command == ("pass", "token")


def test_storage_false_grants_nothing() -> None:
    settings = parse_settings({"plugins": {"p": {"allow": {"storage": False}}}})
    assert settings.plugins["p"].allow == {"storage": ()}


def test_a_file_changes_single_keys_of_its_profile(tmp_path: Path) -> None:
    path = tmp_path / "loom.toml"
    path.write_text('extends = "voice"\n[plugins.stt-whisper]\ntier = "native"\n')
    settings = load_settings(path, {"roles": {"wake": ["wake-phrase"]}})
    profile = load_settings(None, {"extends": "voice"})
    assert settings.plugins["stt-whisper"].tier == "native"
    assert settings.plugins["stt-whisper"].allow == profile.plugins["stt-whisper"].allow
    assert settings.roles["wake"] == ("wake-phrase",)
    assert set(settings.plugins) == set(profile.plugins)


@pytest.mark.parametrize("name", ["text", "voice"])
def test_every_profile_is_right(name: str) -> None:
    assert load_settings(None, {"extends": name}).plugins


@pytest.mark.parametrize("name", ["voicee", "../profiles/voice", 5, ["voice"], None])
def test_an_unknown_profile_is_told(name: Any) -> None:
    with pytest.raises(ConfigError, match="no such profile; known: assistant, text, voice"):
        load_settings(None, {"extends": name})


@pytest.mark.parametrize(("content", "told"), [(b"[host", "is not TOML"), (b"\xff", "is not TOML")])
def test_an_unreadable_file_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "loom.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=told):
        load_settings(path)
    with pytest.raises(ConfigError, match="No such file"):
        load_settings(tmp_path / "other.toml")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"hots": {}}, "unknown key 'hots'; did you mean 'host'"),
    ({"path": "x"}, "unknown key 'path'"),
    ({"host": 5}, "host must be a table"),
    ({"host": {"control": 1}}, "must be a true or false"),
    ({"host": {"publish_wait_ms": "1"}}, "must be a whole number"),
    ({"host": {"publish_wait_ms": True}}, "must be a whole number"),
    ({"host": {"publish_wait_ms": -1}}, "not negative"),
    ({"host": {"data_dir": 1}}, "must be a text"),
    ({"host": {"plugin_paths": "x"}}, "must be a list of texts"),
    ({"extend": "text"}, "did you mean 'extends'"),
    ({"telemetry": {"http_port": 65536}}, "from 0 to 65535"),
    ({"telemetry": {"sample_ratio": 1.5}}, "from 0 to 1"),
    ({"telemetry": {"sample_ratio": math.nan}}, "finite"),
    ({"telemetry": {"sample_ratio": "1"}}, "must be a number"),
    ({"telemetry": {"log_level": "loud"}}, "debug, info, warning or error"),
    ({"telemetry": {"log_format": "xml"}}, "text or json"),
    ({"plugins": []}, "plugins must be a table"),
    ({"plugins": {"p": 1}}, "p must be a table"),
    ({"plugins": {"p": {"tire": "wasm"}}}, "did you mean 'tier'"),
    ({"plugins": {"p": {"tier": "docker"}}}, "native, wasm or grpc"),
    ({"plugins": {"p": {"start": "later"}}}, "'eager' or 'background'"),
    ({"plugins": {"p": {"isolation": "vm"}}}, "'thread' or 'process'"),
    ({"plugins": {"p": {"marshal": "fast"}}}, "'direct' or 'stock'"),
    ({"host": {"marshal": ""}}, "'direct' or 'stock'"),
    ({"plugins": {"p": {"sandbox": "tight"}}}, "one of strict, standard, none"),
    ({"plugins": {"p": {"privacy": "secret"}}}, "privacy: must be one of public, sensitive"),
    ({"plugins": {"p": {"allow": {"labels": ["public"]}}}}, "write one of private, local-only"),
    ({"plugins": {"p": {"idle_s": -1}}}, "not negative"),
    ({"plugins": {"p": {"quality": 1.1}}}, "from 0 to 1"),
    ({"plugins": {"p": {"allow": 1}}}, "allow must be a table"),
    ({"plugins": {"p": {"allow": {"subscribes": []}}}}, "did you mean 'subscribe'"),
    ({"plugins": {"p": {"allow": {"publish": "a"}}}}, "must be a list of texts"),
    ({"plugins": {"p": {"allow": {"publish": True}}}}, "must be a list of texts"),
    ({"plugins": {"p": {"config": "x"}}}, "config must be a table"),
    ({"plugins": {"p": {"quotas": 1}}}, "quotas must be a table"),
    ({"plugins": {"p": {"quotas": {"memry": 1}}}}, "did you mean 'memory'"),
    ({"plugins": {"p": {"quotas": {"deadline_ms": 0}}}}, "at least 1"),
    ({"providers": 1}, "providers must be a table"),
    ({"providers": {"a.b": 1}}, "must be a list of plugin names"),
    ({"roles": {"vad": [1]}}, "must be a list of plugin names"),
    ({"agents": {"v": {"plugin": 1}}}, "must be a text"),
    ({"agents": {"v": {"plugins": ""}}}, "did you mean 'plugin'"),
    ({"agents": {"v": {"parameters": 1}}}, "parameters must be a table"),
    ({"agents": {"v": {"parameters": {"rooting": {}}}}}, "did you mean 'routing'"),
    ({"agents": {"v": {"parameters": {"routing": 1}}}}, "routing must be a table"),
    ({"agents": {"v": {"parameters": {"routing": {"privacy": "x"}}}}}, "must be one of public"),
    ({"routing": {"failure": 1}}, "did you mean 'failures'"),
    ({"routing": {"failures": 0}}, "failures: must be above 0"),
    ({"routing": {"open_s": 0}}, "open_s: must be above 0"),
    ({"routing": {"half_life_s": 0.0}}, "half_life_s: must be above 0"),
    ({"routing": {"first_item_ms": -1}}, "not negative"),
    ({"secrets": {"t": {}}}, "exactly one of env, file and command"),
    ({"secrets": {"t": {"env": "A", "file": "b"}}}, "exactly one"),
    ({"secrets": {"t": {"command": "pass"}}}, "must be a list of texts"),
]


@pytest.mark.parametrize(("data", "told"), WRONG, ids=[str(row[0]) for row in WRONG])
def test_what_is_wrong_is_told(data: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings(data, Path("/etc/loom.toml"))
    assert told in caught.value.message
    assert "/etc/loom.toml" in caught.value.message


KNOWN = {
    (): Settings, ("host",): HostSettings, ("telemetry",): TelemetrySettings,
    ("plugins", "p"): PluginSettings, ("secrets", "s"): SecretSettings,
    ("agents", "a", "parameters", "routing"): Policy, ("routing",): RoutingSettings,
}  # fmt: skip


def at(place: tuple[str, ...], table: dict[str, Any]) -> dict[str, Any]:
    for key in reversed(place):
        table = {key: table}
    return table


@runs(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(KNOWN)), st.text(min_size=1, max_size=12))
def test_an_unknown_key_is_always_an_error(place: tuple[str, ...], key: str) -> None:
    if key in {item.name for item in fields(KNOWN[place])}:
        return
    with pytest.raises(ConfigError, match="unknown key"):
        parse_settings(at(place, {key: 1}))


@pytest.mark.parametrize("place", sorted(KNOWN))
def test_a_typo_is_answered_with_the_right_key(place: tuple[str, ...]) -> None:
    names = {item.name for item in fields(KNOWN[place])} - {"path"}
    for name in names:
        with pytest.raises(ConfigError, match=f"did you mean '{name}'"):
            parse_settings(at(place, {name + "z": 1}))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@runs(max_examples=25, deadline=None)
@given(
    st.sampled_from(
        [(*place, item.name) for place, kind in KNOWN.items() for item in fields(kind)]
    ),
    VALUES,
)
def test_any_value_gives_settings_or_a_config_error(place: tuple[str, ...], value: Any) -> None:
    *parents, key = place
    try:
        parse_settings(at(tuple(parents), {key: value}))
    except ConfigError as error:
        assert error.message


@runs(max_examples=25, deadline=None)
@given(st.dictionaries(st.text(max_size=8) | st.just("extends"), VALUES))
def test_any_table_gives_settings_or_a_loom_error(data: dict[str, Any]) -> None:
    try:
        load_settings(None, data)
    except LoomError as error:
        assert error.message


TABLES = st.recursive(
    st.integers(),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
).filter(lambda value: isinstance(value, dict))


@runs(max_examples=25, deadline=None)
@given(TABLES, TABLES)
def test_merging_replaces_all_but_tables(base: Any, changes: Any) -> None:
    merged = merge(base, changes)
    assert merge(base, {}) == base
    assert merge(base, base) == base
    assert merged.keys() == base.keys() | changes.keys()
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        assert merged[key] == (merge(base[key], value) if both else value)


# Quotas are settings too.

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
UNITS |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@runs(max_examples=25, deadline=None)
@given(st.integers(0, 10**12), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " ", "  "]))
def test_sizes_with_units(count: int, unit: str, space: str) -> None:
    assert parse_size(f"{count}{space}{unit}") == count * UNITS[unit]
    assert parse_size(f"{count}{space}{unit.lower()}") == count * UNITS[unit]
    assert parse_size(count) == count


@runs(max_examples=25, deadline=None)
@given(VALUES)
def test_any_size_is_a_number_or_a_value_error(value: Any) -> None:
    try:
        assert parse_size(value) >= 0
    except ValueError as error:
        assert "is not a size" in str(error)


@pytest.mark.parametrize("value", ["", "1 XB", "-1", "1.5MiB", True, -1, None, "MiB", "1 MiB!"])
def test_what_is_no_size(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(value)


@runs(max_examples=25, deadline=None)
@given(st.sampled_from([item.name for item in fields(Quotas)]), VALUES)
def test_any_quota_is_kept_or_told(name: str, value: Any) -> None:
    try:
        quotas = parse_quotas({name: value})
    except ValueError as error:
        assert str(error)
    else:
        assert 0 <= getattr(quotas, name) < math.inf


def test_the_operator_overrules_key_by_key() -> None:
    asked = Quotas(memory=10, concurrency=4)
    assert tightest(asked, {"memory": "1KB", "cpu": 1}) == Quotas(1000, 1.0, concurrency=4)
