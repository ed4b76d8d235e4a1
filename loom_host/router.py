"""Which route a call takes: a pure function of candidates, policy and what was observed.

The decision order, reasons and estimates are those of the Rust project (local 50 ms, hybrid
300 ms, cloud 500 ms); measured latencies replace the estimates where there are any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .settings import Policy

LOCAL_MS, HYBRID_MS, CLOUD_MS = 50.0, 300.0, 500.0
TIGHT_BUDGET_MS = 100.0
"""Below this no cloud answer can come in time."""
HYBRID_CONFIDENCE = 0.5


@dataclass(frozen=True, slots=True)
class Candidate:
    """A provider, as the router sees it, in the operator's order."""

    name: str
    placement: str
    """`local` or `cloud`; derived by the host, never believed."""
    confidence: float
    available: bool = True
    why_not: str = ""
    cost: float = 0.0
    latency_ms: float | None = None
    """Measured; None before the first call."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The route, why, and the providers to try in order."""

    route: str
    """Local, LocalFallback, Hybrid, Cloud or Drop."""
    reason: str
    confidence: float
    estimated_ms: float
    estimated_cost: float
    providers: tuple[str, ...]


def decide(candidates: Sequence[Candidate], policy: Policy) -> Decision:
    """The first rule that fits decides; see the module docstring for the source of the rules."""
    usable = [c for c in candidates if c.available]
    local = [c for c in usable if c.placement == "local"]
    cloud = [c for c in usable if c.placement == "cloud"]
    if policy.privacy in ("local-only", "private"):
        reason = (
            "Privacy policy requires local-only processing"
            if policy.privacy == "local-only"
            else "Privacy policy forbids cloud processing"
        )
        return _to("Local", reason, local) if local else _drop(candidates, reason)
    if not usable:
        return _drop(candidates, "No provider available")
    best = local[0].confidence if local else 0.0
    if local and best >= policy.quality_threshold:
        return _to("Local", "Local model confidence exceeds threshold", local + cloud)
    if local and policy.latency_budget_ms < TIGHT_BUDGET_MS:
        return _to("Local", "Latency budget too tight for cloud", local + cloud)
    if local and not cloud:
        return _to("Local", "No cloud provider is configured", local)
    affordable = [c for c in cloud if c.cost <= policy.cost_cap]
    if not affordable:
        reason = "Cloud cost exceeds budget"
        return _to("LocalFallback", reason, local) if local else _drop(candidates, reason)
    if local and best > HYBRID_CONFIDENCE:
        return _to("Hybrid", "Hybrid: local quick + cloud refine", local + affordable)
    return _to("Cloud", "Default to cloud for quality", affordable + local)


_ESTIMATES = {"Local": LOCAL_MS, "LocalFallback": LOCAL_MS, "Hybrid": HYBRID_MS, "Cloud": CLOUD_MS}


def _to(route: str, reason: str, chosen: Sequence[Candidate]) -> Decision:
    first = chosen[0]
    estimate = first.latency_ms if first.latency_ms is not None else _ESTIMATES[route]
    cost = max(c.cost for c in chosen) if route == "Hybrid" else first.cost
    names = tuple(c.name for c in chosen)
    return Decision(route, reason, first.confidence, estimate, cost, names)


def _drop(candidates: Sequence[Candidate], reason: str) -> Decision:
    causes = "; ".join(
        f"{c.name}: {c.why_not or ('cloud' if c.placement == 'cloud' else 'unavailable')}"
        for c in candidates
    )
    return Decision("Drop", f"{reason} ({causes or 'no candidates'})", 0.0, 0.0, 0.0, ())
