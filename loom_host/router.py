"""Which route a call takes: a pure function of candidates, policy and what was observed.

The order of the rules, their reasons and the estimates are those of the Rust project (local 50 ms,
hybrid 300 ms, cloud 500 ms); what was measured replaces an estimate where there is any.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .settings import Policy

LOCAL_MS, HYBRID_MS, CLOUD_MS = 50.0, 300.0, 500.0
TIGHT_BUDGET_MS = 100.0
"""Below this no cloud answer is expected in time, unless it was measured to come sooner."""
HYBRID_CONFIDENCE = 0.5
CLOUD_PRIVACY = ("public", "sensitive")
"""The levels that allow cloud providers."""


class Candidate(NamedTuple):
    """A provider, as the router sees it, in the operator's order."""

    name: str
    placement: str
    """`local` or `cloud`; derived by the host, never believed."""
    confidence: float
    """Before errors: the event's or the operator's `quality`, 0 to 1."""
    available: bool = True
    why_not: str = ""
    cost: float = 0.0
    latency_ms: float | None = None
    """Measured; None where nothing recent was."""
    error_rate: float = 0.0
    """Measured share of calls that failed through its fault, 0 to 1."""
    avoided: str = ""
    """Why it is tried only after all others: an open circuit, a restart. Empty: it is not."""
    spent: str = ""
    """Which quota has no room for a call; empty: all have."""
    back_ms: float | None = None
    """When the spent quota has room again; None: nobody knows."""
    listed: bool = False
    """Whether the operator named it for private turns, where it is in the cloud."""

    @property
    def trust(self) -> float:
        """Confidence less the share of calls that fail."""
        return self.confidence * (1.0 - self.error_rate)


class Decision(NamedTuple):
    """The route, why, and the providers to try in order."""

    route: str
    """Local, LocalFallback, Hybrid, Cloud, Defer or Drop."""
    reason: str
    confidence: float
    estimated_ms: float
    estimated_cost: float
    providers: tuple[str, ...]
    retry_ms: float = 0.0
    """Of Defer: when to decide again."""
    spent: tuple[str, ...] = ()
    """Of Drop: those that only lack a quota, where that is why."""


def decide(
    candidates: Sequence[Candidate],
    policy: Policy,
    *,
    repeatable: bool = True,
    patience_ms: float | None = None,
) -> Decision:
    """The first rule that fits decides; see the module docstring for the source of the rules.

    Args:
        candidates: every provider, in the operator's order.
        repeatable: whether the call may run twice; without it nothing is Hybrid.
        patience_ms: longest wait for a spent quota; None: the policy's latency budget.
    """
    anywhere = policy.privacy in CLOUD_PRIVACY
    there = [c for c in candidates if c.available and (anywhere or permitted(c, policy))]
    free = [c for c in there if not c.spent]
    usable = [c for c in free if not c.avoided] or free
    if anywhere:
        decision = _by_rules(candidates, usable, policy, repeatable)
    else:
        decision = _in_private(candidates, usable, policy)
    if not decision.providers:
        patience = policy.latency_budget_ms if patience_ms is None else patience_ms
        return _defer([c for c in there if _affordable(c, policy)], patience) or decision
    return _with_last_resorts(decision, free, policy) if len(usable) < len(free) else decision


def permitted(candidate: Candidate, policy: Policy) -> bool:
    """Whether privacy lets the call reach it at all."""
    if candidate.placement == "local" or policy.privacy in CLOUD_PRIVACY:
        return True
    return policy.privacy == "private" and candidate.listed


def _in_private(
    candidates: Sequence[Candidate], usable: Sequence[Candidate], policy: Policy
) -> Decision:
    """Local ones; after them those with a way out that the operator listed, within the cost cap."""
    local = [c for c in usable if c.placement == "local"]
    listed = [c for c in usable if c.placement == "cloud" and c.cost <= policy.cost_cap]
    if local:
        return _to("Local", _PRIVATE[policy.privacy], local + listed)
    if listed:
        return _to("Cloud", "Privacy policy lists the provider", listed)
    return _drop(candidates, _PRIVATE[policy.privacy])


_PRIVATE = {
    "local-only": "Privacy policy requires local-only processing",
    "private": "Privacy policy forbids cloud processing",
}


def _by_rules(
    candidates: Sequence[Candidate], usable: Sequence[Candidate], policy: Policy, repeatable: bool
) -> Decision:
    """For a policy that allows the cloud. A cloud provider above the cost cap is never chosen."""
    if not usable:
        return _drop(candidates, "No provider available")
    local = [c for c in usable if c.placement == "local"]
    cloud = [c for c in usable if c.placement == "cloud"]
    affordable = [c for c in cloud if c.cost <= policy.cost_cap]
    best = local[0].trust if local else 0.0
    if local and best >= policy.quality_threshold:
        return _to("Local", "Local model confidence exceeds threshold", local + affordable)
    if local and _too_tight(local, cloud, policy.latency_budget_ms):
        return _to("Local", "Latency budget too tight for cloud", local + affordable)
    if local and not cloud:
        return _to("Local", "No cloud provider is configured", local)
    if not affordable:
        reason = "Cloud cost exceeds budget"
        return _to("LocalFallback", reason, local) if local else _drop(candidates, reason)
    if local and best > HYBRID_CONFIDENCE and repeatable:
        return _hybrid(local, affordable, policy)
    return _to("Cloud", "Default to cloud for quality", affordable + local)


def _too_tight(local: Sequence[Candidate], cloud: Sequence[Candidate], budget_ms: float) -> bool:
    """Whether no cloud answer can come in time; where all were measured, by the measure."""
    if budget_ms >= TIGHT_BUDGET_MS:
        return False
    measured = [c.latency_ms for c in cloud if c.latency_ms is not None]
    if not measured:
        return True
    here = local[0].latency_ms
    return min(measured) > budget_ms and (here is None or here <= min(measured))


def _defer(there: Sequence[Candidate], patience_ms: float) -> Decision | None:
    """Where quotas are all that is missing: wait for the one that has room first, or Drop."""
    spent = [c for c in there if c.spent]
    if not spent:
        return None
    known = [c for c in spent if c.back_ms is not None and c.back_ms <= patience_ms]
    if not known:
        causes = "; ".join(f"{c.name}: {c.spent}" for c in spent)
        names = tuple([c.name for c in spent])
        return Decision("Drop", f"Quotas are spent ({causes})", 0.0, 0.0, 0.0, (), spent=names)
    first = min(known, key=lambda c: c.back_ms or 0.0)
    wait = first.back_ms or 0.0
    estimate = wait + (first.latency_ms or _ESTIMATES[first.placement])
    reason = "Quotas are spent: the call waits for the first that has room"
    return Decision("Defer", reason, first.trust, estimate, first.cost, (), wait)


def _affordable(candidate: Candidate, policy: Policy) -> bool:
    return candidate.placement == "local" or candidate.cost <= policy.cost_cap


def _with_last_resorts(decision: Decision, free: Sequence[Candidate], policy: Policy) -> Decision:
    """Those that are avoided come after all others, where cost allows."""
    last = [c for c in free if c.avoided and _affordable(c, policy)]
    names = (*decision.providers, *(c.name for c in last))
    return decision._replace(providers=names)


_ESTIMATES = {"local": LOCAL_MS, "cloud": CLOUD_MS}


def _to(route: str, reason: str, chosen: Sequence[Candidate]) -> Decision:
    first = chosen[0]
    estimate = first.latency_ms if first.latency_ms is not None else _ESTIMATES[first.placement]
    names = tuple([c.name for c in chosen])
    return Decision(route, reason, first.trust, estimate, first.cost, names)


def _hybrid(local: Sequence[Candidate], cloud: Sequence[Candidate], policy: Policy) -> Decision:
    """Both run, so both cost; the caller waits for the second one within the budget."""
    quick, refine = local[0], cloud[0]
    estimate = HYBRID_MS
    if quick.latency_ms is not None and refine.latency_ms is not None:
        estimate = min(refine.latency_ms, max(quick.latency_ms, policy.latency_budget_ms))
    names = tuple([c.name for c in (*local, *cloud)])
    reason = "Hybrid: local quick + cloud refine"
    return Decision("Hybrid", reason, quick.trust, estimate, quick.cost + refine.cost, names)


def _drop(candidates: Sequence[Candidate], reason: str) -> Decision:
    causes = "; ".join(
        f"{c.name}: {c.why_not or ('cloud' if c.placement == 'cloud' else 'unavailable')}"
        for c in candidates
    )
    return Decision("Drop", f"{reason} ({causes or 'no candidates'})", 0.0, 0.0, 0.0, ())


def verdict(candidate: Candidate, decision: Decision, policy: Policy) -> str:
    """What the decision means for one candidate: its place, or what it failed on."""
    if candidate.name in decision.providers:
        place = decision.providers.index(candidate.name)
        if candidate.avoided:
            return f"last resort: {candidate.avoided}"
        if decision.route == "Hybrid":
            return "quick" if candidate.placement == "local" else "refine"
        return "chosen" if place == 0 else f"stands by, number {place + 1}"
    if not permitted(candidate, policy):
        return f"privacy {policy.privacy} forbids cloud"
    if not candidate.available:
        return candidate.why_not or "unavailable"
    if candidate.spent:
        return f"quota spent: {candidate.spent}"
    return f"cost {candidate.cost:g} is above cost_cap {policy.cost_cap:g}"
