"""What an agent's author writes: a `Plugin` whose events come one at a time, with kept state.

    class Counter(Agent):
        @on_event("door.*")
        def seen(self, ctx, event):
            ctx.state["count"] = ctx.state.get("count", 0) + 1

The host runs any number of agents with one such object; whose event it is, `ctx.agent` tells.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .errors import ActionFailed
from .plugin import Plugin

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
    """One agent's event in its handler's hands."""

    def __init__(self, agent: str, parameters: Mapping[str, Any]) -> None:
        self.agent, self.parameters = agent, parameters
        self.ephemeral: dict[str, Any] = {}
        self.state = State()
        self.kept = b""
        """The state as it was before, as text."""
        self.actions: list[dict[str, Any]] = []


class Turns:
    """Begins and ends the turns of all agents of one plugin object."""

    def __init__(self) -> None:
        self._cards: dict[bytes, tuple[bytes, dict[str, Any], dict[str, Any]]] = {}
        """By agent its card as text and as data, and what is ephemeral."""

    def begin(self, plugin: Agent, record: bytes | None) -> Turn | None:
        """From what the host has under STATE, in three lines: the agent's card, the version of its
        state, the state. None where nobody runs as an agent here."""
        if not record:
            return None
        told, version, kept = record.split(b"\n", 2)
        turn = self._recall(told)
        turn.state.version, turn.kept = int(version), kept
        if kept:
            found = json.loads(kept)
            state = found["state"]
            if found["schema"] != plugin.state_schema:
                state = plugin.migrate(state, found["schema"])
            turn.state.update(state)
        return turn

    def _recall(self, told: bytes) -> Turn:
        name = told[: told.find(b",")]  # the card begins with it
        known = self._cards.get(name)
        if known is None or known[0] != told:
            known = self._cards[name] = (told, json.loads(told), {})
        card = known[1]
        turn = Turn(card["agent"], card["parameters"])
        turn.ephemeral = known[2]
        return turn

    def end(self, plugin: Agent, turn: Turn | None) -> Iterator[tuple[str, bytes]]:
        """What the handler leaves to be kept: keys and values."""
        if turn is None:
            return
        text = _text(plugin, turn.state)
        if text != turn.kept and (turn.state or turn.kept):
            yield STATE, text
        if turn.actions:
            yield ACTIONS, json.dumps(turn.actions).encode()


def _text(plugin: Agent, state: State) -> bytes:
    try:
        return json.dumps({"schema": plugin.state_schema, "state": state}).encode()
    except (TypeError, ValueError) as error:
        raise ActionFailed(f"ctx.state is not JSON: {error}", code="STATE_NOT_JSON") from error
