"""The router's decision table: every rule, in its order, and both sides of every bound."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from loom_host.router import CLOUD_MS, HYBRID_MS, LOCAL_MS, Candidate, Decision, decide, verdict
from loom_host.settings import PRIVACY, Policy


def local(confidence: float = 0.7, **fields: Any) -> Candidate:
    return Candidate("here", "local", confidence, **fields)


def cloud(cost: float = 0.0, **fields: Any) -> Candidate:
    return Candidate("there", "cloud", 0.9, cost=cost, **fields)


LOCAL_ONLY = Policy(privacy="local-only")
PRIVATE = Policy(privacy="private")
TIGHT = Policy(latency_budget_ms=90)
GONE: dict[str, Any] = {"available": False, "why_not": "failed"}
AVOIDED: dict[str, Any] = {"avoided": "circuit open"}
SPENT: dict[str, Any] = {"spent": "concurrency 1"}

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
    ("errors lower confidence", [local(0.9, error_rate=0.1), cloud()], Policy(), "Hybrid",
     "Hybrid: local quick + cloud refine", ("here", "there")),
    ("errors to the threshold", [local(1.0, error_rate=0.15), cloud()], Policy(), "Local",
     "Local model confidence exceeds threshold", ("here", "there")),
    ("errors below hybrid", [local(0.9, error_rate=0.5), cloud()], Policy(), "Cloud",
     "Default to cloud for quality", ("there", "here")),
    ("cloud measured in a tight budget", [local(), cloud(latency_ms=90)], TIGHT, "Hybrid",
     "Hybrid: local quick + cloud refine", ("here", "there")),
    ("cloud measured above it", [local(), cloud(latency_ms=90.1)], TIGHT, "Local",
     "Latency budget too tight for cloud", ("here", "there")),
    ("local measured slower still", [local(latency_ms=500), cloud(latency_ms=400)], TIGHT,
     "Hybrid", "Hybrid: local quick + cloud refine", ("here", "there")),
    ("local measured as slow", [local(latency_ms=400), cloud(latency_ms=400)], TIGHT,
     "Local", "Latency budget too tight for cloud", ("here", "there")),
    ("slow cloud in a wide budget", [local(), cloud(latency_ms=9000)], Policy(), "Hybrid",
     "Hybrid: local quick + cloud refine", ("here", "there")),
    ("too dear to stand by", [local(0.9), cloud(1.0)], Policy(), "Local",
     "Local model confidence exceeds threshold", ("here",)),
    ("local avoided", [local(0.9, **AVOIDED), cloud()], Policy(), "Cloud",
     "Default to cloud for quality", ("there", "here")),
    ("cloud avoided", [local(0.2), cloud(**AVOIDED)], Policy(), "Local",
     "No cloud provider is configured", ("here", "there")),
    ("a dear one is no last resort", [local(0.2), cloud(1.0, **AVOIDED)], Policy(), "Local",
     "No cloud provider is configured", ("here",)),
    ("all avoided", [local(0.9, **AVOIDED), cloud(**AVOIDED)], Policy(), "Local",
     "Local model confidence exceeds threshold", ("here", "there")),
    ("private: an avoided local one is better than cloud", [local(0.2, **AVOIDED), cloud()],
     PRIVATE, "Local", "Privacy policy forbids cloud processing", ("here",)),
    ("local spent", [local(0.9, **SPENT), cloud()], Policy(), "Cloud",
     "Default to cloud for quality", ("there",)),
    ("all spent, one back in time", [local(**SPENT), cloud(spent="rate 1", back_ms=200)],
     Policy(), "Defer", "Quotas are spent: the call waits for the first that has room", ()),
    ("all spent, back too late", [local(**SPENT), cloud(spent="rate 1", back_ms=200.1)],
     Policy(), "Drop", "Quotas are spent (here: concurrency 1; there: rate 1)", ()),
    ("local-only: a spent local one is waited for", [local(spent="rate 1", back_ms=50), cloud()],
     LOCAL_ONLY, "Defer", "Quotas are spent: the call waits for the first that has room", ()),
    ("private: a spent local one is dropped, not sent to the cloud", [local(**SPENT), cloud()],
     PRIVATE, "Drop", "Quotas are spent (here: concurrency 1)", ()),
    ("private: a listed cloud one comes after local", [cloud(listed=True), local(0.1)], PRIVATE,
     "Local", "Privacy policy forbids cloud processing", ("here", "there")),
    ("private: only a listed one", [cloud(listed=True)], PRIVATE, "Cloud",
     "Privacy policy lists the provider", ("there",)),
    ("private: a listed one at the cap", [cloud(0.01, listed=True)], PRIVATE, "Cloud",
     "Privacy policy lists the provider", ("there",)),
    ("private: a listed one above the cap", [cloud(0.011, listed=True)], PRIVATE, "Drop",
     "Privacy policy forbids cloud processing (there: cloud)", ()),
    ("local-only knows no list", [cloud(listed=True), local()], LOCAL_ONLY, "Local",
     "Privacy policy requires local-only processing", ("here",)),
    ("a spent one above the cap is not waited for", [cloud(1.0, spent="rate 1", back_ms=5)],
     Policy(), "Drop", "No provider available (there: cloud)", ()),
    ("the affordable one is spent", [local(spent="rate 1", back_ms=50), cloud(1.0)],
     Policy(), "Defer", "Quotas are spent: the call waits for the first that has room", ()),
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
        ([local(0.6, cost=0.001), cloud(0.002)], (HYBRID_MS, 0.003)),
        ([local(0.6, latency_ms=20), cloud(latency_ms=150)], (150.0, 0.0)),
        ([local(0.6, latency_ms=20), cloud(latency_ms=900)], (200.0, 0.0)),
        ([local(0.6, latency_ms=300), cloud(latency_ms=900)], (300.0, 0.0)),
        ([local(0.6, latency_ms=20), cloud()], (HYBRID_MS, 0.0)),
        ([local(0.9, spent="rate 1", back_ms=30.0)], (30.0 + LOCAL_MS, 0.0)),
        ([local(0.9, spent="rate 1", back_ms=30.0, latency_ms=5.0)], (35.0, 0.0)),
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


def test_what_errors_leave_of_it_is_the_confidence() -> None:
    assert decide([local(0.9, error_rate=0.5)], Policy()).confidence == pytest.approx(0.45)


def test_a_call_that_may_not_run_twice_is_never_hybrid() -> None:
    decision = decide([local(0.7), cloud()], Policy(), repeatable=False)
    assert (decision.route, decision.providers) == ("Cloud", ("there", "here"))
    assert decide([local(0.9), cloud()], Policy(), repeatable=False).route == "Local"


def test_the_caller_may_have_less_patience_than_the_policy() -> None:
    candidates = [local(spent="rate 1", back_ms=50.0), cloud(spent="rate 2", back_ms=40.0)]
    decision = decide(candidates, Policy(), patience_ms=40.0)
    assert (decision.route, decision.retry_ms, decision.spent) == ("Defer", 40.0, ())
    decision = decide(candidates, Policy(), patience_ms=39.9)
    assert (decision.route, decision.retry_ms, decision.spent) == ("Drop", 0.0, ("here", "there"))


VERDICTS: list[tuple[Candidate, Policy, str]] = [
    (local(0.9), Policy(), "chosen"),
    (cloud(), Policy(), "stands by, number 2"),
    (cloud(), PRIVATE, "privacy private forbids cloud"),
    (cloud(), LOCAL_ONLY, "privacy local-only forbids cloud"),
    (cloud(1.0), Policy(), "cost 1 is above cost_cap 0.01"),
    (cloud(**GONE), Policy(), "failed"),
    (cloud(available=False), Policy(), "unavailable"),
    (cloud(**SPENT), Policy(), "quota spent: concurrency 1"),
    (cloud(**AVOIDED), Policy(), "last resort: circuit open"),
    (cloud(), Policy(quality_threshold=1.0), "refine"),
]


@pytest.mark.parametrize(("candidate", "policy", "told"), VERDICTS)
def test_each_candidate_is_told_its_place_or_what_it_failed_on(
    candidate: Candidate, policy: Policy, told: str
) -> None:
    candidates = [local(0.9), candidate] if candidate.name == "there" else [candidate]
    decision = decide(candidates, policy)
    assert verdict(candidate, decision, policy) == told
    if told == "refine":
        assert verdict(candidates[0], decision, policy) == "quick"


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
        error_rate=st.floats(0, 1),
        avoided=st.sampled_from(["", "circuit open"]),
        spent=st.sampled_from(["", "rate 1"]),
        back_ms=st.none() | st.floats(0, 1000),
        listed=st.booleans(),
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


@runs(max_examples=80, deadline=None)
@given(CANDIDATES, POLICIES, st.booleans())
def test_no_decision_breaks_its_policy(
    candidates: list[Candidate], policy: Policy, repeatable: bool
) -> None:
    decision: Decision = decide(candidates, policy, repeatable=repeatable)
    by_name = {c.name: c for c in candidates}
    chosen = [by_name[name] for name in decision.providers]
    assert all(c.available and not c.spent for c in chosen)
    assert len(set(decision.providers)) == len(chosen)
    assert bool(chosen) == (decision.route not in ("Drop", "Defer"))
    cloud = [c for c in chosen if c.placement == "cloud"]
    assert not (cloud and policy.privacy == "local-only")
    assert policy.privacy != "private" or all(c.listed for c in cloud)
    assert all(c.cost <= policy.cost_cap for c in cloud)
    assert repeatable or decision.route != "Hybrid"
    closed = [c for c in chosen if not c.avoided]
    assert not closed or not chosen[0].avoided
    for candidate in candidates:
        assert verdict(candidate, decision, policy)
