"""How much of a store is whose."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .event_log import EventLog
from .keys import AGENTS, PLUGINS, agent_of, plugin_of
from .store import Store

STEP = 500
"""Keys between two turns for others."""


def sizes(store: Store, folder: Path | None) -> Iterator[dict[str, Any] | None]:
    """Keys and bytes of keys and values of every plugin and agent, events and bytes of every topic
    of the log, and bytes of the store's files.

    Yields None now and then, so that others get their turn, and at the end the answer.
    """
    plugins: dict[str, dict[str, int]] = {}
    agents: dict[str, dict[str, int]] = {}
    for prefix, owner, table in ((PLUGINS, plugin_of, plugins), (AGENTS, agent_of, agents)):
        for number, (key, value) in enumerate(store.scan(prefix)):
            row = table.setdefault(owner(key), {"keys": 0, "bytes": 0})
            row["keys"] += 1
            row["bytes"] += len(key) + len(value)
            if not number % STEP:
                yield None
    yield {
        "plugins": plugins,
        "agents": agents,
        "log": log_sizes(EventLog(store)),
        "disk_bytes": disk_bytes(folder) if folder else 0,
        "folder": str(folder or ""),
    }


def log_sizes(log: EventLog) -> dict[str, dict[str, int]]:
    """Events and bytes by topic."""
    found = sorted(log.topics.items())
    return {topic: {"events": size.events, "bytes": size.size} for topic, size in found}


def disk_bytes(folder: Path) -> int:
    """Bytes of the files in a folder; files that go away meanwhile count nothing."""
    total = 0
    for path in folder.glob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total
