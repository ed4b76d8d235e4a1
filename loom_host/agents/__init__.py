"""Agents: a mailbox, one event at a time, state that outlives the host. See docs/AGENTS.md."""

from .agents import AgentParts, Agents
from .pump import PumpParts

__all__ = ["AgentParts", "Agents", "PumpParts"]
