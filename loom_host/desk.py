"""What an agent reads and writes while it handles one event: kept together, committed together.

The state travels as a value under a reserved key, `loom_sdk.agent.STATE` and the event's id, so
that every tier's transport carries it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .actions import Action
from .privacy import DEFAULT
from .storage import Batch, PluginStore, Store, agent_state_key
from .storage.staged import Staged

VERSION_BYTES = 8
STATE_AT = VERSION_BYTES + 1
"""Where the state begins in the stored value, after its version and its level of privacy."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a plugin is told of the agent whose event it handles."""

    name: str
    told: bytes
    """JSON in one line: its name, its parameters, and the number of its life."""
    key: bytes
    """Where its state is."""


def card_of(name: str, parameters: Mapping[str, Any], life: int) -> Card:
    """The card of an agent.

    Args:
        parameters: the plugin's settings with this agent's own.
        life: another number after each start, so that what is ephemeral is told from an earlier
            life's.
    """
    told = {"agent": name, "life": life, "parameters": dict(parameters)}
    return Card(name, json.dumps(told).encode(), agent_state_key(name))


class Desk:
    """One event of one agent. What it puts is not in the store before `batch` is written.

    Args:
        known: the value of the agent's state, where it is known; None: it is read.
    """

    def __init__(self, store: Store, card: Card, known: bytes | None = None) -> None:
        self._store, self._card, self._read = store, card, known
        self._written = False
        self._changes: Staged | None = None
        self._parts: list[tuple[PluginStore, PluginStore, int]] = []
        self.actions: list[Action] = []
        """What the agent wants done once the event is handled."""

    @property
    def _kept(self) -> bytes:
        if self._read is None:
            self._read = self._store.get(self._card.key) or bytes(STATE_AT)
        return self._read

    @property
    def _staged(self) -> Staged:
        if self._changes is None:
            self._changes = Staged(self._store)
        return self._changes

    @property
    def known(self) -> bytes | None:
        """The value of the state once this is committed; None where nobody asked for it."""
        return self._read

    @property
    def label(self) -> int:
        """The level of privacy of the state; that of nothing is public, 0."""
        return self._kept[VERSION_BYTES]

    @property
    def agent(self) -> str:
        """Its name."""
        return self._card.name

    def read(self) -> bytes:
        """For the plugin, a line each: the card, the version of the state, the state."""
        kept = self._kept
        version = int.from_bytes(kept[:VERSION_BYTES], "big")
        return b"%s\n%d\n%s" % (self._card.told, version, kept[STATE_AT:])

    def write(self, state: bytes, label: int = DEFAULT) -> None:
        """Keep the state as the plugin gave it, one version later, and its level of privacy."""
        version = int.from_bytes(self._kept[:VERSION_BYTES], "big") + 1
        self._read = b"%b%c%b" % (version.to_bytes(VERSION_BYTES, "big"), label, state)
        self._written = True

    def keys_of(self, store: PluginStore) -> PluginStore:
        """The plugin's own storage, with what this event wrote there."""
        for real, part, _ in self._parts:
            if real is store:
                return part
        part = store.over(self._staged)
        self._parts.append((store, part, part.used()))
        return part

    def batch(self) -> Batch:
        """All that the event wrote."""
        batch = self._changes.batch() if self._changes is not None else Batch()
        if self._written:
            batch.put(self._card.key, self._kept)
        return batch

    def committed(self) -> None:
        """After the batch was written: count it."""
        for real, part, before in self._parts:
            real.committed(part, before)
