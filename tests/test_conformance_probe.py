"""permissions.denied and quotas.trip: they hold in every tier, and fail where nothing is held."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loom_host import assembly, quotas
from loom_host.conformance.checks import denied, trips
from loom_host.conformance.kit import Fault
from loom_host.conformance.outside import outside
from loom_host.conformance.plan import plan_of
from loom_host.conformance.room import roomy
from loom_host.conformance.stage import probe_host
from loom_host.conformance.subject import Subject
from loom_host.egress import Egress
from loom_host.grants import Audit, Grants
from loom_host.quotas import Quotas
from loom_host.runtimes.grpc import instance, launch, runtime

from .support import ROOT

FIRST_PARTY = {
    "wasm/notes": ("wasm", "native", "grpc"),  # storage
    "wasm/weather": ("wasm",),  # addresses, the loopback ones among them
    "native/voice-agent": ("native",),  # every capability
    "native/llm-openai": ("grpc",),  # a secret
    "grpc/python-eval": ("grpc",),  # the strict sandbox
    "grpc/llm-local": ("grpc",),  # a loopback interface of its own
}
CASES = [(folder, tier) for folder, tiers in FIRST_PARTY.items() for tier in tiers]
EVERYWHERE = Path(__file__).parent / "conforming" / "everywhere"
KINDS = ("publish", "invoke", "secrets")


def subject_of(folder: Path, tier: str) -> Subject:
    return Subject(plan_of(folder), tier)


@pytest.mark.parametrize(("folder", "tier"), CASES)
async def test_in_the_place_of_a_first_party_plugin_nothing_is_had_unasked(
    folder: str, tier: str
) -> None:
    async with subject_of(ROOT / "plugins" / folder, tier) as subject:
        note = await denied.permissions_denied(subject)
    assert ("unenforced" in note) == (tier == "native")
    assert ("invoke: it asks for everything" in note) == (folder == "native/voice-agent")


@pytest.mark.parametrize(("folder", "tier"), CASES)
async def test_in_the_place_of_a_first_party_plugin_every_quota_trips(
    folder: str, tier: str
) -> None:
    async with subject_of(ROOT / "plugins" / folder, tier) as subject:
        note = await trips.quotas_trip(subject)
    assert ("memory" in note) == (tier == "native")


async def test_its_process_is_as_it_was(tmp_path: Path) -> None:
    """The variable and the folder of the probe are gone."""
    async with subject_of(EVERYWHERE, "native") as subject:
        before = subject.before
        await denied.permissions_denied(subject)
        await trips.quotas_trip(subject)
        assert not type(before).now().changes(before, EVERYWHERE)


# -- it fails where nothing is held


def lenient(kinds: tuple[str, ...]) -> Callable[[Audit, Grants, str, str], None]:
    check = Audit.check

    def allow(audit: Audit, grants: Grants, kind: str, value: str) -> None:
        if kind not in kinds:
            check(audit, grants, kind, value)

    return allow


@pytest.mark.parametrize("tier", ["native", "wasm", "grpc"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_host_that_checks_no_grant_of_one_kind_is_found(
    kind: str, tier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Audit, "check", lenient((kind,)))
    async with subject_of(EVERYWHERE, tier) as subject:
        with pytest.raises(Fault, match=kind.removesuffix("s")):
            await denied.permissions_denied(subject)


@pytest.mark.parametrize("tier", ["native", "wasm", "grpc"])
async def test_a_host_that_keeps_data_for_anybody_is_found(
    tier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Audit, "check", lenient(("storage",)))
    async with subject_of(ROOT / "plugins" / "wasm" / "calculator", tier) as subject:
        with pytest.raises(Fault, match="keep 'conformance' is not denied"):
            await denied.permissions_denied(subject)


@pytest.mark.parametrize("tier", ["native", "wasm", "grpc"])
async def test_a_host_that_asks_any_server_for_a_plugin_is_found(
    tier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Egress, "_check", lambda *_: None)
    async with subject_of(EVERYWHERE, tier) as subject:
        with pytest.raises(Fault, match="http"):
            await denied.permissions_denied(subject)


async def test_a_child_with_the_hosts_environment_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = runtime._environment
    monkeypatch.setattr(runtime, "_environment", lambda *a: {**kept(*a), **os.environ})
    async with subject_of(EVERYWHERE, "grpc") as subject:
        with pytest.raises(Fault, match="environment 'LOOM_CONFORMANCE_UNASKED' is not denied"):
            await denied.permissions_denied(subject)


def sandbox_that_lies(monkeypatch: pytest.MonkeyPatch, **truth: str) -> None:
    """No sandbox at all, but the report says that there is one."""
    monkeypatch.setattr(launch, "profile_of", lambda _: "none")
    told = dict.fromkeys(Quotas.__dataclass_fields__, "enforced")
    told |= {"filesystem": "enforced", "network": "enforced"} | truth
    monkeypatch.setattr(instance, "enforcement_of", lambda *_, **__: told)


@pytest.mark.parametrize(
    ("truth", "found"),
    [
        ({}, "read '.*' is not denied"),
        ({"filesystem": "partial: it may read"}, "write '.*' is not denied"),
        ({"filesystem": "unenforced: no"}, "tcp '.*' is not denied"),
    ],
)
async def test_a_sandbox_that_is_only_said_to_be_there_is_found(
    truth: dict[str, str], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox_that_lies(monkeypatch, **truth)
    async with subject_of(EVERYWHERE, "grpc") as subject:
        with pytest.raises(Fault, match=found):
            await denied.permissions_denied(subject)


async def test_a_sandbox_that_is_said_not_to_be_there_is_told_in_a_note(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sandbox_that_lies(monkeypatch, filesystem="unenforced: none", network="unenforced: none")
    async with subject_of(EVERYWHERE, "grpc") as subject:
        note = await denied.permissions_denied(subject)
    assert note == "filesystem: unenforced: none; network: unenforced: none"


async def test_a_datagram_that_is_heard_is_no_denial() -> None:
    manifest = plan_of(EVERYWHERE).manifest
    quotas = roomy(manifest, "native")
    async with outside() as around, probe_host(manifest, "native", quotas) as host:
        attempt = denied.Attempt("udp", str(around.udp_port), by_grant=False)
        with pytest.raises(Fault, match="the probe got 'heard'"):
            await denied._deny(host, attempt)
        assert around.reached == 1


TRIALS = {trial.quota: trial for group in trips.GROUPS for trial in group}
WIDE = {"deadline_ms": 60_000, "memory": 512 * 1024**2, "concurrency": 64, "open_files": 100_000}
BY_HOST = [
    "concurrency", "output_bytes", "log_bytes", "log_rate", "storage_bytes", "publish_rate",
    "host_calls", "host_calls_per_call", "deadline_ms",
]  # fmt: skip


def without(quota: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that holds nobody to this quota; nothing else is tried."""
    kept = quotas.tightest

    def wide(asked: Quotas, ceiling: Any) -> Quotas:
        loose: Any = {quota: WIDE.get(quota, 10**9)}
        return dataclasses.replace(kept(asked, ceiling), **loose)

    monkeypatch.setattr(assembly, "tightest", wide)
    monkeypatch.setattr(trips, "GROUPS", ((TRIALS[quota],),))


@pytest.mark.parametrize("quota", BY_HOST)
async def test_a_host_that_does_not_hold_a_quota_is_found(
    quota: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(quota, monkeypatch)
    async with subject_of(EVERYWHERE, "native") as subject:
        with pytest.raises(Fault, match=f"quota {quota} = .* does not trip"):
            await trips.quotas_trip(subject)


@pytest.mark.parametrize(
    ("tier", "quota"),
    [
        ("wasm", "memory"),
        ("grpc", "memory"),
        ("grpc", "open_files"),
        ("grpc", "file_size"),
        ("grpc", "folder_bytes"),
    ],
)
@pytest.mark.slow
async def test_a_tier_that_does_not_hold_a_quota_is_found(
    tier: str, quota: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(quota, monkeypatch)
    async with subject_of(EVERYWHERE, tier) as subject:
        with pytest.raises(Fault, match=f"quota {quota} = .* does not trip"):
            await trips.quotas_trip(subject)


async def test_a_quota_that_trips_as_another_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = dataclasses.replace(TRIALS["output_bytes"], press="get")
    monkeypatch.setattr(trips, "GROUPS", ((bound, TRIALS["host_calls_per_call"]),))
    async with subject_of(EVERYWHERE, "native") as subject:
        with pytest.raises(Fault, match="not that quota's own error"):
            await trips.quotas_trip(subject)


async def test_a_plugin_with_few_host_calls_trips_them_and_nothing_else() -> None:
    """One call of the probe asks for more than these in all its calls together."""
    async with subject_of(EVERYWHERE, "native") as subject:
        own = dataclasses.replace(subject.plan.manifest.quotas, host_calls=5)
        manifest = dataclasses.replace(subject.plan.manifest, quotas=own)
        subject.plan = dataclasses.replace(subject.plan, manifest=manifest)
        assert "host_calls" not in await trips.quotas_trip(subject)
