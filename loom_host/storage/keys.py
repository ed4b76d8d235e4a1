"""Where things lie in the store. Names are percent-encoded, so no name reaches into another's part.

kv\\0PLUGIN-ID\\0KEY      a plugin's own keys and values
agent/NAME/state         an agent's state, written in one batch with
agent/NAME/cursor        how far it has come
agent/NAME/log/NUMBER    events of a durable one that wait for it
label\\0PLUGIN-ID\\0KEY   the privacy label of such a value, where it bears one
meta/schema/PLUGIN-ID    version of a plugin's data
log/...                  the event log, see `log_keys.py`
"""

from __future__ import annotations

from urllib.parse import quote, unquote

PLUGINS, AGENTS = b"kv\0", b"agent/"


def plugin_of(key: bytes) -> str:
    """The id of the plugin whose key this is."""
    return key[len(PLUGINS) :].partition(b"\0")[0].decode()


def plugin_prefix(plugin_id: str) -> bytes:
    return f"kv\0{plugin_id}\0".encode()


def label_prefix(plugin_id: str) -> bytes:
    return f"label\0{plugin_id}\0".encode()


def schema_key(plugin_id: str) -> bytes:
    return f"meta/schema/{quote(plugin_id, safe='')}".encode()


def agent_prefix(name: str) -> bytes:
    """All that is kept of one agent lies below it."""
    return AGENTS + quote(name, safe="").encode() + b"/"


def agent_key(name: str, part: str) -> bytes:
    """Any further part of an agent beside its state and cursor."""
    return agent_prefix(name) + part.encode()


def agent_log_prefix(name: str) -> bytes:
    return agent_key(name, "log/")


def is_agent_log(key: bytes) -> bool:
    """Whether an event that waits for an agent lies there."""
    return key[len(AGENTS) :].partition(b"/")[2].startswith(b"log/")


def agent_state_key(name: str) -> bytes:
    return agent_key(name, "state")


def agent_cursor_key(name: str) -> bytes:
    return agent_key(name, "cursor")


def agent_of(key: bytes) -> str:
    """The name of the agent whose key this is."""
    return unquote(key[len(AGENTS) :].partition(b"/")[0].decode())
