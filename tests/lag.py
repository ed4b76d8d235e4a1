"""How late an event loop is because the machine had no processor for it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from pathlib import Path


class Lag:
    """Summed up from when `run` begins, in the thread of the loop.

    A loop that its own program holds up is late, too; that is not counted where the kernel tells
    how long the thread waited for a processor: the second number of its `schedstat`, in ns.
    """

    STEP_S = 0.01

    def __init__(self) -> None:
        self.total = 0.0
        """Seconds."""
        self._ticks: deque[tuple[float, float]] = deque([(0.0, 0.0)], maxlen=1000)
        self._due, self._waited = time.monotonic(), _waited_s()

    async def run(self) -> None:
        while True:
            self._due, self._waited = time.monotonic() + self.STEP_S, _waited_s()
            await asyncio.sleep(self.STEP_S)
            self.total += self._late()
            self._ticks.append((time.monotonic(), self.total))

    def since(self, begin: float) -> float:
        """Seconds, from a moment in the last ten seconds until now."""
        before = next((total for at, total in reversed(self._ticks) if at <= begin), self.total)
        return self.total - before + self._late()

    def _late(self) -> float:
        """Of the tick that is under way."""
        late, waited = max(0.0, time.monotonic() - self._due), _waited_s()
        if waited is None or self._waited is None:
            return late
        return min(late, waited - self._waited)


def _waited_s() -> float | None:
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    return None
