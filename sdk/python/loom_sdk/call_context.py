"""What `Context` and `AsyncContext` share: identity, the call's data and clock, logs and spans."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .agent import State, Turn
from .calls import Call, Item
from .errors import ActionFailed, DeadlineExceeded, PermissionDenied
from .events import Event
from .json_form import json_form
from .port import SpanRecord


@dataclass(frozen=True, slots=True)
class Identity:
    """What stays the same for a plugin's whole life."""

    plugin_id: str
    data_dir: Path | None = None
    cache_dir: Path | None = None
    grants: tuple[str, ...] = ()
    """What was really granted, as `kind:value`."""


class CallContext:
    """One call or event as its plugin sees it, whichever way it speaks to the host."""

    def __init__(
        self,
        port: Any,
        identity: Identity,
        *,
        call: Call | None = None,
        event: Event | None = None,
        timeout_ms: int = 30_000,
    ) -> None:
        self._port = port
        self._identity = identity
        self._call = call
        self._began = time.monotonic()
        self._deadline = self._began + (call.remaining_ms if call else timeout_ms) / 1000
        self._call_id = call.id if call else event.id if event else ""
        self._turn: Turn | None = None
        self._traceparent = (
            call.traceparent if call is not None else event.traceparent if event else ""
        )

    @property
    def plugin_id(self) -> str:
        return self._identity.plugin_id

    @property
    def data_dir(self) -> Path | None:
        """The plugin's own folder, None where the tier has none."""
        return self._identity.data_dir

    @property
    def cache_dir(self) -> Path | None:
        return self._identity.cache_dir

    @property
    def grants(self) -> tuple[str, ...]:
        """What was really granted, as `kind:value`."""
        return self._identity.grants

    def require_grant(self, kind: str, value: str) -> None:
        """For what no tier can keep trusted code from, such as a microphone.

        Raises PermissionDenied where the exact `kind:value` was not granted.
        """
        wanted = f"{kind}:{value}"
        if wanted not in self._identity.grants:
            raise PermissionDenied(
                f"{self.plugin_id} was not granted {wanted}: `loom why-denied` has the line",
                plugin_id=self.plugin_id,
                permission=wanted,
            )

    @property
    def call_id(self) -> str:
        return self._call_id

    @property
    def capability(self) -> str:
        """Name of the capability that is called, empty for an event."""
        return self._call.capability if self._call else ""

    @property
    def turn(self) -> Turn:
        """What an agent's handler has beside the event. Raises ActionFailed for anything else."""
        if self._turn is None:
            raise ActionFailed(
                f"{self.plugin_id}: only the handlers of a loom_sdk.Agent that runs as an agent "
                'have state: write type = "agent" in plugin.toml',
                code="NO_AGENT",
            )
        return self._turn

    @property
    def agent(self) -> str:
        """Name of the agent whose event this is."""
        return self.turn.agent

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The plugin's settings with those of `[agents.NAME.parameters]`."""
        return self.turn.parameters

    @property
    def state(self) -> State:
        """Of this agent. Kept, with the progress in its log, when the handler returns."""
        return self.turn.state

    @property
    def ephemeral(self) -> dict[str, Any]:
        """Of this agent, in memory: gone when it, the plugin or the host starts again."""
        return self.turn.ephemeral

    def act(
        self,
        capability: str,
        arguments: Mapping[str, object] | None = None,
        *,
        priority: int = 50,
        timeout_ms: int = 30_000,
    ) -> None:
        """Have the host invoke a capability once this event is handled, and not wait for it.

        What became of it is told on `agent.NAME` as `action_result`.

        Args:
            priority: from 70 on it is started at once; from 30 on one after another in order;
                below, when the agent has nothing else to do.
        """
        self.turn.actions.append(
            {
                "capability": capability,
                "arguments": json_form(arguments or {}),
                "priority": priority,
                "timeout_ms": timeout_ms,
            }
        )

    @property
    def payload(self) -> bytes:
        """Binary that came beside the arguments."""
        return self._call.payload if self._call else b""

    @property
    def content_type(self) -> str:
        return self._call.content_type if self._call else ""

    def remaining_ms(self) -> int:
        """Milliseconds until the host gives up on this call; 0 once it has."""
        if self._told_to_stop():
            return 0
        return max(0, int((self._deadline - time.monotonic()) * 1000))

    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more, so that long work may stop.

        A guest is not told of a cancellation: there it is true once time is up.
        """
        return self._told_to_stop() or (self._call is not None and self.remaining_ms() <= 0)

    def _told_to_stop(self) -> bool:
        cancelled = getattr(self._port, "cancelled", None)
        return cancelled is not None and bool(cancelled(self._call_id))

    def elapsed_us(self) -> int:
        return int((time.monotonic() - self._began) * 1_000_000)

    def log(self, message: str, level: str = "info", **attributes: object) -> None:
        """A line in the host's structured log, under this plugin's name and trace."""
        texts = {key: str(value) for key, value in attributes.items()}
        self._port.log(level, message, texts, self._call_id)

    @contextmanager
    def span(self, name: str, **attributes: object) -> Iterator[None]:
        """Measure a part of the work; it shows below this call in the trace."""
        start, error = self.elapsed_us(), ""
        try:
            yield
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            texts = {key: str(value) for key, value in attributes.items()}
            took = self.elapsed_us() - start
            self._port.span(SpanRecord(name, start, took, texts, error), self._call_id)

    def _item(self, output: object, payload: bytes, content_type: str) -> Item:
        return Item(json_form(output), payload, content_type, self.elapsed_us())

    def _outgoing(
        self,
        capability: str,
        arguments: Mapping[str, object] | None,
        payload: bytes,
        content_type: str,
        timeout_ms: int | None,
        id: str = "",
    ) -> Call:
        remaining = self.remaining_ms()
        if self._call is not None and remaining <= 0:
            raise DeadlineExceeded(f"no time left to invoke {capability}", plugin_id=self.plugin_id)
        if timeout_ms is not None:
            remaining = min(remaining, timeout_ms) if self._call else timeout_ms
        return Call(
            capability,
            json_form(arguments or {}),
            payload,
            content_type,
            id,
            remaining_ms=remaining or 30_000,
            traceparent=self._traceparent,
            parent_call_id=self._call_id,
        )

    def _event(self, kind: str, payload: bytes, extra: dict[str, Any]) -> Event:
        extra.setdefault("traceparent", self._traceparent)
        return Event(kind, payload, source=self.plugin_id, **extra)
