"""`loom plugin test`: whether a plugin keeps to what it says and to what every plugin owes."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import WrongUsage, add_json, print_json, print_table, whole_number

if TYPE_CHECKING:
    from loom_host.conformance.kit import Outcome
    from loom_host.conformance.plan import Plan


PROBING = ("permissions.denied", "quotas.trip")
"""Checks with the kit's own probe."""
PROBE_IS_BUILT = "building the kit's own probe for the wasm tier: a minute, once on this machine"


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser("test", help="run the conformance checks over a plugin's folder")
    parser.add_argument("folder", nargs="?", default=".", help="holds plugin.toml; default: here")
    parser.add_argument(
        "--tier", action="append", default=[], help="one to test in; default: all that it claims"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="ID", help="a check to run; default: all"
    )
    parser.add_argument(
        "--count", type=_from_one, help="made-up calls and events, and repeats; default: 1000"
    )
    parser.add_argument("--seed", type=whole_number, default=0, help="of all that is made up")
    parser.add_argument("--start-s", type=_seconds, help="how long a start may take; default: 30")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML there, too")
    parser.add_argument("--list", action="store_true", help="list the checks instead")
    add_json(parser)
    parser.set_defaults(handler=run)


def _from_one(text: str) -> int:
    if not whole_number(text):
        raise argparse.ArgumentTypeError("at least 1")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: a number of seconds above 0")
    return value


async def run(arguments: argparse.Namespace) -> int:
    """1 where a check failed."""
    if arguments.list:
        return _list(arguments.json)
    from loom_host.conformance import report  # no other command needs it

    plan = _plan(arguments)
    began = time.monotonic()
    outcomes = await _outcomes(plan, arguments)
    took = time.monotonic() - began
    if arguments.junit is not None:
        arguments.junit.write_bytes(report.as_junit(plan, outcomes, took))
    if arguments.json:
        print_json(report.as_data(plan, outcomes, took))
    else:
        print(report.sum_of(plan, outcomes, took))
    return int(any(one.status == "failed" for one in outcomes))


def _plan(arguments: argparse.Namespace) -> Plan:
    from loom_host.conformance.plan import COUNT, START_S, plan_of

    folder = Path(arguments.folder)
    if not (folder / "plugin.toml").is_file():
        raise WrongUsage(f"{folder} has no plugin.toml: name the folder of a plugin")
    count, start_s = arguments.count or COUNT, arguments.start_s or START_S
    return plan_of(folder, count=count, seed=arguments.seed, start_s=start_s)


async def _outcomes(plan: Plan, arguments: argparse.Namespace) -> list[Outcome]:
    from loom_host.conformance import report
    from loom_host.conformance.runner import run as run_checks

    tiers = _tiers(plan, arguments.tier)
    _check_ids([*arguments.only, *plan.stand_ins.skip])
    progress, outcomes = _Progress(), []
    async for outcome in run_checks(plan, tiers, arguments.only, progress.show):
        progress.clear()
        outcomes.append(outcome)
        if not arguments.json:
            print(report.line_of(outcome), flush=True)
    return outcomes


def _tiers(plan: Plan, wanted: Sequence[str]) -> Sequence[str]:
    claimed = plan.manifest.tiers
    if unclaimed := [tier for tier in wanted if tier not in claimed]:
        raise WrongUsage(
            f"{plan.manifest.id} does not claim the tier {unclaimed[0]!r}, only "
            f"{', '.join(claimed)}: see `tiers` in its plugin.toml"
        )
    return list(dict.fromkeys(wanted)) or claimed


def _check_ids(ids: Sequence[str]) -> None:
    from loom_host.conformance.checks import CHECKS, FOLDER_CHECKS, OVER_CHECKS

    known = {one.id for one in CHECKS}
    known |= {one.id for one in FOLDER_CHECKS} | {one.id for one in OVER_CHECKS}
    if unknown := [name for name in ids if name not in known]:
        raise WrongUsage(f"{unknown[0]!r} is no check: `loom plugin test --list` lists them")


def _list(as_json: bool) -> int:
    from loom_host.conformance.checks import CHECKS, FOLDER_CHECKS, OVER_CHECKS

    rows = [(one.id, "before any start", one.title) for one in FOLDER_CHECKS]
    rows += [(one.id, ", ".join(one.tiers), one.title) for one in CHECKS]
    rows += [(one.id, "over all", one.title) for one in OVER_CHECKS]
    if as_json:
        print_json([{"id": name, "tiers": tiers, "title": title} for name, tiers, title in rows])
    else:
        print_table(("CHECK", "TIERS", "WHAT HOLDS"), rows)
    return 0


class _Progress:
    """What runs now, on a line of a terminal that is then taken away again."""

    def __init__(self) -> None:
        self._on = sys.stderr.isatty()

    def _built(self) -> bool:
        from loom_host.conformance.stage import probe_is_built

        return probe_is_built()

    def show(self, check: str, tier: str) -> None:
        if tier == "wasm" and check in PROBING and not self._built():
            self.clear()
            print(PROBE_IS_BUILT, file=sys.stderr, flush=True)
        if self._on:
            print(f"\r\x1b[2K... {check} {tier}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._on:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
