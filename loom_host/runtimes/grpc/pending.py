"""One call or event in a Session that the child has not answered yet."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from loom_sdk.frames import Key, Window


class LinkLost(Exception):
    """The stream ended under what waited for it."""


class Pending:
    """What came for one key and was not taken; `next` waits for more."""

    __slots__ = ("_ended", "_failure", "_messages", "_reader", "given_up", "key", "size", "window")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.size = 0
        """Bytes of answer so far, as quota output_bytes counts them."""
        self.window = Window()
        self.given_up = False
        """Nobody reads it any more; it stays until the child has answered."""
        self._ended: asyncio.Future[None] | None = None
        self._messages: deque[Any] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._failure: Exception | None = None

    def push(self, message: Any) -> None:
        self._messages.append(message)
        self._wake()

    def fail(self, error: Exception) -> None:
        """Whatever came before is still read."""
        self._failure = self._failure or error
        self._wake()

    def give_up(self) -> asyncio.Future[None]:
        """Done with the child's last message."""
        self.given_up = True
        self._messages.clear()
        self._ended = asyncio.get_running_loop().create_future()
        return self._ended

    def end(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    async def next(self) -> Any:
        while not self._messages:
            if self._failure is not None:
                raise self._failure
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return self._messages.popleft()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
