"""leak.*: what a plugin holds does not grow with the number of its calls."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

from loom_host.conformance.census import census
from loom_host.conformance.kit import Check, Fault, Skip
from loom_host.conformance.soak import Soak, soak
from loom_host.conformance.subject import Subject

SETTLE_S = 1.0
"""For processes that end by themselves after their call."""
LOOK_S = 0.02


async def leak_memory(subject: Subject) -> None:
    found = await _held(subject)
    if found.out_of_memory:
        raise Fault(f"its examples, called again and again, ran out: {found.out_of_memory}")
    if found.leaking:
        grown = sum(found.growths) / (found.calls * len(found.growths))
        raise Fault(
            f"memory grows by about {grown / 1000:.0f} KB with each call, "
            f"{found.calls * len(found.growths)} calls long: let go of what a call was given"
        )
    renewed = found.after[-1].renewals - found.after[0].renewals
    if renewed >= len(found.growths):
        raise Fault(
            f"in {found.calls * len(found.growths)} calls its guest grew over its mark and was "
            f"renewed {renewed} times: keep less, or ask for more quota memory"
        )


async def leak_files(subject: Subject) -> None:
    found = await _held(subject)
    _steady("open files", [one.files for one in found.after], found, "close what a call opens")


async def leak_threads(subject: Subject) -> None:
    found = await _held(subject)
    _steady("threads", [one.threads for one in found.after], found, "join or reuse them")


async def leak_processes(subject: Subject) -> None:
    found = await _held(subject)
    handle, until = await subject.handle(), time.monotonic() + SETTLE_S
    while (left := census(handle, subject.tier).processes - found.first.processes) > 0:
        if time.monotonic() > until:
            raise Fault(
                f"{left} processes are left behind by its calls: wait for each one that it starts"
            )
        await asyncio.sleep(LOOK_S)


async def _held(subject: Subject) -> Soak:
    """Raises Skip where too few of the calls were answered to tell anything."""
    found = await soak(subject)
    if found.failed * 2 > found.calls * len(found.growths) and not found.out_of_memory:
        raise Skip(f"{found.failed} of its calls fail: see schema.examples")
    return found


def _steady(what: str, counts: list[int], found: Soak, advice: str) -> None:
    """Raises Fault where every batch of calls left more of them than the one before."""
    growths = [late - early for early, late in pairwise(counts)]
    if min(growths) >= max(3, found.calls // 20):
        raise Fault(
            f"{what} grew from {counts[0]} to {counts[-1]} in "
            f"{found.calls * len(growths)} calls: {advice}"
        )


LEAKS = (
    Check("leak.memory", "memory does not grow with its calls", leak_memory, ("grpc", "wasm")),
    Check("leak.files", "open files do not grow", leak_files, ("grpc", "native")),
    Check("leak.threads", "threads do not grow", leak_threads, ("grpc", "native")),
    Check("leak.processes", "calls leave no process", leak_processes, ("grpc", "native")),
)
