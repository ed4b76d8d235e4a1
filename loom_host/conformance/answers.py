"""A plugin of the kit's own that provides what the tested one invokes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loom_host.grants import Grants
from loom_host.handle import PluginHandle
from loom_host.manifest import Manifest
from loom_host.quotas import Quotas
from loom_host.runtimes.base import Declaration, PluginSpec
from loom_host.runtimes.inside import Inside
from loom_host.settings import PluginSettings
from loom_host.slots import Slots
from loom_sdk import Call, Result
from loom_sdk.plugin import CapabilitySpec

NAME, ID = "conformance-answers", "loom/conformance-answers"
MOST = 1024
"""Calls at once."""


class Answering(Inside):
    """Answers each capability with the output that conformance.toml gives for it."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        super().__init__(Declaration())
        self._answers = answers

    async def invoke(self, call: Call) -> Result:
        return Result(self._answers[call.capability])


def answering(answers: Mapping[str, Any], folder: Path) -> PluginHandle:
    """It serves at once; register it with a host's broker."""
    capabilities = tuple(CapabilitySpec(name, effects="none") for name in answers)
    manifest = Manifest(
        id=ID, version="1", type="tool", tier="native", tiers=("native",), entry=NAME,
        folder=folder, capabilities=capabilities,
    )  # fmt: skip
    spec = PluginSpec(
        name=NAME, id=ID, version="1", tier="native", entry=NAME, folder=folder, config={},
        grants=(), quotas=Quotas(concurrency=MOST), data_dir=folder, cache_dir=folder,
        first_party=True,
    )  # fmt: skip
    return PluginHandle(
        manifest=manifest,
        settings=PluginSettings(),
        grants=Grants(NAME, {"provide": tuple(answers)}),
        spec=spec,
        slots=Slots(ID, MOST, 0.0),
        state="ready",
        instance=Answering(answers),
    )
