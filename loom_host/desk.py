"""What an agent reads and writes while it handles one event: kept together, committed together.

The state travels as a value under a reserved key, `loom_sdk.agent.STATE` and the event's id, so
that every tier's transport carries it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from .actions import Action
from .storage import Batch, PluginStore, Store, agent_key, agent_state_key
from .storage.staged import Staged

VERSION_BYTES = 8


@dataclass(frozen=True, slots=True)
class Card:
    """What a plugin is told of the agent whose event it handles."""

    name: str
    parameters: bytes = b"{}"
    """JSON: the plugin's settings with this agent's own."""
    life: int = 0
    """Another number after each start, so that what is ephemeral is told from an earlier life's."""


class Desk:
    """One event of one agent. What it puts is not in the store before `batch` is written."""

    def __init__(self, store: Store, card: Card) -> None:
        self._card = card
        self._staged = Staged(store)
        self._key = agent_state_key(card.name)
        self._label_key = agent_key(card.name, "label")
        self._parts: list[tuple[PluginStore, PluginStore, int]] = []
        self.actions: list[Action] = []
        """What the agent wants done once the event is handled."""

    @property
    def label(self) -> int:
        """The level of privacy of the state; 0 where it bears no label."""
        return int(self._staged.get(self._label_key) or b"0")

    @property
    def agent(self) -> str:
        """Its name."""
        return self._card.name

    def read(self) -> bytes:
        """JSON for the plugin: who it is, its parameters, its state."""
        kept = self._staged.get(self._key) or b""
        version = int.from_bytes(kept[:VERSION_BYTES], "big")
        head = {"agent": self._card.name, "life": self._card.life, "version": version}
        return b'%s,"parameters":%s,"kept":%s}' % (
            json.dumps(head)[:-1].encode(),
            self._card.parameters,
            kept[VERSION_BYTES:] or b"null",
        )

    def write(self, state: bytes, label: int = 0) -> None:
        """Keep the state as the plugin gave it, one version later, and its level of privacy."""
        if label != self.label:
            self._staged.put(self._label_key, b"%d" % label)
        kept = self._staged.get(self._key) or b""
        version = int.from_bytes(kept[:VERSION_BYTES], "big") + 1
        self._staged.put(self._key, version.to_bytes(VERSION_BYTES, "big") + state)

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
        return self._staged.batch()

    def committed(self) -> None:
        """After the batch was written: count it."""
        for real, part, before in self._parts:
            real.grow(part.used() - before)
