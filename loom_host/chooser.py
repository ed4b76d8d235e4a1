"""From the providers of a capability, as they are now, to the router's decision."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

from loom_sdk.errors import NoProvider, QuotaExceeded

from .announce import Announcer
from .circuit import CLOSED
from .dispatch import REPEATABLE, Request
from .handle import ALIVE
from .privacy import LEVEL_OF, NAMES
from .probe import Prober
from .registry import Offer
from .router import Candidate, Decision, decide, verdict
from .settings import Policy


@lru_cache(256)
def raised(policy: Policy, level: int) -> Policy:
    """The policy with its privacy raised to `level`; it is never lowered."""
    return replace(policy, privacy=NAMES[max(LEVEL_OF[policy.privacy], level)])


def repeatable(offers: Sequence[Offer]) -> bool:
    """Whether a call may run twice, at whichever of them."""
    return all(offer.spec.effects in REPEATABLE for offer in offers)


class Chooser:
    """Asks the router, waits where it says Defer, and tells of the decision."""

    def __init__(
        self,
        clock: Callable[[], float],
        announce: Announcer,
        prober: Prober,
        on_route: Callable[[str, str], None],
        on_no_route: Callable[[str], None],
    ) -> None:
        self._clock = clock
        self._announce = announce
        self._prober = prober
        self._on_route = on_route
        self._on_no_route = on_no_route

    async def choose(
        self, request: Request, offers: Sequence[Offer], policy: Policy
    ) -> tuple[Decision, list[Offer]]:
        """The decision, and whom to try in which order.

        Raises:
            NoProvider: policy or state leave nobody.
            QuotaExceeded: only quotas are missing, and none has room in time.
        """
        waited_ms = 0.0
        while True:
            left_ms = (request.deadline - time.monotonic()) * 1000
            patience = min(policy.latency_budget_ms - waited_ms, left_ms)
            decision = self.decide(offers, policy, request.confidence, patience)
            self._announce.decision(request, decision)
            if decision.route != "Defer":
                break
            self._on_route(decision.route, decision.reason)
            waited_ms += decision.retry_ms
            await asyncio.sleep(decision.retry_ms / 1000)
        if not decision.providers:
            self._on_no_route(request.capability)
            raise self._refusal(request, offers, decision)
        request.route = (decision.route, decision.reason)
        self._on_route(*request.route)
        self._probe_idle(offers)
        by_name = {offer.handle.name: offer for offer in offers}
        return decision, [by_name[name] for name in decision.providers]

    def decide(
        self,
        offers: Sequence[Offer],
        policy: Policy,
        confidence: float | None = None,
        patience_ms: float | None = None,
    ) -> Decision:
        """What the router decides now. It changes nothing.

        Args:
            confidence: of the event being served, for local providers; None: their `quality`.
        """
        twice = repeatable(offers)
        candidates = self._candidates(offers, policy, twice, confidence)
        return decide(candidates, policy, repeatable=twice, patience_ms=patience_ms)

    def _candidates(
        self, offers: Sequence[Offer], policy: Policy, twice: bool, confidence: float | None
    ) -> list[Candidate]:
        now = self._clock()
        private_tools = policy.private_tools if policy.privacy == "private" else None
        return [_candidate(o, now, twice, confidence, private_tools) for o in offers]

    def explain(self, offers: Sequence[Offer], policy: Policy) -> dict[str, Any]:
        """The decision, and for each provider what the router was told and made of it."""
        twice, now = repeatable(offers), self._clock()
        candidates = self._candidates(offers, policy, twice, None)
        decision = decide(candidates, policy, repeatable=twice)
        rows = [
            {
                **candidate._asdict(),
                "state": offer.handle.state,
                "circuit": offer.handle.circuit.state,
                "circuit_reason": offer.handle.circuit.explain(now),
                "verdict": verdict(candidate, decision, policy),
            }
            for candidate, offer in zip(candidates, offers, strict=True)
        ]
        return {"policy": asdict(policy), "decision": decision._asdict(), "candidates": rows}

    def _probe_idle(self, offers: Sequence[Offer]) -> None:
        """Providers of calls that may not run twice are asked for their health instead."""
        for offer in offers:
            if offer.handle.circuit.state != CLOSED and not repeatable(offers):
                self._prober.start(offer)

    def _refusal(
        self, request: Request, offers: Sequence[Offer], decision: Decision
    ) -> NoProvider | QuotaExceeded:
        text = f"{offers[0].spec.name}: {decision.reason}"
        for offer in offers:
            spent = offer.handle.slots.spent() if offer.handle.name in decision.spent else None
            if spent is not None:
                offer.handle.counters.hit(spent.quota)
                return QuotaExceeded(
                    text, plugin_id=offer.handle.spec.id, quota=spent.quota, limit=spent.limit,
                    used=spent.used,
                )  # fmt: skip
        reasons = (
            offer.handle.labels.refusal(
                request.level, request.private_tools, request.agent, offer.handle.instance
            )
            for offer in offers
        )
        return NoProvider("; ".join((text, *filter(None, reasons))))


def _candidate(
    offer: Offer,
    now: float,
    twice: bool,
    confidence: float | None,
    private_tools: tuple[str, ...] | None,
) -> Candidate:
    handle = offer.handle
    there = handle.state in ALIVE or handle.waking
    placement = handle.placement
    own = confidence is None or placement != "local"
    spent = handle.slots.spent()
    return Candidate(
        name=handle.name,
        placement=placement,
        confidence=handle.settings.quality if own else confidence or 0.0,
        available=there,
        why_not="" if there else f"{handle.state} {handle.reason}".strip(),
        cost=handle.settings.cost,
        latency_ms=offer.seen.latency_ms(now),
        # A probe that is due shall find its place: what failed before is the circuit's affair.
        error_rate=offer.seen.error_rate(now) if handle.circuit.state == CLOSED else 0.0,
        avoided=_avoided(offer, now, twice),
        spent=f"{spent.quota} {spent.limit:g}" if spent else "",
        back_ms=spent.back_s * 1000 if spent and spent.back_s is not None else None,
        listed=private_tools is not None and handle.labels.listed(private_tools),
    )


def _avoided(offer: Offer, now: float, twice: bool) -> str:
    handle = offer.handle
    if handle.waking and handle.counters.restarts:
        return "it starts again"
    circuit = handle.circuit
    if circuit.state == CLOSED or (twice and circuit.admits(now)):
        return ""
    return circuit.explain(now)
