"""A plugin of the kit's own that provides what the tested one invokes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loom_host.grants import Grants
from loom_host.handle import PluginHandle
from loom_host.manifest import Manifest
from loom_host.quotas import Quotas
from loom_host.runtimes.base import Declaration, PluginSpec, Usage
from loom_host.settings import PluginSettings
from loom_host.slots import Slots
from loom_sdk import Call, Event, Result
from loom_sdk.plugin import CapabilitySpec

NAME, ID = "conformance-answers", "loom/conformance-answers"
MOST = 1024
"""Calls at once."""


class Answering:
    """Answers each capability with the output that conformance.toml gives for it."""

    asleep = False
    enforcement: Mapping[str, str] = {}

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self._answers = answers
        self.declaration = Declaration()

    async def wake(self) -> None:
        """It never sleeps."""

    async def invoke(self, call: Call) -> Result:
        return Result(self._answers[call.capability])

    async def handle_event(self, event: Event) -> int:
        return 0

    async def health(self) -> str:
        return ""

    async def wait_exit(self) -> str:
        await asyncio.Event().wait()
        return ""

    async def aclose(self, grace_s: float) -> None:
        return

    def usage(self) -> Usage:
        return Usage()


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
