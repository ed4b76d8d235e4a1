"""What becomes of events that are published to the plugin under test."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass

from loom_host.bus import DEAD_LETTER, Subscription
from loom_host.handle import PluginHandle
from loom_host.host import Host
from loom_sdk import QoS

from .samples import Sample, again

LOOK_S = 0.002
LETTER_S = 2.0
"""For an event that ended the plugin to be delivered again, and given up."""
MARGIN_S = 5.0
"""Beside the handlers' own deadline, for a plugin that is started again meanwhile."""


@dataclass(slots=True)
class _Counts:
    restarts: int
    redelivered: int
    dropped: int


class Listening:
    """Counts from now on. Use it as `async with Listening(host, handle) as heard`."""

    def __init__(self, host: Host, handle: PluginHandle) -> None:
        self._host, self._handle = host, handle
        self._letters = host.bus.subscribe(
            DEAD_LETTER,
            qos=QoS.BACKGROUND,
            filter=lambda event: event.metadata.get("subscription", "").startswith(self._prefix),
        )
        self._before = self._counts()
        self.reasons: list[str] = []
        """Of the dead letters so far."""

    async def __aenter__(self) -> Listening:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._letters.close()

    @property
    def _prefix(self) -> str:
        return f"{self._handle.name}:"

    def _subscriptions(self) -> list[Subscription]:
        found = self._host.bus.subscriptions()
        return [one for one in found if one.name.startswith(self._prefix)]

    def _counts(self) -> _Counts:
        stats = [one.stats() for one in self._subscriptions()]
        return _Counts(
            self._handle.counters.restarts,
            sum(one["redelivered"] for one in stats),
            sum(sum(one["dropped"].values()) for one in stats),
        )

    async def tell(self, sample: Sample) -> None:
        await self._host.bus.publish(sample.topic, again(sample.event))

    async def settled(self, seconds: float = 0) -> bool:
        """Whether all is handled or given up, within the handlers' own time or `seconds`."""
        own = self._handle.spec.quotas.deadline_ms / 1000 + MARGIN_S
        until = time.monotonic() + (seconds or own)
        while self._busy() and not self.ended:
            if time.monotonic() > until:
                return False
            await asyncio.sleep(LOOK_S)
        while self._letters.depth:
            self.reasons.append((await anext(self._letters)).metadata["reason"])
        return True

    def _busy(self) -> bool:
        waiting = any(one.depth or one.in_flight for one in self._subscriptions())
        return waiting or self._host.busy()

    @property
    def ended(self) -> bool:
        """Whether the plugin ended meanwhile, or lost its guest."""
        now = self._counts()
        restarted = now.restarts > self._before.restarts
        again_told = now.redelivered > self._before.redelivered
        ends = any(reason.startswith("plugin ended") for reason in self.reasons)
        return restarted or again_told or ends or not self._handle.serves

    async def why_ended(self) -> str:
        """Of the dead letter that follows, else what the host says of the plugin."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LETTER_S):
                while not self.reasons:
                    self.reasons.append((await anext(self._letters)).metadata["reason"])
        return self.reasons[0] if self.reasons else self._handle.explain()

    @property
    def dropped(self) -> int:
        """Events for which it was too slow."""
        return self._counts().dropped - self._before.dropped
