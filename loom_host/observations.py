"""What calls of one provider took, and how many failed: moving averages that fade with time.

Each sample weighs 1 when it comes and half as much after every half-life (exponentially weighted by
age, as the load average of Unix is, not by count: ten calls a second and one a minute are forgotten
at the same speed). An average is told while its samples weigh `ENOUGH` together; after that the
router's estimates hold again.
"""

from __future__ import annotations

HALF_LIFE_S = 60.0
"""As Unix's first load average looks back one minute."""
ENOUGH = 0.25
"""One lone sample is believed for two half-lives."""
DOUBT = 4.0
"""Weight of the assumption that a provider does not fail (additive smoothing): after one failed
call its rate is 0.2, not 1, after four in a row one half."""


class Observed:
    """One provider of one capability, as it was measured. Times are seconds of any steady clock."""

    __slots__ = ("_at", "_calls", "_failures", "_ms", "half_life_s")

    def __init__(self, half_life_s: float = HALF_LIFE_S) -> None:
        self.half_life_s = half_life_s
        self._at = 0.0
        self._calls = self._failures = self._ms = 0.0

    def answered(self, latency_ms: float, now: float) -> None:
        """A call that was served: how long its caller waited, for a stream until its first item."""
        age = now - self._at
        if age > 0:  # `_fade` in line: every call of every provider comes here
            left = 0.5 ** (age / self.half_life_s)
            self._calls, self._ms = self._calls * left + 1.0, self._ms * left + latency_ms
            self._failures *= left
        else:
            self._calls += 1.0
            self._ms += latency_ms
        self._at = now

    def failed(self, now: float) -> None:
        """A call that failed through the provider's fault; what it took is not counted."""
        self._fade(now)
        self._failures += 1.0

    def forgive(self) -> None:
        """What made it fail is over: its failures no longer count."""
        self._failures = 0.0

    def latency_ms(self, now: float) -> float | None:
        """The average of calls that were served; None where too little is left of them."""
        weight = self._calls * self._left(now)
        return self._ms / self._calls if weight >= ENOUGH else None

    def error_rate(self, now: float) -> float:
        """Share of calls that failed, 0 to 1; 0 where too little is left of them."""
        left = self._left(now)
        calls, failures = self._calls * left, self._failures * left
        return failures / (calls + failures + DOUBT) if failures >= ENOUGH else 0.0

    def _left(self, now: float) -> float:
        """What is left of every sample's weight since the last one came."""
        age = now - self._at
        return 0.5 ** (age / self.half_life_s) if age > 0 else 1.0

    def _fade(self, now: float) -> None:
        age = now - self._at
        if age > 0:
            left = 0.5 ** (age / self.half_life_s)
            self._calls *= left
            self._failures *= left
            self._ms *= left
        self._at = now
