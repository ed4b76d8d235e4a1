"""What a guest declared at `init`, as the host's types."""

from __future__ import annotations

import json
from typing import Any

from loom_host.runtimes.base import Declaration
from loom_sdk import QoS
from loom_sdk.errors import PluginLoadError
from loom_sdk.plugin import CapabilitySpec, SubscriptionSpec


def declaration_of(answer: dict[str, Any], plugin_id: str) -> Declaration:
    """Raises PluginLoadError where a schema is not JSON."""
    try:
        return _declaration(answer)
    except (ValueError, RecursionError) as error:
        raise PluginLoadError(
            f"{plugin_id} declared a schema that is not JSON: {error}", plugin_id=plugin_id
        ) from error


def _declaration(answer: dict[str, Any]) -> Declaration:
    capabilities = tuple(
        CapabilitySpec(
            item["name"],
            item["description"],
            item["tool"],
            item["effects"] or "once",
            json.loads(item["input-schema"]) if item["input-schema"] else None,
            json.loads(item["output-schema"]) if item["output-schema"] else None,
            item["resumable"],
            item["version"],
        )
        for item in answer["capabilities"]
    )
    subscriptions = tuple(
        SubscriptionSpec(
            item["topic"],
            QoS[item["qos"].upper()],
            tuple(item["types"]),
            item["concurrency"] or 1,
        )
        for item in answer["subscriptions"]
    )
    return Declaration(capabilities, subscriptions, answer.get("inferred", False))
