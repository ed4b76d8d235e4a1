"""What came of a run, for people, for programs and for continuous integration."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from .kit import Outcome
from .plan import Plan

_WORDS = {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def line_of(outcome: Outcome) -> str:
    """One line, and the reason below it where it failed."""
    word, tier = _WORDS[outcome.status], outcome.tier or "-"
    line = f"{word:<8} {outcome.check:<19} {tier:<7} {outcome.seconds:6.2f} s"
    if outcome.status == "failed":
        return f"{line}\n" + "\n".join(f"    {text}" for text in outcome.reason.splitlines())
    return f"{line}  {outcome.reason}".rstrip()


def sum_of(plan: Plan, outcomes: Sequence[Outcome], seconds: float) -> str:
    found = Counter(one.status for one in outcomes)
    parts = [f"{found[status]} {status}" for status in ("passed", "failed", "skipped")]
    return f"{plan.manifest.id} {plan.manifest.version}: {', '.join(parts)} in {seconds:.1f} s"


def as_data(plan: Plan, outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    """For JSON."""
    found = Counter(one.status for one in outcomes)
    return {
        "plugin": plan.manifest.id,
        "version": plan.manifest.version,
        "count": plan.count,
        "seed": plan.seed,
        "passed": found["passed"],
        "failed": found["failed"],
        "skipped": found["skipped"],
        "seconds": round(seconds, 3),
        "checks": [asdict(one) | {"seconds": round(one.seconds, 3)} for one in outcomes],
    }


def as_junit(plan: Plan, outcomes: Sequence[Outcome], seconds: float) -> bytes:
    """A JUnit XML file: one test case for each check and tier."""
    found = Counter(one.status for one in outcomes)
    numbers = {
        "tests": str(len(outcomes)), "failures": str(found["failed"]),
        "skipped": str(found["skipped"]), "errors": "0", "time": f"{seconds:.3f}",
    }  # fmt: skip
    suites = Element("testsuites")
    suite = SubElement(suites, "testsuite", {"name": plan.manifest.id, **numbers})
    for one in outcomes:
        place = f"{plan.manifest.name}.{one.tier or 'all'}"
        head = {"name": one.check, "classname": place, "time": f"{one.seconds:.3f}"}
        case = SubElement(suite, "testcase", head)
        reason = _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", one.reason)
        if one.status == "failed":
            SubElement(case, "failure", message=reason.partition("\n")[0]).text = reason
        elif one.status == "skipped":
            SubElement(case, "skipped", message=reason)
    indent(suites)
    text: bytes = tostring(suites, encoding="utf-8", xml_declaration=True)
    return text
