"""Where a guest lives: the border between a plugin of the wasm tier and its isolation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from .ticket import Ticket

STOP_GRACE_S = 0.25
"""How long a guest that was told to stop, or is past its deadline, may take to return: then its
thread is abandoned or its worker killed."""


REST_S = 1.0
"""How long an idle guest's `shutdown` may take."""


@dataclass(slots=True)
class Tally:
    """What a cell has used: bytes, seconds, counts over its whole life."""

    memory: int = 0
    peak: int = 0
    cpu_s: float = 0.0
    starts: int = 0
    """Guests that were initialised."""
    abandoned: int = 0
    """Threads that did not come back."""
    killed: int = 0
    """Workers that were killed."""
    pid: int = 0
    fuel: int = 0
    """Instructions, where they are metered."""

    @property
    def renewals(self) -> int:
        """Guests that took another's place."""
        return max(0, self.starts - 1)

    def add(self, other: Tally) -> None:
        """Count another cell's, too; the peaks as if they had been at once."""
        self.memory += other.memory
        self.peak += other.peak
        self.cpu_s += other.cpu_s
        self.starts += other.starts
        self.abandoned += other.abandoned
        self.killed += other.killed
        self.pid = self.pid or other.pid
        self.fuel += other.fuel


class Cell(Protocol):
    """Runs one export at a time; the seat that it is in keeps the order."""

    enforcement: Mapping[str, str]
    layers: Mapping[str, str]
    """What the kernel holds the guest's process to, layer by layer; empty in a thread."""

    @property
    def fit(self) -> bool:
        """Whether it has a guest that may serve; without one only `init` can be called."""
        ...

    async def call(self, name: str, argument: Any, ticket: Ticket) -> Any:
        """Run an export of plugin.wit; `init`, with the init request, makes a new guest.

        Cancelling stops the guest. Whatever happens, this ends at most STOP_GRACE_S after the
        ticket's deadline, in the process isolation; a thread may stay behind in the host.
        """
        ...

    def stop(self, ticket: Ticket, reason: str) -> None:
        """End the running call: it raises PluginCrashed with the reason."""
        ...

    async def rest(self, ticket: Ticket) -> None:
        """Let an idle guest run its `shutdown` and give up what it holds: it is not fit then."""
        ...

    def tally(self) -> Tally: ...

    async def aclose(self) -> None:
        """Free everything. No call runs."""
        ...
