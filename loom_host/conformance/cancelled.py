"""Gives a call up and looks whether the plugin stops working on it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from loom_host.handle import PluginHandle

from .subject import Subject

STOP_S = 1.0
"""For the plugin to stop working on a call that nobody waits for."""
LOOK_S = 0.01


async def cancelled(subject: Subject, call: asyncio.Task[Any]) -> bool:
    """Whether it stopped soon; where it did not, its host is stopped, and the next check's new."""
    handle = await subject.handle()
    call.cancel()
    until = time.monotonic() + STOP_S
    while not call.done() or await _works(handle):
        if time.monotonic() > until:
            await subject.stop()
            await asyncio.gather(call, return_exceptions=True)
            return False
        await asyncio.sleep(LOOK_S)
    await asyncio.gather(call, return_exceptions=True)
    return True


async def _works(handle: PluginHandle) -> bool:
    """Whether a call is still at work although nobody waits for it, as far as the tier tells."""
    instance = handle.instance
    if instance is None or handle.spec.tier == "wasm":  # a guest is stopped, whatever it does
        return False
    if handle.spec.tier == "native":
        return "abandoned" in await instance.health()
    return bool(getattr(instance, "winding", 0))
