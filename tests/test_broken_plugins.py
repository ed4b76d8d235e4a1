"""The plugins that the conformance kit is tried against: tests/broken and tests/conforming."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from loom_host.manifest import Manifest, load_manifest
from loom_host.schema_check import compiled
from loom_host.testing import real_host
from loom_sdk import Event
from tests.hosting import next_of

TESTS = Path(__file__).parent
BROKEN = sorted(path.parent for path in (TESTS / "broken").glob("*/plugin.toml"))
CONFORMING = sorted(path.parent for path in (TESTS / "conforming").glob("*/plugin.toml"))
CHECKS = (
    "schema.valid", "lifecycle.start", "contract.offers", "contract.version", "contract.token",
    "contract.stream", "lifecycle.health", "schema.examples", "schema.output", "output.valid",
    "input.generated", "effects.repeat", "effects.storage", "calls.concurrent", "calls.deadline",
    "calls.cancel", "permissions.asked", "events.handled", "events.garbage", "events.speed",
    "leak.memory", "leak.files", "leak.threads", "leak.processes", "logs.readable", "logs.flood",
    "native.globals", "native.loop", "lifecycle.stop", "lifecycle.restart", "tiers.same",
)  # fmt: skip
"""All but those that look at the host: schema.refuses, permissions.denied, quotas.trip."""


def fault_of(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "fault.toml").read_text())


def manifest_of(folder: Path) -> Manifest:
    return load_manifest(folder / "plugin.toml")


def named(folder: Path) -> str:
    return folder.name


@pytest.mark.parametrize("folder", BROKEN, ids=named)
def test_a_fault_names_checks_of_the_kit_and_a_tier_of_the_plugin(folder: Path) -> None:
    fault = fault_of(folder)
    assert {"check", "tier", "what"} <= set(fault) <= {"check", "tier", "what", "also"}
    assert fault["check"] in CHECKS
    assert fault["check"] not in fault.get("also", [])
    assert set(fault.get("also", [])) <= set(CHECKS)
    assert fault["tier"] in manifest_of(folder).tiers
    assert fault["what"].endswith(".")


def test_every_check_that_a_plugin_can_fail_has_a_plugin_that_fails_it() -> None:
    assert {fault_of(folder)["check"] for folder in BROKEN} == set(CHECKS)


def test_good_plugins_have_no_fault() -> None:
    assert not [folder for folder in CONFORMING if (folder / "fault.toml").exists()]


def test_the_three_tiers_are_claimed_by_one_good_plugin() -> None:
    assert {"native", "wasm", "grpc"} in [set(manifest_of(folder).tiers) for folder in CONFORMING]


@pytest.mark.parametrize("folder", BROKEN + CONFORMING, ids=named)
def test_every_manifest_is_complete(folder: Path) -> None:
    """Folder, id and module agree, so that many of them can live in one process."""
    manifest = manifest_of(folder)
    assert manifest.name == folder.name
    assert (folder / f"{folder.name.replace('-', '_')}.py").is_file()
    assert manifest.quotas.deadline_ms <= 8000
    for spec in manifest.capabilities:
        assert spec.input_schema
        assert spec.output_schema
        assert spec.examples


def misfits(manifest: Manifest) -> list[str]:
    """What of its schemas and examples is wrong."""
    found = []
    for spec in manifest.capabilities:
        for key, schema in (("arguments", spec.input_schema), ("output", spec.output_schema)):
            try:
                fits = compiled(schema or {}).is_valid
            except ValueError as error:
                found.append(str(error))
                continue
            found += [f"{one[key]}" for one in spec.examples if key in one and not fits(one[key])]
    return found


@pytest.mark.parametrize("folder", BROKEN + CONFORMING, ids=named)
def test_schemas_and_examples_are_right_where_they_are_not_the_fault(folder: Path) -> None:
    is_fault = (folder / "fault.toml").exists() and fault_of(folder)["check"] == "schema.valid"
    assert bool(misfits(manifest_of(folder))) == is_fault


def tiers_of(folder: Path) -> list[Any]:
    """A component takes seconds to build."""
    return [
        pytest.param(
            folder, tier, id=f"{folder.name}-{tier}",
            marks=pytest.mark.soak if tier == "wasm" else (),
        )
        for tier in manifest_of(folder).tiers
    ]  # fmt: skip


def contains(output: dict[str, Any], stated: Mapping[str, Any]) -> bool:
    return stated.items() <= output.items()


@pytest.mark.parametrize(
    ("folder", "tier"), [case for folder in CONFORMING for case in tiers_of(folder)]
)
async def test_a_good_plugin_answers_its_examples_in_each_tier_that_it_claims(
    folder: Path, tier: str
) -> None:
    async with real_host(folder, tier=tier) as host:
        for spec in manifest_of(folder).capabilities:
            for example in spec.examples:
                if not example.get("slow"):
                    answer = await host.invoke(spec.name, example["arguments"])
                    assert contains(answer.output, example["output"])
        assert not host.audit.refusals


async def test_the_good_listener_takes_any_event() -> None:
    folder = TESTS / "conforming" / "listener"
    async with real_host(folder) as host:
        told = host.bus.subscribe("listener")
        for payload in (b"cat", b"\xff\xfe\x00", b"x" * 70_000, b""):
            await host.bus.publish("words.new", Event("", payload, {"\n": "\u2028"}))
            assert (await next_of(told)).type == "heard"
