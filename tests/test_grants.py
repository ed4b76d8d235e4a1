"""What a plugin may do is what it asks for and the operator allows; refusals tell the line."""

from __future__ import annotations

from pathlib import Path

import pytest

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
    line = line_to_allow("p", kind, "x")
    assert line == f'[plugins.p.allow] {kind} = ["x"]'
    assert line in caught.value.message
    assert (caught.value.plugin_id, caught.value.permission) == ("p", f"{kind}:x")
    assert [(r.plugin, r.kind, r.value, r.line) for r in audit.refusals] == [("p", kind, "x", line)]
    assert audit.denied == {"p": 1}


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
    assert "can send to: https://api.example" in words
    assert "can keep data in storage: own" in words
    assert reach(manifest(), Grants("p")) == ["nothing"]
    assert reach(manifest(tier="native"), Grants("p")) == ["runs in the host: nothing is isolated"]
