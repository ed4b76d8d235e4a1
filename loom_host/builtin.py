"""What the host itself offers to plugins: `loom.tools`, `loom.route`, `loom.approve`,
`loom.forget`, `loom.caller`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loom_sdk import Call, Result
from loom_sdk.errors import CapabilityNotFound, PermissionDenied
from loom_sdk.plugin import CapabilitySpec

from .approvals import strictest
from .broker import Broker
from .caller import CALLER, caller_of
from .event_keeper import EventKeeper
from .forgetting import FORGET, forget
from .grants import Grants
from .handle import PluginHandle, Slots
from .manifest import Manifest
from .quotas import Quotas
from .registry import Offer
from .runtimes.base import Declaration, PluginSpec
from .runtimes.inside import Inside
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
    CapabilitySpec(
        "loom.approve",
        "Say whether a call that waits may be made, as a person answered the agent that asks.",
        effects="once",
        input_schema={
            "type": "object",
            "properties": {"id": {"type": "string"}, "allow": {"type": "boolean"}},
            "required": ["id", "allow"],
            "additionalProperties": False,
        },
    ),
    FORGET,
    CALLER,
)


class HostInstance(Inside):
    """Answers from the broker's tables, for whoever asks."""

    def __init__(
        self, broker: Broker, handles: Mapping[str, PluginHandle], log: EventKeeper
    ) -> None:
        super().__init__(Declaration(CAPABILITIES))
        self._broker, self._handles, self._log = broker, handles, log
        self.handle: PluginHandle | None = None

    async def invoke(self, call: Call) -> Result:
        assert self.handle is not None
        flight = self.handle.inflight[call.id]
        if call.capability == "loom.tools":
            return Result({"tools": self._tools(flight.caller, flight.agent)})
        if call.capability == "loom.approve":
            return Result(self._answer(flight.caller, call.arguments))
        if call.capability == "loom.forget":
            asking = self._handles.get(flight.caller)
            return Result(await forget(self._log, call.arguments, asking.spec.id if asking else ""))
        if call.capability == "loom.caller":
            agent_for = self._broker.approvals.agent_for
            return Result(caller_of(flight.parent, self._handles, agent_for))
        if call.capability == "loom.route":
            policy = self._broker.policy_for(flight)
            return Result(self._broker.route(call.arguments["capability"], policy)._asdict())
        raise CapabilityNotFound(f"the host does not offer {call.capability!r}")

    def _tools(self, caller: str, agent: str) -> list[dict[str, Any]]:
        """Those that are granted and not denied; where no agent asks, none needs an approval."""
        asking = self._handles.get(caller)
        agent = agent or self._broker.approvals.agent_for(caller)
        entries = []
        for name, offers in self._broker.capabilities().items():
            if not offers or not offers[0].spec.tool:
                continue
            if asking is not None and not asking.grants.permits("invoke", name):
                continue
            verdict = "allow"
            if agent:
                verdict = self._broker.approvals.verdict(agent, name, strictest(offers))
            if verdict != "deny":
                entries.append(tool_entry(offers[0]) | {"approval": verdict})
        return entries

    def _answer(self, caller: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """An agent conveys what a person said to a question of its own."""
        approvals = self._broker.approvals
        if not (agents := approvals.agents_of(caller)):
            raise PermissionDenied(
                f"{caller} is no agent: only an agent conveys what a person answered",
                plugin_id=caller,
                permission="invoke:loom.approve",
            )
        return approvals.answer(arguments["id"], arguments["allow"], agents)


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


def host_handle(
    broker: Broker, handles: Mapping[str, PluginHandle], log: EventKeeper, folder: Path
) -> PluginHandle:
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
    instance = HostInstance(broker, handles, log)
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
