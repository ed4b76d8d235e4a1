"""Waits for what a plugin has in hand to end, before it is stopped."""

from __future__ import annotations

import asyncio
import logging
import time

from loom_sdk.errors import PluginUnhealthy

from .handle import PluginHandle

log = logging.getLogger("loom.changes")

LOOK_S = 0.01
OVERDUE_S = 1.0
"""So long after its deadline what is still in hand is given up."""


async def emptied(handle: PluginHandle, patience_s: float) -> None:
    """Wait until no call and no event is in its hands."""
    until = time.monotonic() + patience_s
    while handle.inflight and time.monotonic() < until:  # noqa: ASYNC110  # it has no event
        await asyncio.sleep(LOOK_S)


async def let_end(handle: PluginHandle) -> None:
    """Wait until what it has in hand has ended, each within its own deadline.

    What is there after the latest of them is told in the log and ended with PluginUnhealthy.
    """
    while flights := tuple(handle.inflight.values()):
        if time.monotonic() < max(flight.deadline for flight in flights) + OVERDUE_S:
            await asyncio.sleep(LOOK_S)
            continue
        ids = ", ".join(flight.id for flight in flights)
        why = f"{handle.name} was replaced, and did not end within the deadline: {ids}"
        log.warning("%s", why)
        for flight in flights:
            flight.end(PluginUnhealthy(why, plugin_id=handle.spec.id))
        return
