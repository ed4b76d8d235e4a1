"""Storage under the host: key-values of plugins, state of agents, the event log."""

from .event_log import EventLog, Logged
from .keys import (
    agent_cursor_key,
    agent_key,
    agent_log_prefix,
    agent_of,
    agent_prefix,
    agent_state_key,
)
from .opening import store_at
from .plugin_store import PluginStore
from .rocks import RocksStore
from .store import Batch, MemoryStore, Store

__all__ = [
    "Batch",
    "EventLog",
    "Logged",
    "MemoryStore",
    "PluginStore",
    "RocksStore",
    "Store",
    "agent_cursor_key",
    "agent_key",
    "agent_log_prefix",
    "agent_of",
    "agent_prefix",
    "agent_state_key",
    "store_at",
]
