"""Which plugins run, in which tier, with what grants: settings and manifests made into handles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loom_host.assembly import check_schemas, chosen, make_handle, plugin_config, roots_of
from loom_host.config import parse_settings
from loom_host.discovery import code_hash, find_manifests, first_party_root
from loom_host.manifest import Manifest, Permissions
from loom_host.settings import PluginSettings
from loom_sdk.errors import ConfigError, ManifestError, PluginLoadError
from loom_sdk.plugin import CapabilitySpec, SubscriptionSpec

from .hosting import PLUGINS

LAB = find_manifests([PLUGINS])["lab"]


def manifest(name: str, *capabilities: str, **fields: Any) -> Manifest:
    return Manifest(
        id=f"a/{name}", version="1", type="tool", tier="wasm", tiers=("wasm", "grpc"),
        entry="m:P", folder=Path(f"/p/{name}"),
        capabilities=tuple(map(CapabilitySpec, capabilities)), **fields,
    )  # fmt: skip


FOUND = {
    "one": manifest("one", "stt.transcribe"),
    "two": manifest("two", "stt.transcribe"),
    "both": manifest("both", "stt.transcribe", "tts.speak"),
    "ears": manifest("ears", "stt.transcribe", subscribes=(SubscriptionSpec("audio.mic"),)),
    "quiet": manifest("quiet"),
}


def names(**tables: Any) -> list[str]:
    tables.setdefault("plugins", {name: {} for name in FOUND})
    return chosen(parse_settings(tables), FOUND)


def test_all_with_a_table_run_in_its_order() -> None:
    assert names() == list(FOUND)
    assert names(plugins={"two": {}, "one": {}}) == ["two", "one"]
    assert names(plugins={"one": {"enabled": False}, "two": {}}) == ["two"]


def test_what_goes_with_an_engine_is_swapped_with_it() -> None:
    found = {
        "here": manifest("here", "llm.chat", "llm.count_tokens"),
        "away": manifest("away", "llm.chat", "llm.count_tokens"),
        "bare": manifest("bare", "llm.chat"),
    }

    def running(**providers: list[str]) -> list[str]:
        listed = {f"llm.{name}": names for name, names in providers.items()}
        return chosen(
            parse_settings({"plugins": {name: {} for name in found}, "providers": listed}), found
        )

    assert running(chat=["away"]) == ["away"]
    assert running(chat=["bare"]) == ["here", "away", "bare"]  # who else is to count?
    assert running(chat=["bare"], count_tokens=["here"]) == ["here", "bare"]


def test_one_line_swaps_an_engine() -> None:
    rest = ["both", "ears", "quiet"]
    assert names(providers={"stt.transcribe": ["one"]}) == ["one", *rest]
    assert names(providers={"stt.transcribe": ["two"]}) == ["two", *rest]
    assert names(providers={"stt.transcribe": ["one"], "tts.speak": ["one"]}) == [
        "one", "ears", "quiet",
    ]  # fmt: skip


def test_roles_bind_plugins() -> None:
    plugins = {"one": {"role": "wake"}, "two": {"role": "wake"}, "quiet": {}}
    assert names(plugins=plugins, roles={"wake": ["two"]}) == ["two", "quiet"]
    assert names(plugins=plugins) == ["quiet"]


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ({"plugins": {"quite": {}}}, "did you mean 'quiet'"),
        ({"plugins": {"zzz": {}}}, "add its folder to host.plugin_paths"),
        ({"plugins": {"one": {}}, "providers": {"stt.transcribe": ["onne"]}}, "did you mean 'one'"),
        (
            {"plugins": {"one": {}}, "providers": {"stt.transcribe": ["two"]}},
            r"add \[plugins.two\]",
        ),
        ({"plugins": {"one": {}}, "roles": {"wake": ["zzz"]}}, r"\[roles\] wake: 'zzz'"),
        (
            {"plugins": {"one": {}}, "providers": {"stt.transcrieb": ["one"]}},
            r"\[providers\] 'stt.transcrieb': .*did you mean 'stt.transcribe'",
        ),
        (
            {"plugins": {"one": {}}, "providers": {"zzz.y": []}},
            r"\[providers\] 'zzz.y': .*`loom plugin list`",
        ),
        (
            {"plugins": {"one": {}}, "agents": {"x": {"plugin": "onne"}}},
            r"\[agents.x\] plugin = 'onne' .*did you mean 'one'",
        ),
        (
            {"plugins": {"one": {}}, "agents": {"x": {"plugin": "zzz"}}},
            r"\[agents.x\] plugin = 'zzz' .*add \[plugins.zzz\]",
        ),
    ],
)
def test_an_unknown_name_is_told(tables: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        names(**tables)


def test_names_that_nobody_can_know_before_the_start_are_let_be() -> None:
    typed = replace(manifest("typed"), entry="typed.wasm")
    tables: dict[str, Any] = {"plugins": {"one": {}, "typed": {}}}
    tables["providers"] = {"adder.add": ["typed"], "loom.tools": ["one"]}
    assert chosen(parse_settings(tables), {**FOUND, "typed": typed}) == ["one", "typed"]
    tables["providers"] = {"adder.add": ["one"]}
    with pytest.raises(ConfigError, match="'adder.add': no plugin with a table offers it"):
        chosen(parse_settings(tables), {**FOUND, "typed": typed})


def test_what_is_switched_off_may_be_named() -> None:
    plugins = {"one": {"enabled": False}, "two": {}}
    tables: dict[str, Any] = {"plugins": plugins, "agents": {"x": {"plugin": "one"}, "y": {}}}
    assert names(**tables, providers={"stt.transcribe": ["one", "two"]}) == ["two"]


def lab_settings(**table: Any) -> Any:
    return parse_settings(
        {"host": {"data_dir": "/d", "cache_dir": "/c"}, "plugins": {"lab": table}}
    )


def test_native_code_of_strangers_needs_trust_bound_to_its_hash() -> None:
    code = code_hash(LAB.folder)
    with pytest.raises(PluginLoadError, match="native code is not isolated") as caught:
        make_handle("lab", LAB, lab_settings())
    assert code in caught.value.message
    assert 'tier = "grpc"' in caught.value.message
    for table in ({"trusted": True}, {"code": code}, {"trusted": True, "code": "sha256:0"}):
        with pytest.raises(PluginLoadError):
            make_handle("lab", LAB, lab_settings(**table))
    with pytest.raises(PluginLoadError, match="its code changed"):
        make_handle("lab", LAB, lab_settings(trusted=True, code="sha256:0"))
    handle = make_handle("lab", LAB, lab_settings(trusted=True, code=code))
    assert (handle.spec.first_party, handle.placement) == (False, "local")


def test_a_handle_has_what_the_runtime_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANG_X", "de")
    monkeypatch.setenv("LOOM_MODELS", "/m")
    asks = manifest("one", "stt.transcribe", permissions=Permissions(env=("LANG_X", "GONE_X")))
    settings = parse_settings(
        {
            "host": {"data_dir": "/d", "cache_dir": "/c"},
            "plugins": {
                "one": {
                    "tier": "grpc",
                    "quotas": {"rate": 2, "concurrency": 3},
                    "allow": {"env": ["LANG_X", "GONE_X"], "provide": ["*"]},
                }
            },
        }
    )
    spec = make_handle("one", asks, settings).spec
    assert (spec.tier, spec.id, spec.version) == ("grpc", "a/one", "1")
    assert spec.data_dir == Path("/d/plugins/a/one")
    assert spec.cache_dir == Path("/c/plugins/a/one")
    assert spec.env == {"LANG_X": "de", "LOOM_MODELS": "/m"}
    assert (spec.quotas.rate, spec.quotas.concurrency) == (2.0, 3)
    assert set(spec.grants) == {"provide:stt.transcribe", "env:LANG_X", "env:GONE_X"}


def test_isolation_is_the_operators_choice() -> None:
    stranger = manifest("one", "a.b")
    tables: dict[str, dict[str, Any]] = {"isolation": {"isolation": "thread", "idle_s": 5}, "": {}}
    own, default = (
        make_handle(
            "one", stranger, parse_settings({"plugins": {"one": {"tier": "grpc", **table}}})
        )
        for table in tables.values()
    )
    assert (own.spec.isolation, own.spec.idle_s, own.spec.confined) == ("thread", 5.0, False)
    assert (default.spec.isolation, default.spec.idle_s, default.spec.confined) == ("", 60.0, True)


def test_a_tier_that_the_plugin_does_not_claim_is_told() -> None:
    settings = parse_settings({"plugins": {"one": {"tier": "native"}}})
    with pytest.raises(ConfigError, match="claims only wasm, grpc"):
        make_handle("one", FOUND["one"], settings)


def config(own: dict[str, Any], **schema: Any) -> dict[str, Any]:
    described = manifest("p", config_schema=schema)
    return plugin_config("p", described, PluginSettings(config=own))


def test_config_gets_its_defaults_and_is_checked() -> None:
    mode = {"type": "integer", "maximum": 3, "default": 2}
    assert config({}, mode=mode, name={"type": "string"}) == {"mode": 2}
    assert config({"mode": 3}, mode=mode) == {"mode": 3}
    with pytest.raises(ConfigError, match=r"\[plugins.p.config\] mode: 4 is greater"):
        config({"mode": 4}, mode=mode)
    with pytest.raises(ConfigError, match="did you mean 'mode'"):
        config({"mod": 1}, mode=mode)
    with pytest.raises(ConfigError, match="known: none"):
        config({"mod": 1})
    with pytest.raises(ManifestError, match=r"plugin.toml \[config\]"):
        config({"mode": 1}, mode={"type": "sentence"})


def test_wrong_schemas_of_a_manifest_are_told() -> None:
    check_schemas(manifest("p", config_schema={"mode": {"type": "integer", "default": 2}}))
    with pytest.raises(ManifestError, match=r"plugin.toml \[config\]"):
        check_schemas(manifest("p", config_schema={"mode": {"type": "sentence"}}))
    with pytest.raises(ManifestError, match=r"\[config\] default of mode: 2 is less"):
        wrong = {"type": "integer", "minimum": 3, "default": 2}
        check_schemas(manifest("p", config_schema={"mode": wrong}))
    with pytest.raises(ManifestError, match=r"plugin.toml p.do"):
        spec = CapabilitySpec("p.do", input_schema={"type": "sentence"})
        check_schemas(replace(manifest("p"), capabilities=(spec,)))


def test_the_schemas_of_every_first_party_plugin_are_right() -> None:
    for found in find_manifests([first_party_root()]).values():
        check_schemas(found)


def test_roots_are_first_party_then_own() -> None:
    settings = parse_settings({"host": {"plugin_paths": [str(PLUGINS)]}})
    roots = roots_of(settings)
    assert roots[0].name == "plugins"
    assert roots[1] == PLUGINS
