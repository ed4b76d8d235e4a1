"""The plugins that come with Loom pass the conformance kit, in each tier that they claim."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from loom_host.builds import build_plugin, unbuilt
from loom_host.conformance.kit import Outcome
from loom_host.conformance.plan import plan_of
from loom_host.manifest import load_manifest
from loom_sdk.errors import PluginLoadError

from .conformance_matrix import IDS, OF_THE_HOST, failed, outcomes_of
from .languages.rig import OFFLINE
from .support import ROOT
from .test_broken_plugins import named

FOLDERS = sorted(path.parent for path in (ROOT / "plugins").glob("*/*/plugin.toml"))
START_S = 60.0
"""Models are loaded at the start."""
FEW = 20
"""Calls, events and arguments of a short run."""
LONG = {
    "embed-minilm": ("grpc",),
    "llm-local": ("grpc", "native"),
    "stt-pocketsphinx": ("grpc",),
    "stt-whisper": ("grpc", "native"),
    "tts-piper": ("grpc",),
    "wake-openwakeword": ("grpc",),
}
"""Their models take seconds to load, again and again. Guests are built before the tests."""


def cells() -> list[Any]:
    """Plugin and tier, for a short run."""
    return [
        pytest.param(folder, tier, id=f"{folder.name}-{tier}")
        for folder in FOLDERS
        for tier in plan_of(folder).manifest.tiers
        if tier not in LONG.get(folder.name, ())
    ]


def not_started(found: Sequence[Outcome], tiers: Sequence[str]) -> set[str]:
    started = {o.tier for o in found if (o.check, o.status) == ("lifecycle.start", "passed")}
    return set(tiers) - started


def build_if_missing(folder: Path) -> None:
    if unbuilt(load_manifest(folder / "plugin.toml")):
        try:
            build_plugin(folder)
        except PluginLoadError as error:
            if any(word in error.message for word in (*OFFLINE, "which is missing")):
                pytest.skip(error.message)
            raise


def skip_without_model(found: Sequence[Outcome]) -> None:
    for one in found:
        if one.check == "lifecycle.start" and "`loom models pull" in one.reason:
            pytest.skip(one.reason)


@pytest.mark.soak
@pytest.mark.parametrize("folder", FOLDERS, ids=named)
async def test_a_first_party_plugin_is_flagged_by_no_check(folder: Path) -> None:
    build_if_missing(folder)
    tiers = plan_of(folder).manifest.tiers
    found = await outcomes_of(folder, tiers, START_S, checks=(*IDS, *OF_THE_HOST))
    skip_without_model(found)
    assert not failed(found)
    assert not not_started(found, tiers)


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "tier"), cells())
async def test_no_check_flags_a_first_party_plugin_in_a_short_run(folder: Path, tier: str) -> None:
    """Of the host's own part test_conformance_probe.py has examples."""
    build_if_missing(folder)
    found = await outcomes_of(folder, (tier,), START_S, count=FEW)
    skip_without_model(found)
    assert not failed(found)
    assert not not_started(found, (tier,))
