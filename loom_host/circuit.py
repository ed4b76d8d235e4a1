"""Whether calls are kept away from one provider: closed, open or half-open.

    closed --fault--> open --time is over--> half-open --the probe is served--> closed
                       ^                         |
                       +---- the probe fails ----+  (twice as long, up to `open_max_s`)

A fault that is the provider's own (it crashed, is gone, stalled) opens the circuit at once; one
that may lie in the call (it answered with an error, and another provider answered the same call)
only `failures` times in a row. The pattern is M. Nygard's (Release It!, 2007). Nothing here reads a
clock: `now` is seconds of any steady one.
"""

from __future__ import annotations

from .settings import RoutingSettings

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half-open"


class Circuit:
    """The circuit of one provider."""

    __slots__ = ("_for_s", "failures", "reason", "state", "until")

    def __init__(self) -> None:
        self.state = CLOSED
        self.failures = 0
        """Faults in a row."""
        self.until = 0.0
        """When an open one lets a probe through."""
        self.reason = ""
        """The last fault, while it is not closed."""
        self._for_s = 0.0

    def admits(self, now: float) -> bool:
        """Whether a call may go there: it is closed, or a probe is due."""
        return self.state == CLOSED or (self.state == OPEN and now >= self.until)

    def begin(self, now: float) -> bool:
        """A call goes there; True where it is the probe. Others are kept away until it ends."""
        if self.state == OPEN and now >= self.until:
            self.state = HALF_OPEN
            return True
        return False

    def served(self) -> bool:
        """A call was served. True where that closed the circuit."""
        changed = self.state != CLOSED
        self.state, self.failures, self.reason, self._for_s = CLOSED, 0, "", 0.0
        return changed

    def failed(self, now: float, limits: RoutingSettings, reason: str, *, own: bool) -> bool:
        """A call failed. True where that opened the circuit.

        Args:
            own: the fault is the provider's for certain.
        """
        self.failures += 1
        if self.state == OPEN and now < self.until:
            return False  # a call that was on its way there before
        if self.state == CLOSED and not own and self.failures < limits.failures:
            return False
        longer = self._for_s * 2 if self._for_s else limits.open_s
        self._for_s = min(longer, limits.open_max_s)
        self.state, self.until, self.reason = OPEN, now + self._for_s, reason
        return True

    def undecided(self, now: float) -> None:
        """The probe told nothing, as one whose caller left: the next call is another."""
        if self.state == HALF_OPEN:
            self.state, self.until = OPEN, now

    def explain(self, now: float) -> str:
        """For people; empty while it is closed."""
        if self.state == CLOSED:
            return ""
        if self.state == HALF_OPEN:
            return f"circuit half-open, a probe is on its way: {self.reason}"
        left = self.until - now
        when = f"next probe in {left:.1f} s" if left > 0 else "the next call is its probe"
        return f"circuit open, {when}: {self.reason}"
