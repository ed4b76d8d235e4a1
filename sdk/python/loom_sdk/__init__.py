"""Loom's SDK: what a plugin author imports. Pure standard library as imported here."""

from .agent import Agent
from .calls import Call, Item, Result
from .constraints import Field
from .context import AsyncContext, Context
from .events import Event, QoS
from .plugin import Plugin, capability, on_event, tool

__all__ = [
    "Agent",
    "AsyncContext",
    "Call",
    "Context",
    "Event",
    "Field",
    "Item",
    "Plugin",
    "QoS",
    "Result",
    "capability",
    "on_event",
    "tool",
]
