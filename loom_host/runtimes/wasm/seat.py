"""A cell with all that its guest needs to begin: runs its exports one at a time, makes it anew."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any

from loom_sdk.errors import LoomError

from .cell import REST_S, Cell
from .folder_watch import FolderWatch
from .ticket import Ticket


class Seat:
    """One place for a guest.

    Args:
        request: what `init` gets.
        start_timeout_s: how long a guest may take to be loaded and initialised.
    """

    def __init__(
        self, cell: Cell, watch: FolderWatch, request: dict[str, Any], start_timeout_s: float
    ) -> None:
        self.cell = cell
        self._watch, self._request, self._start_timeout_s = watch, request, start_timeout_s
        self._turn = asyncio.Lock()
        self._running: Ticket | None = None
        self.last_use = 0.0

    @property
    def fit(self) -> bool:
        """Whether a guest is there that can serve."""
        return self.cell.fit

    async def run(self, name: str, argument: Any, ticket: Ticket) -> Any:
        """Run one export. A cancellation stops the guest. Raises as `Cell.call`."""
        async with self._turn:
            self._running = ticket
            try:
                if not self._watch.needed:
                    return await self.cell.call(name, argument, ticket)
                async with self._watched(ticket):
                    return await self.cell.call(name, argument, ticket)
            finally:
                self._running = None

    def _watched(self, ticket: Ticket) -> AbstractAsyncContextManager[None]:
        return self._watch.during(lambda why: self.cell.stop(ticket, why))

    async def renew(self) -> Any:
        """A new guest in place of the one that is there: its answer to `init`."""
        return await self.run("init", self._request, Ticket("", self._start_timeout_s))

    def stop(self, reason: str) -> None:
        """End the call that runs, if one does."""
        if self._running is not None:
            self.cell.stop(self._running, reason)

    async def rest(self) -> None:
        """Let an idle guest shut down and give up what it holds."""
        async with self._turn:
            ticket = Ticket("", REST_S)
            try:
                async with self._watched(ticket):
                    await self.cell.rest(ticket)
            except LoomError:  # its folders are full: its own `stop` is not run
                await self.cell.rest(Ticket("", 0.0))

    async def aclose(self, grace_s: float) -> None:
        """Let a running call go on for `grace_s`, then the guest's `shutdown`; free everything."""
        late = asyncio.get_running_loop().call_later(grace_s, self.stop, "closed by the host")
        try:
            await self.run("shutdown", None, Ticket("", max(grace_s, 0.1)))
        except LoomError:
            pass  # it ends now, whatever its `stop` said
        finally:
            late.cancel()
            await self.cell.aclose()
