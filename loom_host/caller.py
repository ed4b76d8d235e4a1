"""`loom.caller`: who made the call that a plugin serves, from the host's own table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from loom_sdk.errors import ActionFailed
from loom_sdk.plugin import CapabilitySpec

from .handle import InFlight, PluginHandle
from .privacy import LOCAL_ONLY, NAMES

CALLER = CapabilitySpec(
    "loom.caller",
    "Who made the call that you serve (kind `host`: the operator; `plugin`; `client`: from "
    "outside), as which agent, at which level of privacy, and up to which level it may be given "
    "what you keep.",
    effects="none",
    input_schema={"type": "object", "properties": {}, "additionalProperties": False},
)


def caller_of(
    served: InFlight | None,
    handles: Mapping[str, PluginHandle],
    agent_for: Callable[[str], str],
) -> dict[str, Any]:
    """What there is to tell.

    Nothing stricter than its own turn is read by a caller, so that no answer makes a turn more
    private than it is; and no label by a plugin that may not read it.

    Raises:
        ActionFailed: what asks serves no call.
    """
    if served is None:
        raise ActionFailed(
            "loom.caller tells of the call that you serve: ask while you serve one", code="NO_CALL"
        )
    name, level = served.caller, served.level
    asking, reads = handles.get(name), level
    if asking is not None:
        reads = min(level, asking.labels.clearance(asking.instance))
    elif name == "host":
        reads = LOCAL_ONLY
    kind = "plugin" if asking is not None else "host" if name == "host" else "client"
    agent = (_agent(served.parent) or agent_for(name)) if kind == "plugin" else ""
    return {
        "caller": name,
        "kind": kind,
        "agent": agent,
        "privacy": NAMES[level],
        "reads": NAMES[reads],
    }


def _agent(calling: InFlight | None) -> str:
    """Its name where the call was made by an agent with a state of its own."""
    return calling.desk.agent if calling is not None and calling.desk is not None else ""
