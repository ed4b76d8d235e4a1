"""The conformance kit over the plugins of tests/broken and tests/conforming."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from loom_host.conformance.checks import CHECKS, FOLDER_CHECKS, OVER_CHECKS
from loom_host.conformance.kit import Outcome
from loom_host.conformance.plan import plan_of
from loom_host.conformance.runner import run

from .test_broken_plugins import BROKEN, fault_of

OF_THE_HOST = ("permissions.denied", "quotas.trip")
"""Whether these hold is up to the host: test_conformance_probe.py tries them."""
IDS = tuple(
    name
    for name in (
        *(one.id for one in FOLDER_CHECKS),
        *(one.id for one in CHECKS),
        *(one.id for one in OVER_CHECKS),
    )
    if name not in OF_THE_HOST
)
COUNT, START_S, GRACE_S = 100, 20.0, 1.5
NEVER_S = 2.0
"""For the start of what never starts."""


def part(number: int, of: int = 3) -> list[Path]:
    """The plugins of one test file: files are what the workers share out."""
    return BROKEN[number::of]


async def outcomes_of(
    folder: Path,
    tiers: Sequence[str],
    start_s: float,
    *,
    count: int = COUNT,
    checks: Sequence[str] = IDS,
) -> list[Outcome]:
    plan = plan_of(folder, count=count, start_s=start_s, grace_s=GRACE_S)
    return [outcome async for outcome in run(plan, tiers, checks)]


def failed(outcomes: Sequence[Outcome]) -> dict[str, str]:
    return {one.check: one.reason for one in outcomes if one.status == "failed"}


async def check_flagged(folder: Path) -> None:
    """Its own check flags it, and no other but those that may."""
    fault = fault_of(folder)
    check, tier = fault["check"], fault["tier"]
    tiers = (tier, *other_tiers(folder, tier)) if check == "tiers.same" else (tier,)
    start_s = NEVER_S if check == "lifecycle.start" else START_S
    found = failed(await outcomes_of(folder, tiers, start_s))
    assert check in found, found
    assert not found.keys() - {check, *fault.get("also", ())}, found
    assert found[check]


def other_tiers(folder: Path, tier: str) -> tuple[str, ...]:
    return tuple(one for one in plan_of(folder).manifest.tiers if one != tier)
