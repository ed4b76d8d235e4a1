"""Runs the checks in their order and gathers what came of them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection, Sequence

from loom_sdk.errors import LoomError

from .checks import CHECKS, FOLDER_CHECKS, OVER_CHECKS
from .kit import Check, Fault, Outcome, Skip, Status
from .plan import Plan
from .subject import Subject


async def run(
    plan: Plan, tiers: Sequence[str], only: Collection[str] = ()
) -> AsyncIterator[Outcome]:
    """Outcomes as they come.

    Args:
        tiers: those to test in, of the ones that the manifest claims.
        only: ids of checks; all where empty. `lifecycle.start` always runs.
    """
    for check in FOLDER_CHECKS:
        if not only or check.id in only:
            began = time.monotonic()
            try:
                check.run(plan)
                status, reason = _passed()
            except (Fault, Skip) as end:
                status, reason = _ended(end)
            yield Outcome(check.id, "", status, reason, time.monotonic() - began)
    subjects = []
    for tier in tiers:
        async with Subject(plan, tier) as subject:
            subjects.append(subject)
            for one in CHECKS:
                if not only or one.id in only or one.id == "lifecycle.start":
                    yield await _check(one, subject)
    for over in OVER_CHECKS:
        if not only or over.id in only:
            began = time.monotonic()
            try:
                over.run(subjects)
                status, reason = _passed()
            except (Fault, Skip) as end:
                status, reason = _ended(end)
            yield Outcome(over.id, "", status, reason, time.monotonic() - began)


async def _check(check: Check, subject: Subject) -> Outcome:
    began = time.monotonic()
    try:
        if subject.tier not in check.tiers:
            raise Skip(f"does not apply to the {subject.tier} tier")
        if why := subject.plan.stand_ins.skip.get(check.id):
            raise Skip(why)
        await check.run(subject)
        status, reason = _passed()
    except (Fault, Skip) as end:
        status, reason = _ended(end)
    except LoomError as error:
        status, reason = "failed", f"{type(error).__name__}: {error.message}"
    return Outcome(check.id, subject.tier, status, reason, time.monotonic() - began)


def _passed() -> tuple[Status, str]:
    return "passed", ""


def _ended(end: Fault | Skip) -> tuple[Status, str]:
    return ("skipped" if isinstance(end, Skip) else "failed"), str(end)
