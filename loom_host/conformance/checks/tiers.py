"""tiers.same: one plugin, whatever it runs in."""

from __future__ import annotations

from collections.abc import Sequence

from loom_host.conformance.comparison import difference, shown
from loom_host.conformance.kit import Fault, OverCheck, Skip
from loom_host.conformance.subject import Subject


def tiers_same(subjects: Sequence[Subject]) -> str | None:
    """Whole answers of the examples that gave the same when asked again; of others what is said."""
    if len(subjects) < 2:
        raise Skip("it was tested in one tier only")
    compared, (first, *others) = 0, subjects
    for number, example in enumerate(first.plan.examples):
        for other in others:
            if number not in first.answers or number not in other.answers:
                continue
            compared += 1
            one, two = first.answers[number], other.answers[number]
            steady = number in first.steady and number in other.steady
            wrong = [bool(difference(example.output, each)) for each in (one, two)]
            if (steady and one != two) or wrong[0] != wrong[1]:
                raise Fault(
                    f"{example.spec.name} with {shown(example.arguments)} answers {shown(one)} in "
                    f"the {first.tier} tier, {shown(two)} in the {other.tier} tier"
                )
    if not compared:
        raise Skip("no example was answered in two tiers")
    return None


TIERS_SAME = OverCheck(
    "tiers.same",
    "examples give the same in all its tiers",
    tiers_same,
    ("schema.examples", "effects.repeat", "lifecycle.restart"),
)
