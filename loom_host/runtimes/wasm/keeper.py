"""Has one guest: makes it, initialises it, tells when it is to be renewed. Synchronous; the same in
both isolations, in a thread of the host and in a worker process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from loom_sdk.driver import negotiate
from loom_sdk.errors import PluginCrashed, QuotaExceeded

from .contract import Loaded
from .engine import Engine, Guest
from .preopens import Preopen
from .ticket import Ticket, TicketedPort
from .traps import Limits

HIGH_WATER = 0.75
"""Part of the room to grow above which a guest is renewed between calls: componentize-py keeps
every `list<u8>` that a guest sends."""
STATELESS_ROOM = 14 * 1024**2
"""Bytes of growth that suffice where nothing is lost by renewing: a pool's guests stay small."""
_MEMORY_CHECK_S = 0.25


class Keeper:
    """At most one guest of one component at a time; used by one thread at a time.

    Args:
        new_port: the host API for a new guest, which owns it.
    """

    def __init__(
        self,
        engine: Engine,
        loaded: Loaded,
        limits: Limits,
        new_port: Callable[[], TicketedPort],
        preopens: tuple[Preopen, ...] = (),
    ) -> None:
        self._engine, self._loaded, self._limits = engine, loaded, limits
        self._preopens = preopens
        self._new_port, self._linker = new_port, engine.linker(loaded)
        self._guest: Guest | None = None
        self._at_start, self._next_check, self._returned = 0, 0.0, 0
        self.starts = self.peak = self.seen = 0
        """Guests that were initialised; most and latest bytes of memory seen."""
        self._too_large = False

    def run(self, name: str, argument: Any, ticket: Ticket) -> Any:
        """Serve one export; `init` makes a new guest in place of the one that is there.

        Raises the errors of `Guest`.
        """
        if name == "init":
            return self._renew(argument, ticket)
        guest = self._guest
        if guest is None or guest.dead:
            if name == "shutdown":
                return None
            who = self._limits.plugin_id
            raise PluginCrashed(f"{who}: there is no guest to run {name}", plugin_id=who)
        try:
            answer = guest.call(name, () if argument is None else (argument,), ticket)
            if name == "invoke":
                self._returned += len(answer["payload"])
            return answer
        except QuotaExceeded as error:
            guest.dead = guest.dead or error.quota == "memory"
            raise
        finally:
            self._too_large = self._too_large or self._above_high_water()

    @property
    def fit(self) -> bool:
        """Whether the guest may serve the next call."""
        return self._guest is not None and not self._guest.dead and not self._too_large

    def _renew(self, request: dict[str, Any], ticket: Ticket) -> Any:
        self.close()
        self._too_large = False
        guest = self._guest = Guest(
            self._engine, self._loaded, self._linker, self._new_port(), self._limits, self._preopens
        )
        try:
            guest.open(ticket)
            answer = guest.call("init", (request,), ticket)
        except BaseException:
            guest.dead = True
            raise
        self.starts += 1
        self._at_start = self.memory_bytes()
        negotiate([answer["api-version"]], self._limits.plugin_id)
        return answer

    def _above_high_water(self) -> bool:
        """Looks four times a second, since reading the kernel's map takes half a millisecond, and
        as soon as what the guest returned may have taken an eighth of its room.
        """
        room = max(0, self._limits.memory - self._at_start) * HIGH_WATER
        if self._limits.stateless:
            room = min(room, STATELESS_ROOM)
        if time.monotonic() < self._next_check and self._returned < room / 8:
            return False
        self._next_check, self._returned = time.monotonic() + _MEMORY_CHECK_S, 0
        return self.memory_bytes() > self._at_start + room

    def memory_bytes(self) -> int:
        """Linear memory of the guest now."""
        guest = self._guest
        self.seen = 0 if guest is None or guest.dead else guest.memory_bytes()
        self.peak = max(self.peak, self.seen)
        return self.seen

    def close(self) -> None:
        """Free the guest's store."""
        guest, self._guest = self._guest, None
        if guest is not None:
            guest.close()

    def successor(self) -> Keeper:
        """Another one, for when a guest's thread does not come back and keeps the guest."""
        new = Keeper(self._engine, self._loaded, self._limits, self._new_port, self._preopens)
        new.starts, new.peak = self.starts, self.peak
        return new
