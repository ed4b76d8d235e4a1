"""What an agent's author writes: a `Plugin` whose events come one at a time, with kept state.

    class Counter(Agent):
        @on_event("door.*")
        def seen(self, ctx, event):
            ctx.state["count"] = ctx.state.get("count", 0) + 1

The host runs any number of agents with one such object; whose event it is, `ctx.agent` tells.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .errors import ActionFailed
from .plugin import Plugin

_encode, _decode = json.JSONEncoder().encode, json.JSONDecoder().raw_decode
"""As `json.dumps` and `json.loads`, which first look through their arguments."""

STATE, ACTIONS = "\0agent/state/", "\0agent/actions/"
"""Keys under which an agent's state and actions travel, followed by the event's id."""


class Agent(Plugin):
    """Base of an agent: its handlers have `ctx.state`, `ctx.ephemeral`, `ctx.parameters`."""

    state_schema: int = 1
    """Raise it when what the state holds changes its form, and mend `migrate`."""

    def migrate(self, state: dict[str, Any], schema: int) -> dict[str, Any]:
        """The state in today's form, from that of an earlier or later `schema`.

        Raises ActionFailed here; the event is then not handled.
        """
        raise ActionFailed(
            f"{type(self).__name__} keeps state of schema {self.state_schema}, and there is some "
            f"of schema {schema}: write `migrate`, or delete the agent's state",
            code="STATE_SCHEMA",
        )


class State(dict[str, Any]):
    """A JSON object that is kept when the handler returns, and forgotten when it raises."""

    version: int = 0
    """How often it was kept."""


class Turn:
    """One agent's event in its handler's hands.

    Args:
        kept: the state as it was before, as text; it is read when the handler first looks.
    """

    def __init__(self, plugin: Agent, card: _Card, version: int, kept: bytes) -> None:
        self.agent, self.parameters, self.ephemeral = card.agent, card.parameters, card.ephemeral
        self.actions: list[dict[str, Any]] = []
        self._plugin, self._version, self._kept = plugin, version, kept
        self._state: State | None = None

    @property
    def state(self) -> State:
        """Raises ActionFailed where it is of another schema and cannot be migrated."""
        if self._state is None:
            self._state = _state_from(self._plugin, self._kept)
            self._state.version = self._version
        return self._state

    def text(self) -> bytes | None:
        """The state to be kept; None where it is as it was. Raises ActionFailed: not JSON."""
        state = self._state
        if state is None or not (state or self._kept):
            return None
        text = _text(self._plugin, state)
        return None if text == self._kept else text


class _Card:
    """What stays the same from event to event of one agent, and what is ephemeral."""

    def __init__(self, told: bytes) -> None:
        card = json.loads(told)
        self.told = told
        self.agent: str = card["agent"]
        self.parameters: Mapping[str, Any] = card["parameters"]
        self.ephemeral: dict[str, Any] = {}


class Turns:
    """Begins and ends the turns of all agents of one plugin object."""

    def __init__(self) -> None:
        self._cards: dict[bytes, _Card] = {}
        """By agent."""

    def begin(self, plugin: Agent, record: bytes | None) -> Turn | None:
        """From what the host has under STATE, in three lines: the agent's card, the version of its
        state, the state. None where nobody runs as an agent here."""
        if not record:
            return None
        told, version, kept = record.split(b"\n", 2)
        return Turn(plugin, self._recall(told), int(version), kept)

    def _recall(self, told: bytes) -> _Card:
        name = told[: told.find(b",")]  # the card begins with it
        known = self._cards.get(name)
        if known is None or known.told != told:
            known = self._cards[name] = _Card(told)
        return known

    def end(self, turn: Turn | None) -> list[tuple[str, bytes]]:
        """What the handler leaves to be kept: keys and values."""
        left: list[tuple[str, bytes]] = []
        if turn is None:
            return left
        if (text := turn.text()) is not None:
            left.append((STATE, text))
        if turn.actions:
            left.append((ACTIONS, _encode(turn.actions).encode()))
        return left


def _state_from(plugin: Agent, kept: bytes) -> State:
    if not kept:
        return State()
    found, _ = _decode(kept.decode())
    state = found["state"]
    if found["schema"] != plugin.state_schema:
        state = plugin.migrate(state, found["schema"])
    return State(state)


def _text(plugin: Agent, state: State) -> bytes:
    try:
        return _encode({"schema": plugin.state_schema, "state": state}).encode()
    except (TypeError, ValueError) as error:
        raise ActionFailed(f"ctx.state is not JSON: {error}", code="STATE_NOT_JSON") from error
