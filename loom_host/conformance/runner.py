"""Runs the checks in their order and gathers what came of them."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any

from loom_sdk.errors import LoomError, told

from .checks import CHECKS, FOLDER_CHECKS, OVER_CHECKS
from .kit import Check, Fault, Outcome, Skip, Status
from .plan import Plan
from .subject import Subject

LIMIT_S = 300.0
"""For one check; none of them takes so long but where the plugin holds it up."""
Began = Callable[[str, str], None]
"""Told the check and the tier before each."""


def _nobody(check: str, tier: str) -> None: ...


async def run(
    plan: Plan, tiers: Sequence[str], only: Collection[str] = (), began: Began = _nobody
) -> AsyncIterator[Outcome]:
    """Outcomes as they come.

    Args:
        tiers: those to test in, of the ones that the manifest claims.
        only: ids of checks; all where empty. `lifecycle.start` always runs, and what a check over
            all tiers needs.
    """
    if only:
        needed = [name for over in OVER_CHECKS if over.id in only for name in over.needs]
        only = {*only, "lifecycle.start", *needed}
    subjects: list[Subject] = []
    for check in FOLDER_CHECKS:
        if not only or check.id in only:
            began(check.id, "")
            yield await _outcome(plan, check.id, "", lambda of=check: of.run(plan))  # type: ignore[misc]
    for tier in tiers:
        async with Subject(plan, tier) as subject:
            subjects.append(subject)
            for one in CHECKS:
                if not only or one.id in only:
                    began(one.id, tier)
                    yield await _outcome(plan, one.id, tier, lambda of=one: _run(of, subject))  # type: ignore[misc]
    for over in OVER_CHECKS:
        if not only or over.id in only:
            began(over.id, "")
            yield await _outcome(plan, over.id, "", lambda of=over: of.run(subjects))  # type: ignore[misc]


async def _run(check: Check, subject: Subject) -> str | None:
    if subject.tier not in check.tiers:
        raise Skip(f"does not apply to the {subject.tier} tier")
    return await check.run(subject)


async def _outcome(plan: Plan, check: str, tier: str, work: Callable[[], Any]) -> Outcome:
    began = time.monotonic()
    status: Status = "failed"
    try:
        if why := plan.stand_ins.skip.get(check):
            raise Skip(why)
        async with asyncio.timeout(LIMIT_S):
            note = work()
            note = await note if inspect.isawaitable(note) else note
        status, reason = "passed", note or ""
    except Skip as end:
        status, reason = "skipped", str(end)
    except Fault as end:
        reason = str(end)
    except LoomError as error:
        reason = f"{type(error).__name__}: {told(error)}"
    except TimeoutError:
        reason = f"did not come to an end within {LIMIT_S:g} s"
    return Outcome(check, tier, status, reason, time.monotonic() - began)
