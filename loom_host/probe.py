"""Asks a provider that is kept away whether it is well again, where no call may be the probe."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from loom_sdk.errors import encode

from .announce import Announcer
from .registry import Offer
from .settings import RoutingSettings

HEALTH_TIMEOUT_S = 2.0
"""As the supervisor waits for a health check."""


class Prober:
    """Health checks in the background; one at a time for a provider, as its circuit demands."""

    def __init__(
        self, limits: RoutingSettings, clock: Callable[[], float], announce: Announcer
    ) -> None:
        self._limits, self._clock, self._announce = limits, clock, announce
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, offer: Offer) -> None:
        """Probe its provider where a probe is due."""
        handle = offer.handle
        if not handle.circuit.begin(self._clock()):
            return
        self._announce.circuit(handle)
        task = asyncio.create_task(self._probe(offer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _probe(self, offer: Offer) -> None:
        handle, circuit = offer.handle, offer.handle.circuit
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                sick = await (await handle.ready()).health()
        except Exception as error:
            sick = encode(error).message or "its health check did not end"
        except asyncio.CancelledError:
            circuit.undecided(self._clock())
            raise
        if sick:
            circuit.failed(self._clock(), self._limits, sick, own=True)
        else:
            circuit.served()
            offer.seen.forgive()
        self._announce.circuit(handle)

    async def aclose(self) -> None:
        """Break off what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
