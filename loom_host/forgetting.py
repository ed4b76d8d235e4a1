"""`loom.forget`: events leave the log for good, for whoever may invoke it."""

from __future__ import annotations

from typing import Any

from loom_sdk.plugin import CapabilitySpec

from .event_keeper import EventKeeper, bearing
from .storage.keys import label_prefix, plugin_prefix

FORGET = CapabilitySpec(
    "loom.forget",
    "Delete the logged events whose metadata has all these values, so that nothing of them stays "
    "in the host's files; what the caller has deleted from its own storage goes from them, too.",
    effects="idempotent",
    input_schema={
        "type": "object",
        "properties": {
            "metadata": {
                "type": "object",
                "description": 'such as {"user": "ann"} or {"session_id": "7"}',
                "additionalProperties": {"type": "string"},
                "minProperties": 1,
            },
            "topic": {"type": "string", "description": "pattern of topics; default: all"},
        },
        "required": ["metadata"],
        "additionalProperties": False,
    },
)


async def forget(log: EventKeeper, arguments: dict[str, Any], plugin_id: str) -> dict[str, int]:
    """Returns the number of `events`. Raises StorageError."""
    match = bearing(arguments["metadata"], arguments.get("topic", ">"))
    also = [plugin_prefix(plugin_id), label_prefix(plugin_id)] if plugin_id else []
    return {"events": await log.forget(match, also)}
