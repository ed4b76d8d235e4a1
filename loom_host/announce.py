"""What the host tells of its routing, as events; see docs/ROUTING.md for topics and metadata.

Nothing is built where nobody listens: a decision then costs one look into the bus's table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from loom_sdk import Event, Result
from loom_sdk.errors import BusError, LoomError, encode, mapping_of

from .bus import MemoryBus
from .dispatch import Request
from .handle import PluginHandle
from .privacy import DEFAULT, NAMES, labelled
from .router import Decision

ROUTING = "loom.routing"
"""Decisions and hybrid answers of calls that no agent made."""
FAILOVER = "loom.failover"
_STATUS = {"ACTION_TIMEOUT": "timeout", "ACTION_RETRYABLE": "retryable"}


class Announcer:
    """Publishes on one bus; without one it says nothing."""

    def __init__(self, bus: MemoryBus | None = None) -> None:
        self._bus = bus

    def _topic(self, request: Request) -> str:
        """Where its agent's events go, else the host's; empty where nobody would hear them."""
        topic = f"agent.{request.agent}" if request.agent else ROUTING
        return topic if self._heard(topic) else ""

    def _heard(self, topic: str) -> bool:
        try:
            return self._bus is not None and self._bus.wanted(topic)
        except BusError:  # the agent's name is no token of a topic
            return False

    def _publish(
        self, topic: str, type: str, metadata: Mapping[str, str], **fields: object
    ) -> None:
        assert self._bus is not None
        self._bus.publish_nowait(topic, Event(type, metadata=metadata, **fields))  # type: ignore[arg-type]

    def decision(self, request: Request, decision: Decision) -> None:
        """What the router decided for a call."""
        if not (topic := self._topic(request)):
            return
        metadata = {
            "capability": request.capability,
            "caller": request.caller,
            "route": decision.route,
            "reason": decision.reason,
            "confidence": f"{decision.confidence:.3f}",
            "est_latency_ms": f"{decision.estimated_ms:.0f}",
            "est_cost": f"{decision.estimated_cost:.4f}",
            "providers": ",".join(decision.providers),
            "privacy": NAMES[request.level],
        }
        self._publish(topic, "routing_decision", metadata, traceparent=request.traceparent)

    def switched(
        self, request: Request, old: PluginHandle, new: PluginHandle, error: LoomError
    ) -> None:
        """A call that one provider failed goes to another."""
        if not self._heard(FAILOVER):
            return
        info = encode(error)
        metadata = {
            "capability": request.capability,
            "from": old.name,
            "to": new.name,
            "code": info.code,
            "reason": info.message,
            "agent": request.agent,
            "privacy": NAMES[max(request.level, request.reached)],
        }
        self._publish(FAILOVER, "provider.switch", metadata, traceparent=request.traceparent)

    def circuit(self, handle: PluginHandle) -> None:
        """A provider's circuit opened, lets a probe through, or closed."""
        if self._heard(FAILOVER):
            circuit = handle.circuit
            metadata = {"provider": handle.name, "state": circuit.state, "reason": circuit.reason}
            self._publish(FAILOVER, f"circuit.{circuit.state}", told_by(handle, metadata))

    def phase(self, request: Request, phase: str, outcome: Result | LoomError) -> None:
        """What one of the two passes of a hybrid call came to."""
        if not (topic := self._topic(request)):
            return
        metadata = {
            "action_type": request.capability,
            "phase": phase,
            "routing_target": "local" if phase == "quick" else "cloud",
            "routing_decision": request.route[0],
            "routing_reason": request.route[1],
            "privacy": NAMES[max(request.level, request.reached)],
        }
        if phase == "refine":
            metadata["refine"] = "true"
        payload = b""
        if isinstance(outcome, Result):
            metadata |= {"status": "ok", "provider": outcome.provider}
            payload = _payload(outcome, metadata)
        else:
            status = _STATUS.get(mapping_of(outcome).status, "error")
            info = encode(outcome)
            metadata |= {"status": status, "code": info.code, "message": info.message}
        self._publish(
            topic, "action_result", metadata, payload=payload, traceparent=request.traceparent
        )


def told_by(handle: PluginHandle, metadata: Mapping[str, str]) -> Mapping[str, str]:
    """Metadata that hold words of a plugin, labelled as all that it has seen."""
    return labelled(metadata, max(DEFAULT, handle.labels.seen))


def _payload(result: Result, metadata: dict[str, str]) -> bytes:
    """The answer's binary, else its JSON."""
    if result.payload:
        metadata["content_type"] = result.content_type
        return result.payload
    metadata["content_type"] = "application/json"
    return json.dumps(result.output, ensure_ascii=False).encode()
