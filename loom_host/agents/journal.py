"""The log of a durable agent: every event that it was given and has not handled yet."""

from __future__ import annotations

from loom_host.storage import Batch, Store, agent_cursor_key, agent_log_prefix
from loom_host.storage.event_codec import pack_event, unpack_event
from loom_sdk import Event

_NUMBER = 8


class Journal:
    """Numbers of events, from 1; an event leaves in the same batch that keeps the agent's state."""

    def __init__(self, store: Store, agent: str) -> None:
        self._store = store
        self._prefix = agent_log_prefix(agent)
        self._cursor = agent_cursor_key(agent)
        self._last = 0

    def load(self) -> list[tuple[int, Event]]:
        """What is there since the host's last life, in the order in which it came."""
        start = len(self._prefix)
        found = [
            (int.from_bytes(key[start:], "big"), unpack_event(value))
            for key, value in self._store.scan(self._prefix)
        ]
        handled = int.from_bytes(self._store.get(self._cursor) or b"", "big")
        self._last = max([handled, *(number for number, _ in found)])
        return found

    def append(self, event: Event) -> int:
        """Its number, once the log has it. Raises StorageError."""
        self._store.put(self._key(self._last + 1), pack_event(event))
        self._last += 1
        return self._last

    def settle(self, batch: Batch, number: int) -> None:
        """Add to the batch that this event is done with."""
        batch.delete(self._key(number))
        batch.put(self._cursor, number.to_bytes(_NUMBER, "big"))

    def drop(self, number: int) -> None:
        """It is done with, and nothing is to be kept of it. Raises StorageError."""
        batch = Batch()
        self.settle(batch, number)
        self._store.write(batch)

    def _key(self, number: int) -> bytes:
        return self._prefix + number.to_bytes(_NUMBER, "big")
