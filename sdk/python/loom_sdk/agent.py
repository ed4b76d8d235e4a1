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

    def __init__(self, record: Mapping[str, Any], ephemeral: dict[str, Any]) -> None:
        self.agent = str(record["agent"])
        self.parameters: Mapping[str, Any] = record["parameters"]
        self.ephemeral = ephemeral
        self.state = State()
        self.state.version = int(record["version"])
        self.kept = b""
        """The state as it was before, as text."""
        self.actions: list[dict[str, Any]] = []


class Turns:
    """Begins and ends the turns of all agents of one plugin object."""

    def __init__(self) -> None:
        self._ephemeral: dict[str, tuple[int, dict[str, Any]]] = {}

    def begin(self, plugin: Agent, record: bytes | None) -> Turn | None:
        """From what the host has under STATE; None where nobody runs as an agent here."""
        if not record:
            return None
        told = json.loads(record)
        life, ephemeral = self._ephemeral.get(told["agent"], (0, {}))
        if life != told["life"]:
            ephemeral = {}
            self._ephemeral[told["agent"]] = (told["life"], ephemeral)
        turn = Turn(told, ephemeral)
        kept = told["kept"]
        if kept is not None:
            state = kept["state"]
            if kept["schema"] != plugin.state_schema:
                state = plugin.migrate(state, kept["schema"])
            turn.state.update(state)
            turn.kept = json.dumps(kept).encode()
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
