"""The action broker: one way to call a capability.

An invocation is validated, ordered by the router, given a slot and a deadline, and tried on the
candidates in turn as far as the capability's `effects` allow.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from itertools import cycle
from typing import Any

from loom_sdk import Item, Result
from loom_sdk.errors import (
    CapabilityNotFound,
    InvalidArguments,
    LoomError,
    NoProvider,
    PluginCrashed,
    PluginUnhealthy,
    QuotaExceeded,
    mapping_of,
)

from .dispatch import REPEATABLE, Request, dispatch
from .handle import ALIVE, InFlight, PluginHandle, Replaced
from .kept import KeptResults
from .registry import Offer, Registry, validate
from .router import Candidate, Decision, decide
from .settings import Policy
from .telemetry import Span, Tracer, current

MAX_DEPTH = 8
MAX_ATTEMPTS = 3

Observe = Callable[[str, str, str, float], None]
"""capability, provider, `ok` or the error's code, seconds."""


def _ignore(*_: str) -> None: ...


class Broker:
    """Routes, repeats and keeps invocations."""

    def __init__(
        self,
        tracer: Tracer,
        observe: Observe,
        providers: Mapping[str, Sequence[str]] | None = None,
        policies: Mapping[str, Policy] | None = None,
        on_route: Callable[[str, str], None] = _ignore,
        on_no_route: Callable[[str], None] = _ignore,
    ) -> None:
        self._tracer = tracer
        self._observe = observe
        self._on_route = on_route
        self._on_no_route = on_no_route
        self._registry = Registry(providers or {})
        self._policies = policies or {}
        self._default_policy = Policy()
        self._kept = KeptResults()

    def register(self, handle: PluginHandle) -> None:
        """Take up what a plugin provides, by its manifest, completed by what it said at Init."""
        self._registry.register(handle)

    def withdraw(self, handle: PluginHandle) -> None:
        """Route nothing to it any more; a call that only it could serve is told its reason."""
        self._registry.withdraw(handle)

    def offered(self, handle: PluginHandle) -> set[str]:
        """Names of what it provides now."""
        return self._registry.offered(handle)

    def replace(self, old: PluginHandle, new: PluginHandle) -> None:
        """Put `new`, which registers next, in the place of `old` in the order of providers."""
        self._registry.replace(old, new)

    def capabilities(self) -> dict[str, list[Offer]]:
        """Every capability with its providers in the operator's order."""
        return self._registry.capabilities()

    # -- routing

    def route(self, capability: str, policy: Policy | None = None) -> Decision:
        """What the router decides for a call now, without calling."""
        return self._decide(self._registry.find(capability), policy or self._default_policy)

    def policy_of(self, agent: str) -> Policy:
        return self._policies.get(agent, self._default_policy)

    def _decide(self, offers: Sequence[Offer], policy: Policy) -> Decision:
        return decide([_candidate(offer) for offer in offers], policy)

    def _candidates(self, request: Request, offers: list[Offer], policy: Policy) -> list[Offer]:
        """In the order to try. Raises NoProvider where policy or state leave none."""
        if len(offers) == 1 and offers[0].always(policy):
            route = request.route = offers[0].route
            self._on_route(*route)
            return offers
        decision = self._decide(offers, policy)
        if not decision.providers:
            self._on_no_route(request.capability)
            raise NoProvider(f"{offers[0].spec.name}: {decision.reason}")
        request.route = (decision.route, decision.reason)
        self._on_route(*request.route)
        by_name = {offer.handle.name: offer for offer in offers}
        chosen = [by_name[name] for name in decision.providers]
        # One that must first be restarted comes after those that are there.
        return sorted(chosen, key=lambda o: o.handle.waking and o.handle.counters.restarts > 0)

    # -- invocation

    def invoke(self, request: Request) -> Coroutine[Any, Any, Result]:
        """Serve a request. Raises any CapabilityError or PluginError."""
        return self._kept.once(request, self._serve) if request.id else self._serve(request)

    async def stream(self, request: Request) -> AsyncIterator[Item]:
        """As `invoke`, yielding items as they come; a last Item carries the final output."""
        queue: asyncio.Queue[Item | None] = asyncio.Queue(64)
        request.on_item = queue.put

        async def run() -> Result:
            try:
                return await self.invoke(request)
            finally:
                await queue.put(None)

        task = asyncio.create_task(run())
        try:
            while (item := await queue.get()) is not None:
                yield item
            try:
                result = await task
            except LoomError as error:
                _tell_index(error, request.delivered)
                raise
            if result.output is not None or result.payload:
                yield Item(result.output, result.payload, result.content_type, result.elapsed_us)
        finally:
            task.cancel()
            while not queue.empty():  # so that the end of the task finds room
                queue.get_nowait()

    async def _serve(self, request: Request) -> Result:
        try:
            offers = self._registry.find(request.capability)
        except (CapabilityNotFound, NoProvider):
            self._on_no_route(request.capability)
            raise
        validate(offers[0], request.arguments)
        parent = request.parent
        if parent is not None:
            _check_depth(request, parent)
            request.agent = request.agent or parent.agent
        request.deadline = time.monotonic() + request.timeout_ms / 1000
        policy = request.policy or self._policies.get(request.agent, self._default_policy)
        candidates = self._candidates(request, offers, policy)
        tries = max(len(candidates), MAX_ATTEMPTS)
        order = cycle(candidates)
        while True:
            tries -= 1
            offer = next(order)
            if offer is not offers[0]:
                validate(offer, request.arguments)
            try:
                return await self._attempt(offer, request)
            except Replaced:
                tries += 1  # it was not one: the plugin never saw the call
                offers = self._registry.find(request.capability)
                candidates = self._candidates(request, offers, policy)
                order = cycle(candidates)
            except LoomError as error:
                if not tries or not self._may_go_on(offer, request, error, len(candidates)):
                    raise
                if isinstance(error, PluginCrashed | PluginUnhealthy):
                    await offer.handle.noticed()

    def _may_go_on(self, offer: Offer, request: Request, error: LoomError, candidates: int) -> bool:
        """Whether another try may be made after `error`."""
        if request.delivered and not offer.spec.resumable:
            return False
        if time.monotonic() >= request.deadline:
            return False
        if candidates > 1 and not request.dispatched:
            return True  # the plugin never saw the call: whatever its effects are
        if offer.spec.effects not in REPEATABLE:
            return False
        return mapping_of(error).retryable or (
            candidates > 1 and not isinstance(error, InvalidArguments)
        )

    async def _attempt(self, offer: Offer, request: Request) -> Result:
        handle = offer.handle
        span = self._tracer.start(f"invoke {request.capability}", request.traceparent)
        began = time.perf_counter()
        traceparent = span.traceparent
        token = current.set(traceparent)
        failure: BaseException | None = None
        try:
            result = await dispatch(offer, request, traceparent)
        except BaseException as error:
            failure = error
            raise
        finally:
            current.reset(token)
            took = time.perf_counter() - began
            if not isinstance(failure, Replaced):
                self._count(handle, request, failure, took)
                if span.sampled:
                    _describe(span, handle, request)
                    span.end(failure)
        handle.observe(took * 1000)
        handle.counters.inside_us += result.elapsed_us
        result.provider = handle.name
        return result

    def _count(
        self, handle: PluginHandle, request: Request, failure: BaseException | None, took: float
    ) -> None:
        handle.counters.calls += 1
        if failure is not None:
            handle.counters.errors += 1
        status = _status(failure) if failure else "ok"
        self._observe(request.capability, handle.name, status, took)


def _status(failure: BaseException) -> str:
    """For the metrics: the code from the table, never a plugin's own, which have no bound."""
    return mapping_of(failure).code if isinstance(failure, Exception) else "CANCELLED"


def _describe(span: Span, handle: PluginHandle, request: Request) -> None:
    attributes = span.attributes
    attributes["plugin"], attributes["tier"] = handle.name, handle.spec.tier
    attributes["route"], attributes["reason"] = request.route


def _candidate(offer: Offer) -> Candidate:
    handle = offer.handle
    there = handle.state in ALIVE or handle.waking
    return Candidate(
        name=handle.name,
        placement=handle.placement,
        confidence=handle.settings.quality,
        available=there,
        why_not="" if there else f"{handle.state} {handle.reason}".strip(),
        cost=handle.settings.cost,
        latency_ms=handle.counters.latency_ms,
    )


def _check_depth(request: Request, parent: InFlight) -> None:
    if parent.depth + 1 >= MAX_DEPTH:
        chain = " -> ".join((*parent.chain, request.capability))
        raise QuotaExceeded(
            f"calls are nested deeper than {MAX_DEPTH}: {chain}",
            plugin_id=parent.plugin,
            quota="depth",
            limit=MAX_DEPTH,
            used=parent.depth + 2,
        )


def _tell_index(error: LoomError, delivered: int) -> None:
    """Make the error of a stream that broke off say after how many items."""
    if delivered:
        error.message = f"{error.message} (after {delivered} item(s))"
        error.args = (error.message,)
