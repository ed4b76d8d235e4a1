"""What one run of guest code may use, and how it is told to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from loom_sdk.port import Port

TELLS_AHEAD = 32
"""Log lines and spans that a guest may send before it waits for the host to have read them."""


class Stopped(Exception):
    """The call that the guest serves has ended; whoever waits for it must let go."""


class Ticket:
    """Limits of one call: a deadline, processor time, and a reason to stop once there is one.

    Args:
        timeout_s: wall time from now.
        cpu_s: processor seconds of the running thread, 0 for no limit.
        fuel: instructions, 0 for no limit.
    """

    def __init__(
        self,
        call_id: str,
        timeout_s: float = 30.0,
        cpu_s: float = 0.0,
        traceparent: str = "",
        fuel: int = 0,
    ) -> None:
        self.call_id, self.traceparent = call_id, traceparent
        self.timeout_s, self.cpu_s = timeout_s, cpu_s
        self.began = time.monotonic()
        self.deadline = self.began + timeout_s
        self.fuel, self.fuel_used = fuel, 0
        self.output_bytes = 0
        self.reason = ""
        """Why the guest must stop or was stopped: `deadline`, `cpu`, `cancelled`, `closed`."""
        self._cpu_began: float | None = None
        self._on_stop: Callable[[], object] | None = None

    def begin(self) -> None:
        """Called in the thread that runs the guest, just before it does."""
        self._cpu_began = time.thread_time()

    def restart(self) -> None:
        """Count the deadline from now."""
        self.deadline = time.monotonic() + self.timeout_s

    def cpu_used_s(self) -> float:
        return 0.0 if self._cpu_began is None else time.thread_time() - self._cpu_began

    def remaining_ms(self) -> int:
        return max(0, int((self.deadline - time.monotonic()) * 1000))

    def elapsed_us(self) -> int:
        return int((time.monotonic() - self.began) * 1_000_000)

    def check(self) -> str:
        """Asked at every epoch in the guest's thread: empty, or why to stop now."""
        if not self.reason:
            if time.monotonic() >= self.deadline:
                self.reason = "deadline"
            elif self.cpu_s and self.cpu_used_s() >= self.cpu_s:
                self.reason = "cpu"
        return self.reason

    def waiting(self, on_stop: Callable[[], object] | None) -> None:
        """What to call when a stop comes while the guest's thread waits for the host."""
        self._on_stop = on_stop
        if on_stop is not None and self.reason:
            on_stop()

    def stop(self, reason: str) -> None:
        """From any thread. The engine's epoch must be moved afterwards."""
        self.reason = self.reason or reason
        if (on_stop := self._on_stop) is not None:
            on_stop()


class TicketedPort(Port, Protocol):
    """The host API for one guest. Its waits end with the ticket: they raise Stopped."""

    ticket: Ticket
