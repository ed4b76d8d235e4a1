"""What a plugin may do is what it asks for and the operator allows; refusals tell the line."""

from __future__ import annotations

import logging
import tomllib
from pathlib import Path

import pytest

from loom_host.config import load_settings
from loom_host.grants import (
    KINDS,
    Audit,
    Grants,
    asked_for,
    grant,
    line_to_allow,
    missing,
    reach,
)
from loom_host.manifest import Manifest, Permissions
from loom_sdk.errors import PermissionDenied
from loom_sdk.plugin import CapabilitySpec, SubscriptionSpec


def manifest(tier: str = "wasm", **fields: object) -> Manifest:
    base: dict[str, object] = {
        "id": "a/p", "version": "1", "type": "tool", "tier": tier, "tiers": (tier,),
        "entry": "p:P", "folder": Path(),
    }  # fmt: skip
    return Manifest(**(base | fields))  # type: ignore[arg-type]  # a table


EVERYTHING = manifest(
    subscribes=(SubscriptionSpec("audio.mic"), SubscriptionSpec("transcript")),
    publishes=("notes.*",),
    capabilities=(CapabilitySpec("p.do"),),
    permissions=Permissions(
        network=("https://api.example",),
        filesystem=("data:rw",),
        env=("LANG",),
        secrets=("key",),
        invoke=("llm.chat",),
        devices=("microphone",),
        storage=True,
        labels=("private",),
    ),
)
ASKED = asked_for(EVERYTHING)


def test_nothing_is_granted_by_default() -> None:
    assert grant("p", EVERYTHING, {}).allowed == {}
    assert grant("p", manifest(), dict.fromkeys(KINDS, ("*",))).allowed == {}


def test_every_kind_can_be_asked_for() -> None:
    assert set(ASKED) == set(KINDS)
    assert ASKED["storage"] == ("own",)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_granted_only_where_asked_and_allowed(kind: str) -> None:
    granted = grant("p", EVERYTHING, {kind: ASKED[kind]})
    assert granted.allowed == {kind: ASKED[kind]}
    assert all(granted.permits(kind, value) for value in ASKED[kind])
    assert set(missing(EVERYTHING, granted)) == {
        (other, value) for other in KINDS if other != kind for value in ASKED[other]
    }


@pytest.mark.parametrize(
    ("kind", "asked", "allowed", "granted"),
    [
        ("publish", "notes.*", ">", ("notes.*",)),
        ("publish", "notes.*", "notes.a", ("notes.a",)),
        ("publish", "notes", "other", ()),
        ("subscribe", ">", "audio.mic", ("audio.mic",)),
        ("subscribe", "audio.mic", "audio.*", ("audio.mic",)),
        ("subscribe", "audio.>", "audio.*", ("audio.*",)),
        ("invoke", "llm.chat", "*", ("llm.chat",)),
        ("invoke", "*", "llm.*", ("llm.*",)),
        ("network", "https://*.example", "https://api.example", ("https://api.example",)),
        ("network", "http://[::1]:8000", "http://[::1]:8000", ("http://[::1]:8000",)),
        ("network", "https://*:*", "GET https://a.b:8443", ("GET https://a.b:8443",)),
        ("network", "http://*:*", "http://localhost:8080", ("http://localhost:8080",)),
        ("network", "http://localhost:*", "*", ()),
        ("network", "https://x.org", "https://*.x.org", ()),
        ("filesystem", "notes:rw", "notes", ("notes",)),
        ("filesystem", "notes", "notes:rw", ("notes",)),
        ("filesystem", "notes:rw", "*:rw", ("notes:rw",)),
        ("filesystem", "notes:rw", "*", ()),
        ("secrets", "key", "KEY", ()),
    ],
)
def test_a_wider_ask_is_narrowed(
    kind: str, asked: str, allowed: str, granted: tuple[str, ...]
) -> None:
    if kind == "publish":
        wants = manifest(publishes=(asked,))
    elif kind == "subscribe":
        wants = manifest(subscribes=(SubscriptionSpec(asked),))
    else:
        wants = manifest(permissions=Permissions(**{kind: (asked,)}))  # type: ignore[arg-type]  # a table
    assert grant("p", wants, {kind: (allowed,)}).allowed.get(kind, ()) == granted


@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_names_the_line_and_is_kept(kind: str) -> None:
    audit = Audit(keep=2)
    with pytest.raises(PermissionDenied) as caught:
        audit.check(Grants("p"), kind, "x")
    line = line_to_allow(Grants("p"), kind, "x")
    assert line.startswith(
        f'[plugins.p]\nallow = {{ {kind} = ["x"] }}\n# and p\'s plugin.toml must'
    )
    assert tomllib.loads(line) == {"plugins": {"p": {"allow": {kind: ["x"]}}}}
    assert line in caught.value.message
    assert (caught.value.plugin_id, caught.value.permission) == ("p", f"{kind}:x")
    assert [(r.plugin, r.kind, r.value, r.line) for r in audit.refusals] == [("p", kind, "x", line)]
    assert audit.denied == {"p": 1}


@pytest.mark.parametrize(
    ("head", "own"),
    [("", ""), ("", 'allow = { publish = ["notes.b"], invoke = ["llm.chat"] }'),
     ('extends = "voice"\n', ""), ('extends = "voice"\n', 'allow = { storage = true }')],
)  # fmt: skip
@pytest.mark.parametrize("name", ["stt-whisper", "a plugin"])
def test_the_pasted_lines_allow_it_and_keep_the_rest(
    tmp_path: Path, head: str, own: str, name: str
) -> None:
    file = tmp_path / "loom.toml"
    file.write_text(f'{head}[plugins."{name}"]\n{own}\n')
    before = load_settings(file).plugins[name].allow
    with pytest.raises(PermissionDenied) as caught:
        Audit().check(grant(name, EVERYTHING, before), "publish", "notes.a")
    file.write_text(head + caught.value.message.partition("there:\n")[2])
    after = load_settings(file).plugins[name].allow
    Audit().check(grant(name, EVERYTHING, after), "publish", "notes.a")
    assert after == {**before, "publish": (*before.get("publish", ()), "notes.a")}


@pytest.mark.parametrize("value", ['a"b', "a\\b", "a\nb\x7f", "\U0001f600"])
def test_any_value_is_printed_as_toml(value: str) -> None:
    read = tomllib.loads(line_to_allow(Grants("p"), "secrets", value))
    assert read["plugins"]["p"]["allow"] == {"secrets": [value]}


def test_each_refusal_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    audit = Audit()
    with caplog.at_level(logging.WARNING, logger="loom.audit"):
        for value in ("x", "x", "y"):
            with pytest.raises(PermissionDenied):
                audit.check(Grants("p"), "publish", value)
    assert [record.getMessage() for record in caplog.records if record.name == "loom.audit"] == [
        f"p may not publish to {value!r}; see loom why-denied" for value in ("x", "y")
    ]


def test_the_audit_is_bounded_and_counts_what_was_allowed() -> None:
    audit, grants = Audit(keep=3), Grants("p", {"publish": ("a",)})
    for number in range(5):
        with pytest.raises(PermissionDenied):
            audit.check(grants, "publish", f"b{number}")
        audit.check(grants, "publish", "a")
    assert [r.value for r in audit.refusals] == ["b2", "b3", "b4"]
    assert audit.denied["p"] == 5
    assert audit.used == {("p", "publish", "a"): 5}


def test_texts_are_what_a_plugin_is_told() -> None:
    grants = Grants("p", {"publish": ("a", "b"), "storage": ("own",)})
    assert grants.texts() == ("publish:a", "publish:b", "storage:own")


def test_reach_in_words() -> None:
    words = reach(EVERYTHING, grant("p", EVERYTHING, ASKED))
    assert words[:2] == ["can hear: microphone", "can read: what was said"]
    assert "can send to: api.example" in words
    other = Grants("weather", {"network": ("https://a.example",)})
    assert reach(manifest(), Grants("p"), through=[other]) == [
        "can send to: a.example, through weather"
    ]
    dead = Grants("p", {"subscribe": ("loom.*",)})
    assert reach(manifest(), dead) == ["can read: events that were not delivered"]
    assert "can keep data in storage: own" in words
    assert reach(manifest(), Grants("p")) == ["nothing"]
    assert reach(manifest(tier="native"), Grants("p")) == ["runs in the host: nothing is isolated"]
