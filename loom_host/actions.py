"""What an agent wants done once its event is handled."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from loom_sdk import QoS
from loom_sdk.errors import InvalidArguments

REALTIME_FROM, BATCHED_FROM = 70, 30
"""Priorities of the Rust project; what is below is done in the background."""
ACTIONS_MAX = 64
"""Of one event."""


@dataclass(frozen=True, slots=True)
class Action:
    """One invocation by an agent."""

    capability: str
    arguments: dict[str, Any] = field(default_factory=dict)
    priority: int = 50
    timeout_ms: int = 30_000

    @property
    def name(self) -> str:
        """The capability without its version."""
        return self.capability.partition("@")[0]

    @property
    def qos(self) -> QoS:
        if self.priority >= REALTIME_FROM:
            return QoS.REALTIME
        return QoS.BATCHED if self.priority >= BATCHED_FROM else QoS.BACKGROUND


def parse_actions(text: bytes) -> list[Action]:
    """What the SDK sent. Raises InvalidArguments where a plugin made it up."""
    try:
        return [_action(item) for item in json.loads(text)][:ACTIONS_MAX]
    except (ValueError, TypeError) as error:
        raise InvalidArguments(f"actions must be a JSON list of invocations: {error}") from error


def _action(item: Any) -> Action:
    action = Action(**item)
    timeout = action.timeout_ms
    if not isinstance(action.capability, str) or not isinstance(action.arguments, dict):
        raise TypeError("an action has a capability and arguments")
    if type(action.priority) is not int or type(timeout) is not int or timeout < 1:
        raise TypeError("priority and timeout_ms are whole numbers")
    return action
