"""What the host itself offers to plugins: `loom.tools` and `loom.route`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loom_sdk import Call, Event, Result
from loom_sdk.errors import CapabilityNotFound
from loom_sdk.plugin import CapabilitySpec

from .broker import Broker
from .grants import Grants
from .handle import PluginHandle, Slots
from .manifest import Manifest
from .quotas import Quotas
from .registry import Offer
from .runtimes.base import Declaration, PluginSpec, Usage
from .settings import PluginSettings

CAPABILITIES = (
    CapabilitySpec(
        "loom.tools",
        "The tools that the caller may invoke.",
        effects="none",
        input_schema={"type": "object", "properties": {}, "additionalProperties": False},
    ),
    CapabilitySpec(
        "loom.route",
        "What the router decides for a capability now, under the caller's policy.",
        effects="none",
        input_schema={
            "type": "object",
            "properties": {"capability": {"type": "string"}},
            "required": ["capability"],
            "additionalProperties": False,
        },
    ),
)


class HostInstance:
    """Answers from the broker's tables, for whoever asks."""

    asleep = False

    def __init__(self, broker: Broker, handles: Mapping[str, PluginHandle]) -> None:
        self._broker, self._handles = broker, handles
        self.handle: PluginHandle | None = None
        self.declaration = Declaration(CAPABILITIES)
        self.enforcement: Mapping[str, str] = {}

    async def wake(self) -> None:
        """The host never sleeps."""

    async def invoke(self, call: Call) -> Result:
        assert self.handle is not None
        flight = self.handle.inflight[call.id]
        if call.capability == "loom.tools":
            return Result({"tools": self._tools(flight.caller)})
        if call.capability == "loom.route":
            policy = self._broker.policy_of(flight.agent)
            return Result(asdict(self._broker.route(call.arguments["capability"], policy)))
        raise CapabilityNotFound(f"the host does not offer {call.capability!r}")

    def _tools(self, caller: str) -> list[dict[str, Any]]:
        asking = self._handles.get(caller)
        return [
            tool_entry(offers[0])
            for name, offers in self._broker.capabilities().items()
            if offers
            and offers[0].spec.tool
            and (asking is None or asking.grants.permits("invoke", name))
        ]

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


def tool_entry(offer: Offer) -> dict[str, Any]:
    """A capability as an LLM is told of it."""
    spec = offer.spec
    return {
        "name": spec.name,
        "description": spec.description,
        "input_schema": dict(spec.input_schema or {"type": "object"}),
        "examples": [dict(example) for example in spec.examples],
        "effects": spec.effects,
    }


def host_handle(broker: Broker, handles: Mapping[str, PluginHandle], folder: Path) -> PluginHandle:
    """The host in the form of a plugin, so that calls to it are calls like any other."""
    manifest = Manifest(
        id="loom/host", version="1", type="tool", tier="native", tiers=("native",),
        entry="host", folder=folder, capabilities=CAPABILITIES,
    )  # fmt: skip
    spec = PluginSpec(
        name="host", id="loom/host", version="1", tier="native", entry="host", folder=folder,
        config={}, grants=(), quotas=Quotas(concurrency=1024), data_dir=folder, cache_dir=folder,
        first_party=True,
    )  # fmt: skip
    instance = HostInstance(broker, handles)
    handle = PluginHandle(
        manifest=manifest,
        settings=PluginSettings(),
        grants=Grants("host", {"provide": tuple(c.name for c in CAPABILITIES)}),
        spec=spec,
        slots=Slots("loom/host", 1024, 0.0),
        state="ready",
        instance=instance,
    )
    instance.handle = handle
    return handle
