"""Which calls and events a child serves: the host's own record of what a child may name."""

from __future__ import annotations

from collections import deque

from loom_sdk.errors import PermissionDenied

REMEMBERED = 1024
"""Ended calls that a child may still name, as work in its background does."""


class Flights:
    """Ids of what one child was given to do."""

    def __init__(self, plugin_id: str) -> None:
        self._plugin_id = plugin_id
        self._live: dict[str, int] = {}
        self._ended: deque[str] = deque(maxlen=REMEMBERED)

    def enter(self, call_id: str) -> None:
        self._live[call_id] = self._live.get(call_id, 0) + 1

    def leave(self, call_id: str) -> None:
        left = self._live.pop(call_id) - 1
        if left:
            self._live[call_id] = left
        else:
            self._ended.append(call_id)

    def check(self, call_id: str) -> str:
        """The id to take for what a child names: itself, or none where that call has ended.

        Raises:
            PermissionDenied: the child was never given that call.
        """
        if not call_id or call_id in self._live:
            return call_id
        if call_id in self._ended:
            return ""
        raise PermissionDenied(
            f"{self._plugin_id} names {call_id!r}, a call that it is not serving: name the call "
            "that the host gave it, or none",
            plugin_id=self._plugin_id,
            permission="call_id",
        )
