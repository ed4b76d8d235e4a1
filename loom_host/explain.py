"""What the router decides for a capability, and why not otherwise: `loom route explain`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from loom_sdk.errors import ConfigError

from . import lineup
from .broker import Broker, broker_of
from .bus import MemoryBus
from .config import parse_policy
from .hints import did_you_mean
from .settings import Policy, Settings
from .telemetry import Telemetry


def explain_route(
    broker: Broker, settings: Settings, capability: str, agent: str, changes: Mapping[str, Any]
) -> dict[str, Any]:
    """The policy, the decision, and a row for each provider with its `verdict`.

    Args:
        agent: whose policy holds; empty: the default one.
        changes: keys of the policy that are other than there.

    Raises:
        ConfigError: there is no such agent, or the changes are wrong.
        CapabilityNotFound, NoProvider: nobody offers it.
    """
    if agent and agent not in settings.agents:
        hint = did_you_mean(agent, settings.agents, f"known: {', '.join(settings.agents)}")
        raise ConfigError(f"no [agents.{agent}] in the settings; {hint}")
    return broker.explain(capability, _changed(broker.policy_of(agent), changes))


def _changed(policy: Policy, changes: Mapping[str, Any]) -> Policy:
    plain = {key.removeprefix("routing."): value for key, value in changes.items()}
    return parse_policy({**asdict(policy), **plain}, "policy")


def broker_at_rest(settings: Settings) -> Broker:
    """The broker of a host that is not started: by the settings alone, every plugin counts as one
    that is about to start. Raises what a start would.
    """
    broker = broker_of(settings, Telemetry(settings.telemetry), MemoryBus())
    for handle in lineup.line_up(settings):
        broker.register(handle)
        if handle.state == "stopped":
            broker.withdraw(handle)
    return broker
