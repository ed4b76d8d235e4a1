"""The action broker: one way to call a capability.

An invocation is validated, ordered by the router, given a slot and a deadline, and tried on the
candidates in turn as far as the capability's `effects` allow.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any

from loom_sdk import Item, Result
from loom_sdk.errors import (
    CapabilityNotFound,
    LoomError,
    NoProvider,
    QuotaExceeded,
    mapping_of,
)

from .announce import Announcer
from .approvals import Approvals, Publish
from .bus import MemoryBus
from .chooser import Chooser, raised
from .dispatch import Request, dispatch
from .failover import Failover
from .handle import InFlight, PluginHandle, Replaced
from .hybrid import Hybrid
from .kept import KeptResults
from .privacy import DEFAULT, LEVEL_OF, NAMES
from .probe import Prober
from .registry import Offer, Registry, validate
from .router import Decision
from .settings import AgentSettings, Policy, RoutingSettings, Settings
from .telemetry import Span, Telemetry, Tracer, current

MAX_DEPTH = 8

Observe = Callable[[str, str, str, float], None]
"""capability, provider, `ok` or the error's code, seconds."""


def _ignore(*_: object) -> None: ...


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
        *,
        routing: RoutingSettings | None = None,
        announce: Announcer | None = None,
        clock: Callable[[], float] = time.monotonic,
        agents: Mapping[str, AgentSettings] | None = None,
        publish: Publish = _ignore,
    ) -> None:
        limits = routing or RoutingSettings()
        self._announce = announce or Announcer()
        self._tracer = tracer
        self._observe = observe
        self._on_route = on_route
        self._on_no_route = on_no_route
        self._registry = Registry(providers or {}, limits.half_life_s)
        self._policies = dict(policies or {})
        self._default_policy = Policy()
        self._kept = KeptResults()
        self.approvals = Approvals(self._registry.find, agents, publish)
        self._prober = Prober(limits, clock, self._announce)
        self._chooser = Chooser(clock, self._announce, self._prober, on_route, on_no_route)
        self._failover = Failover(self._attempt, limits, clock, self._announce)
        self._hybrid = Hybrid(self._failover, self._announce)

    async def aclose(self) -> None:
        """Break off the passes and probes that nobody waits for."""
        await self._hybrid.aclose()
        await self._prober.aclose()

    def register(self, handle: PluginHandle) -> None:
        """Take up what a plugin provides, by its manifest, completed by what it said at Init."""
        self._registry.register(handle)
        self.approvals.note(handle)

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
        offers = self._registry.find(capability)
        return self._chooser.decide(offers, policy or self._default_policy)

    def explain(self, capability: str, policy: Policy) -> dict[str, Any]:
        """As `route`, with what each provider failed on. Raises CapabilityNotFound, NoProvider."""
        explained = self._chooser.explain(self._registry.find(capability), policy)
        return {"capability": capability, **explained}

    def adopt(self, agent: str, policy: Policy) -> None:
        """Let this policy hold for what the agent invokes."""
        self._policies[agent] = policy

    def policy_of(self, agent: str) -> Policy:
        return self._policies.get(agent, self._default_policy)

    def policy_for(self, flight: InFlight) -> Policy:
        """What holds for calls below one that is being served."""
        return raised(self.policy_of(flight.agent), flight.level)

    def _policy(self, request: Request) -> Policy:
        """The policy of a request, its privacy raised to that of what it is made for."""
        policy = request.policy or self._policies.get(request.agent, self._default_policy)
        level, parent = request.level, request.parent
        if parent is not None:
            request.confidence, level = parent.confidence, max(level, parent.level)
        if level > LEVEL_OF[policy.privacy]:
            policy = raised(policy, level)
        request.level, request.private_tools = LEVEL_OF[policy.privacy], policy.private_tools
        return policy

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

    def _find(self, request: Request) -> list[Offer]:
        try:
            return self._registry.find(request.capability)
        except (CapabilityNotFound, NoProvider) as error:
            self._on_no_route(request.capability)
            self._announce.decision(request, Decision("Drop", error.message, 0.0, 0.0, 0.0, ()))
            raise

    async def _serve(self, request: Request) -> Result:
        parent = request.parent
        if not request.agent:
            inherited = parent.agent if parent is not None else ""
            request.agent = inherited or self.approvals.agent_for(request.caller)
        offers = self._find(request)
        checked = offers[0]
        validate(checked, request.arguments)
        if parent is not None:
            _check_depth(request, parent)
        policy = self._policy(request)
        await self.approvals.guard(request, offers)
        request.deadline = time.monotonic() + request.timeout_ms / 1000
        if not self._is_plain(request, offers, policy):
            decision, offers = await self._chooser.choose(request, offers, policy)
            if decision.route == "Hybrid":
                budget_s = policy.latency_budget_ms / 1000
                return await self._hybrid.serve(request, offers, checked, budget_s, self._again)
        return await self._failover.run(request, offers, checked, self._again)

    def _is_plain(self, request: Request, offers: list[Offer], policy: Policy) -> bool:
        """Whether one provider, which no rule could keep from it, leaves nothing to decide."""
        if len(offers) > 1 or not offers[0].always(policy):
            return False
        route = request.route = offers[0].route
        self._on_route(*route)
        return True

    async def _again(self, request: Request) -> list[Offer]:
        """Whom to try now that one of them was replaced."""
        offers, policy = self._find(request), self._policy(request)
        await self.approvals.guard(request, offers)
        if self._is_plain(request, offers, policy):
            return offers
        return (await self._chooser.choose(request, offers, policy))[1]

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
            ended = time.perf_counter()
            if not isinstance(failure, Replaced):
                self._count(handle, request, failure, ended - began)
                if span.sampled:
                    _describe(span, handle, request)
                    span.end(failure)
        self._failover.served(offer, request, began, ended)
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


def broker_of(settings: Settings, telemetry: Telemetry, bus: MemoryBus) -> Broker:
    """The broker of a host."""
    return Broker(
        telemetry.tracer,
        telemetry.on_action,
        settings.providers,
        {name: agent.policy for name, agent in settings.agents.items()},
        on_route=telemetry.on_route,
        on_no_route=telemetry.on_no_route,
        routing=settings.routing,
        announce=Announcer(bus),
        agents=settings.agents,
        publish=bus.publish_nowait,
    )


def _status(failure: BaseException) -> str:
    """For the metrics: the code from the table, never a plugin's own, which have no bound."""
    return mapping_of(failure).code if isinstance(failure, Exception) else "CANCELLED"


def _describe(span: Span, handle: PluginHandle, request: Request) -> None:
    attributes = span.attributes
    attributes["plugin"], attributes["tier"] = handle.name, handle.spec.tier
    attributes["route"], attributes["reason"] = request.route
    if (level := max(request.level, request.reached)) > DEFAULT:
        attributes["privacy"] = NAMES[level]


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
