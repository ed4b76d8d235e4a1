"""One decision of the router over three candidates."""

from __future__ import annotations

import time
from collections.abc import Callable

from loom_host.router import Candidate, decide
from loom_host.settings import Policy

from .table import Row, row

ROUNDS, DECISIONS = 9, 5000
CANDIDATES = (
    Candidate("near", "local", 0.7, latency_ms=12.0, error_rate=0.05),
    Candidate("far", "cloud", 0.9, cost=0.002, latency_ms=180.0),
    Candidate("farther", "cloud", 0.95, cost=0.004),
)
POLICIES = {
    "Hybrid": Policy(),
    "Local": Policy(quality_threshold=0.6),
    "private": Policy(privacy="private"),
}
"""The longest way through the rules, an early end, and the way of private turns."""


def per_decision_us(choose: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(DECISIONS):
        choose()
    return (time.perf_counter() - began) / DECISIONS * 1e6


def rows() -> list[Row]:
    return [
        row(
            f"router decision, 3 candidates, {name}",
            [per_decision_us(lambda p=policy: decide(CANDIDATES, p)) for _ in range(ROUNDS)],  # type: ignore[misc]
            "us",
            target=10,
        )
        for name, policy in POLICIES.items()
    ]
