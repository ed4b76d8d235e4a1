"""The router's decision table: every rule, in its order, and both sides of every bound."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from loom_host.router import CLOUD_MS, HYBRID_MS, LOCAL_MS, Candidate, Decision, decide
from loom_host.settings import PRIVACY, Policy


def local(confidence: float = 0.7, **fields: Any) -> Candidate:
    return Candidate("here", "local", confidence, **fields)


def cloud(cost: float = 0.0, **fields: Any) -> Candidate:
    return Candidate("there", "cloud", 0.9, cost=cost, **fields)


LOCAL_ONLY = Policy(privacy="local-only")
PRIVATE = Policy(privacy="private")
GONE: dict[str, Any] = {"available": False, "why_not": "failed"}

TABLE: list[tuple[str, list[Candidate], Policy, str, str, tuple[str, ...]]] = [
    ("local-only", [cloud(), local()], LOCAL_ONLY, "Local",
     "Privacy policy requires local-only processing", ("here",)),
    ("private", [cloud(), local(0.1)], PRIVATE, "Local",
     "Privacy policy forbids cloud processing", ("here",)),
    ("local-only without local", [cloud()], LOCAL_ONLY, "Drop",
     "Privacy policy requires local-only processing (there: cloud)", ()),
    ("private with local down", [local(**GONE), cloud()], PRIVATE, "Drop",
     "Privacy policy forbids cloud processing (here: failed; there: cloud)", ()),
    ("nobody", [], Policy(), "Drop", "No provider available (no candidates)", ()),
    ("all down", [local(**GONE), cloud(available=False)], Policy(), "Drop",
     "No provider available (here: failed; there: cloud)", ()),
    ("no reason given", [local(available=False)], Policy(), "Drop",
     "No provider available (here: unavailable)", ()),
    ("quality at threshold", [local(0.85), cloud()], Policy(), "Local",
     "Local model confidence exceeds threshold", ("here", "there")),
    ("quality below threshold", [local(0.849), cloud()], Policy(), "Hybrid",
     "Hybrid: local quick + cloud refine", ("here", "there")),
    ("budget below 100", [local(), cloud()], Policy(latency_budget_ms=99.9), "Local",
     "Latency budget too tight for cloud", ("here", "there")),
    ("budget at 100", [local(), cloud()], Policy(latency_budget_ms=100), "Hybrid",
     "Hybrid: local quick + cloud refine", ("here", "there")),
    ("tight without local", [cloud()], Policy(latency_budget_ms=10), "Cloud",
     "Default to cloud for quality", ("there",)),
    ("only local", [local(0.2)], Policy(), "Local", "No cloud provider is configured", ("here",)),
    ("cloud down", [local(0.2), cloud(**GONE)], Policy(), "Local",
     "No cloud provider is configured", ("here",)),
    ("cost at cap", [local(0.5), cloud(0.01)], Policy(), "Cloud",
     "Default to cloud for quality", ("there", "here")),
    ("cost above cap", [local(0.5), cloud(0.0101)], Policy(), "LocalFallback",
     "Cloud cost exceeds budget", ("here",)),
    ("cost above cap, no local", [cloud(1.0)], Policy(), "Drop",
     "Cloud cost exceeds budget (there: cloud)", ()),
    ("above hybrid", [local(0.51), cloud()], Policy(), "Hybrid",
     "Hybrid: local quick + cloud refine", ("here", "there")),
    ("at hybrid", [local(0.5), cloud()], Policy(), "Cloud",
     "Default to cloud for quality", ("there", "here")),
    ("only cloud", [cloud()], Policy(privacy="public"), "Cloud",
     "Default to cloud for quality", ("there",)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("candidates", "policy", "route", "reason", "providers"),
    [row[1:] for row in TABLE],
    ids=[row[0] for row in TABLE],
)
def test_decision(
    candidates: list[Candidate], policy: Policy, route: str, reason: str, providers: tuple[str, ...]
) -> None:
    decision = decide(candidates, policy)
    assert (decision.route, decision.reason, decision.providers) == (route, reason, providers)


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        ([local(0.9)], (LOCAL_MS, 0.0)),
        ([local(0.6, cost=0.001), cloud(0.002)], (HYBRID_MS, 0.002)),
        ([cloud(0.003)], (CLOUD_MS, 0.003)),
        ([cloud(latency_ms=42.0)], (42.0, 0.0)),
        ([local(0.9, latency_ms=0.0)], (0.0, 0.0)),
    ],
)
def test_estimates_are_the_tables_until_something_was_measured(
    candidates: list[Candidate], expected: tuple[float, float]
) -> None:
    decision = decide(candidates, Policy())
    assert (decision.estimated_ms, decision.estimated_cost) == expected


def test_confidence_is_that_of_the_first_provider() -> None:
    assert decide([local(0.6), cloud()], Policy()).confidence == 0.6
    assert decide([cloud()], Policy()).confidence == 0.9


def test_the_operators_order_holds_inside_a_route() -> None:
    candidates = [Candidate(name, "local", 0.2) for name in ("b", "a", "c")]
    assert decide(candidates, Policy()).providers == ("b", "a", "c")


CANDIDATES = st.lists(
    st.builds(
        Candidate,
        name=st.sampled_from("abcdef"),
        placement=st.sampled_from(["local", "cloud"]),
        confidence=st.floats(0, 1),
        available=st.booleans(),
        cost=st.floats(0, 1),
        latency_ms=st.none() | st.floats(0, 1e6),
    ),
    unique_by=lambda c: c.name,
    max_size=6,
)
POLICIES = st.builds(
    Policy,
    privacy=st.sampled_from(PRIVACY),
    latency_budget_ms=st.floats(0, 1000),
    cost_cap=st.floats(0, 1),
    quality_threshold=st.floats(0, 1),
)


@runs(max_examples=40, deadline=None)
@given(CANDIDATES, POLICIES)
def test_no_decision_breaks_its_policy(candidates: list[Candidate], policy: Policy) -> None:
    decision: Decision = decide(candidates, policy)
    by_name = {c.name: c for c in candidates}
    chosen = [by_name[name] for name in decision.providers]
    assert all(c.available for c in chosen)
    assert len(set(decision.providers)) == len(chosen)
    assert bool(chosen) == (decision.route != "Drop")
    if policy.privacy in ("private", "local-only"):
        assert all(c.placement == "local" for c in chosen)
    if decision.route in ("Cloud", "Hybrid"):
        assert all(c.cost <= policy.cost_cap for c in chosen if c.placement == "cloud")
