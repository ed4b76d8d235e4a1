"""The same examples again and again, and what the plugin holds in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, pairwise

from loom_host.handle import PluginHandle
from loom_sdk.errors import (
    DeadlineExceeded,
    LoomError,
    PluginCrashed,
    PluginUnhealthy,
    QuotaExceeded,
)

from .census import Census, census
from .fresh import Once, fresh
from .kit import Skip
from .plan import Example
from .subject import Subject

LEAST_CALLS, MOST_CALLS = 10, 300
"""In a batch."""
BATCH_MOST_S, BATCH_S = 4.0, 0.02
"""A batch may take, and for each call of the plan's count."""
BATCHES, MOST_BATCHES = 2, 8
"""More than two where memory has grown: what an allocator or a collector puts off comes to its end
within a few hundred calls, a leak does not."""
GUEST_LOOK_S = 0.3
"""A keeper of guests reads their memory four times a second."""
LEAK_BYTES = 20_000
"""By which each call makes memory grow before it is called a leak."""
LEAK_LEAST = 1024**2
"""And a batch at least by so much."""


@dataclass(slots=True)
class Soak:
    """What was counted."""

    first: Census
    """Once the plugin is ready, before any call."""
    after: list[Census] = field(default_factory=list)
    """After the warm-up, and after each batch."""
    calls: int = 0
    """In each batch."""
    failed: int = 0
    out_of_memory: str = ""

    @property
    def growths(self) -> list[int]:
        """Of memory, batch by batch, in bytes."""
        sizes = [one.memory for one in self.after]
        return [late - early for early, late in pairwise(sizes)]

    @property
    def leaking(self) -> bool:
        """Whether memory grew in every batch, but at most one."""
        least = max(LEAK_BYTES * self.calls, LEAK_LEAST)
        still = sum(growth < least for growth in self.growths)
        return still < (1 if len(self.growths) <= BATCHES else 2)


async def _soak(subject: Subject) -> Soak:
    """In the host in which it was started anew, if that still runs."""
    examples = repeatable(subject.plan.examples)
    before = (await fresh(subject)).before
    handle = await subject.handle()
    found = Soak(before or census(handle, subject.tier))
    asked = min(max(subject.plan.count, 2 * LEAST_CALLS), MOST_CALLS)
    try:
        await _batch(subject, examples, max(asked // 4, 2 * len(examples)), found)
        found.after.append(await _reading(handle, subject.tier))
        found.calls = await _batch(subject, examples, asked, found)
        if found.calls < LEAST_CALLS:
            raise Skip(f"it answers {found.calls} calls in the time: too few to tell a leak by")
        found.after.append(await _reading(handle, subject.tier))
        while len(found.growths) < BATCHES or (found.leaking and len(found.growths) < MOST_BATCHES):
            await _batch(subject, examples, found.calls, found, patient=True)
            found.after.append(await _reading(handle, subject.tier))
    except (DeadlineExceeded, PluginCrashed, PluginUnhealthy) as error:
        raise Skip(f"its examples end it: {error.message}") from error
    return found


soak = Once(_soak)
"""Raises Skip where it cannot be done."""


def repeatable(examples: Sequence[Example]) -> list[Example]:
    """Those that leave nothing behind that is theirs to leave. Raises Skip where there are none."""
    quick = [one for one in examples if not one.slow]
    found = [one for one in quick if one.spec.effects != "once"]
    if not quick:
        raise Skip("it has no examples to call")
    if not found:
        raise Skip('its examples all have effects = "once": what they keep may be theirs to keep')
    return found


async def _reading(handle: PluginHandle, tier: str) -> Census:
    """How large a guest is, is looked at with a call, and only so often."""
    if tier == "wasm" and handle.instance is not None:
        await asyncio.sleep(GUEST_LOOK_S)
        await handle.instance.health()
    return census(handle, tier)


async def _batch(
    subject: Subject, examples: list[Example], count: int, found: Soak, patient: bool = False
) -> int:
    """So many calls, or those that the time has room for; how many."""
    until = time.monotonic() + min(BATCH_S * subject.plan.count, BATCH_MOST_S)
    made = 0
    for example in cycle(examples):
        if made == count or (time.monotonic() > until and not patient):
            break
        made += 1
        try:
            await subject.call(example)
        except QuotaExceeded as error:
            found.failed += 1
            if error.quota == "memory":
                found.out_of_memory = error.message
        except (DeadlineExceeded, PluginCrashed, PluginUnhealthy):
            raise
        except LoomError:
            found.failed += 1
    return made
