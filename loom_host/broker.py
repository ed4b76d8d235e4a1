"""The action broker: who offers what, and one way to call it.

An invocation is validated, ordered by the router, given a slot and a deadline, and tried on the
candidates in turn as far as the capability's `effects` allow. Results are kept by (caller, id).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import jsonschema_rs

from loom_sdk import Call, Item, Result
from loom_sdk.errors import (
    CapabilityNotFound,
    DeadlineExceeded,
    InvalidArguments,
    LoomError,
    NoProvider,
    OutcomeUnknown,
    PluginCrashed,
    PluginUnhealthy,
    QuotaExceeded,
    mapping_of,
)
from loom_sdk.events import new_id
from loom_sdk.plugin import CapabilitySpec

from .config import Policy
from .handle import ALIVE, InFlight, OnItem, PluginHandle
from .router import Candidate, Decision, decide
from .telemetry import Span, Tracer

DEFAULT_TIMEOUT_MS = 30_000
KEPT_RESULTS = 1024
MAX_DEPTH = 8
MAX_ATTEMPTS = 3
REPEATABLE = ("none", "idempotent")

Observe = Callable[[str, str, str, float], None]
"""capability, provider, status (ok, error or timeout), seconds."""


@dataclass(slots=True)
class Offer:
    """One provider of one capability."""

    handle: PluginHandle
    spec: CapabilitySpec
    validator: Any
    """Compiled input schema, None where there is none."""


@dataclass(slots=True)
class Request:
    """One invocation on its way through the broker."""

    capability: str
    arguments: dict[str, Any]
    payload: bytes = b""
    content_type: str = ""
    timeout_ms: int = DEFAULT_TIMEOUT_MS
    id: str = ""
    """The caller's idempotency id, empty for none."""
    caller: str = "host"
    parent: InFlight | None = None
    traceparent: str = ""
    policy: Policy | None = None
    agent: str = ""
    on_item: OnItem | None = None
    delivered: int = 0
    """Items that the consumer already has."""
    deadline: float = 0.0


@dataclass(slots=True)
class _Kept:
    asked: tuple[str, Mapping[str, Any], bytes]
    """Capability, arguments and payload."""
    future: asyncio.Future[Result] = field(default_factory=asyncio.Future)


def compile_schema(spec: CapabilitySpec) -> Any:
    """A validator for the input schema. Raises InvalidArguments where the schema is wrong."""
    if not spec.input_schema:
        return None
    try:
        return jsonschema_rs.validator_for(dict(spec.input_schema))
    except (ValueError, jsonschema_rs.ValidationError) as error:
        raise InvalidArguments(f"{spec.name}: the input schema is wrong: {error}") from error


class Broker:
    """Capability registry, routing table and invocation."""

    def __init__(
        self,
        tracer: Tracer,
        observe: Observe,
        providers: Mapping[str, Sequence[str]] | None = None,
        policies: Mapping[str, Policy] | None = None,
    ) -> None:
        self._tracer = tracer
        self._observe = observe
        self._providers = providers or {}
        self._policies = policies or {}
        self._default_policy = Policy()
        self._offers: dict[str, dict[str, Offer]] = {}
        self._routes: dict[str, list[Offer]] = {}
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()

    # -- registry

    def register(self, handle: PluginHandle) -> None:
        """Take up what a plugin provides, by its manifest, completed by what it said at Init."""
        said = {}
        if handle.instance is not None:
            said = {spec.name: spec for spec in handle.instance.declaration.capabilities}
        for listed in handle.manifest.capabilities:
            if not handle.grants.permits("provide", listed.name):
                continue
            spec = complete(listed, said.get(listed.name))
            offers = self._offers.setdefault(spec.name, {})
            old = offers.get(handle.name)
            if old is None or old.spec != spec:
                offers[handle.name] = Offer(handle, spec, compile_schema(spec))
                self._routes.clear()

    def capabilities(self) -> dict[str, list[Offer]]:
        """Every capability with its providers in the operator's order."""
        return {name: self._ordered(name) for name in sorted(self._offers)}

    def _ordered(self, name: str) -> list[Offer]:
        offers = self._offers[name]
        listed = self._providers.get(name)
        if listed is None:
            return sorted(offers.values(), key=_version, reverse=True)
        return [offers[plugin] for plugin in listed if plugin in offers]

    def _find(self, capability: str) -> list[Offer]:
        """The providers of `name` or `name@version`; looked up once until something registers."""
        found = self._routes.get(capability)
        if found is None:
            found = self._routes[capability] = self._look_up(capability)
        return found

    def _look_up(self, capability: str) -> list[Offer]:
        name, _, version = capability.partition("@")
        if name not in self._offers:
            known = ", ".join(sorted(self._offers)) or "none"
            raise CapabilityNotFound(f"nobody offers {name!r}; offered: {known}")
        offers = self._ordered(name)
        if version:
            offers = [o for o in offers if (o.spec.version or o.handle.spec.version) == version]
        if not offers:
            raise CapabilityNotFound(
                f"no allowed provider offers {capability!r}: see [providers] in loom.toml"
            )
        return offers

    # -- routing

    def route(self, capability: str, policy: Policy | None = None) -> Decision:
        """What the router decides for a call now, without calling."""
        return self._decide(self._find(capability), policy or self._default_policy)

    def policy_of(self, agent: str) -> Policy:
        return self._policies.get(agent, self._default_policy)

    def _decide(self, offers: Sequence[Offer], policy: Policy) -> Decision:
        return decide([_candidate(offer) for offer in offers], policy)

    def _candidates(self, offers: list[Offer], policy: Policy) -> list[Offer]:
        """In the order to try. Raises NoProvider where policy or state leave none."""
        if len(offers) == 1 and policy.privacy in ("public", "sensitive"):
            return offers
        decision = self._decide(offers, policy)
        if not decision.providers:
            raise NoProvider(f"{offers[0].spec.name}: {decision.reason}")
        by_name = {offer.handle.name: offer for offer in offers}
        chosen = [by_name[name] for name in decision.providers]
        # One that must first be restarted comes after those that are there.
        return sorted(chosen, key=lambda o: o.handle.waking and o.handle.counters.restarts > 0)

    # -- invocation

    async def invoke(self, request: Request) -> Result:
        """Serve a request. Raises any CapabilityError or PluginError."""
        if not request.id:
            return await self._serve(request)
        key = (request.caller, request.id)
        kept = self._kept.get(key)
        if kept is None:
            return await self._first(key, request)
        self._kept.move_to_end(key)
        if kept.asked != (request.capability, request.arguments, request.payload):
            raise InvalidArguments(
                f"id {request.id!r} was already used by {request.caller} with other arguments: "
                "draw a new id"
            )
        return await asyncio.shield(kept.future)

    async def _first(self, key: tuple[str, str], request: Request) -> Result:
        asked = (request.capability, request.arguments, request.payload)
        kept = self._kept[key] = _Kept(asked)
        try:
            result = await self._serve(request)
        except BaseException as error:
            self._kept.pop(key, None)  # errors are never kept
            failure = error if isinstance(error, LoomError) else PluginCrashed("call cancelled")
            kept.future.set_exception(failure)
            kept.future.exception()  # nobody may be waiting
            raise
        kept.future.set_result(result)
        while len(self._kept) > KEPT_RESULTS:
            self._kept.popitem(last=False)
        return result

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
        offers = self._find(request.capability)
        validate(offers[0], request.arguments)
        parent = request.parent
        if parent is not None:
            _check_depth(request, parent)
            request.agent = request.agent or parent.agent
        request.deadline = time.monotonic() + request.timeout_ms / 1000
        policy = request.policy or self._policies.get(request.agent, self._default_policy)
        candidates = self._candidates(offers, policy)
        tries = max(len(candidates), MAX_ATTEMPTS)
        order = cycle(candidates)
        while True:
            tries -= 1
            offer = next(order)
            if offer is not offers[0]:
                validate(offer, request.arguments)
            try:
                return await self._attempt(offer, request)
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
        if _undispatched(offer, error):
            return candidates > 1
        if offer.spec.effects not in REPEATABLE:
            return False
        return mapping_of(error).retryable or (
            candidates > 1 and not isinstance(error, InvalidArguments)
        )

    async def _attempt(self, offer: Offer, request: Request) -> Result:
        handle = offer.handle
        span = self._tracer.start(f"invoke {request.capability}", request.traceparent)
        began = time.perf_counter()
        status = "error"
        try:
            result = await self._dispatch(offer, request, span)
            status = "ok"
        except DeadlineExceeded:
            status = "timeout"
            raise
        finally:
            took = time.perf_counter() - began
            handle.counters.calls += 1
            if status != "ok":
                handle.counters.errors += 1
            self._observe(request.capability, handle.name, status, took)
            if span.sampled:
                span.attributes["plugin"] = handle.name
                span.attributes["tier"] = handle.spec.tier
                span.end(None if status == "ok" else status)
        handle.observe(took * 1000)
        handle.counters.inside_us += result.elapsed_us
        result.provider = handle.name
        return result

    async def _dispatch(self, offer: Offer, request: Request, span: Span) -> Result:
        handle = offer.handle
        await _awake(handle, request)
        remaining = request.deadline - time.monotonic()
        allowed = max(0.0, min(remaining, handle.spec.quotas.deadline_ms / 1000))
        items: list[Item] = []
        flight = InFlight(
            id=new_id(),
            plugin=handle.name,
            caller=request.caller,
            depth=request.parent.depth + 1 if request.parent else 0,
            chain=(*(request.parent.chain if request.parent else ()), handle.name),
            deadline=time.monotonic() + allowed,
            traceparent=span.traceparent,
            started_ns=time.time_ns(),
            on_item=_delivery(handle, request, items),
            agent=request.agent,
        )
        queued = dispatched = False
        try:
            async with asyncio.timeout(allowed):
                if handle.slots.full and handle.name in flight.chain[:-1]:
                    raise _reentered(handle, flight)
                handle.slots.spend()
                await handle.ready()
                queued = handle.slots.full
                await handle.slots.acquire()
                queued = False
                try:
                    instance = await handle.ready()  # it may be another one after the wait
                    dispatched = True
                    result = await self._call(handle, instance, request, flight)
                finally:
                    handle.slots.release()
        except TimeoutError as error:
            raise _too_late(handle, request, allowed, queued) from error
        except PluginCrashed as error:
            own = error.plugin_id == handle.spec.id  # else one that it called crashed
            if dispatched and own and offer.spec.effects not in REPEATABLE:
                raise OutcomeUnknown(
                    f"{request.capability} broke off and may or may not have happened: "
                    f"{error.message}"
                ) from error
            raise
        except QuotaExceeded:
            handle.counters.quota_hits += 1
            raise
        result.items = items
        return result

    async def _call(
        self, handle: PluginHandle, instance: Any, request: Request, flight: InFlight
    ) -> Result:
        remaining_ms = max(1, int((flight.deadline - time.monotonic()) * 1000))
        call = Call(
            request.capability.partition("@")[0],
            request.arguments,
            request.payload,
            request.content_type,
            flight.id,
            "",
            remaining_ms,
            flight.traceparent,
        )
        handle.inflight[flight.id] = flight
        try:
            result: Result = await instance.invoke(call)
            return result
        finally:
            del handle.inflight[flight.id]


def complete(listed: CapabilitySpec, said: CapabilitySpec | None) -> CapabilitySpec:
    """The manifest's entry, with schema and description from the code where it has none."""
    if said is None:
        return listed
    return CapabilitySpec(
        name=listed.name,
        description=listed.description or said.description,
        tool=listed.tool,
        effects=listed.effects,
        input_schema=listed.input_schema or said.input_schema,
        output_schema=listed.output_schema or said.output_schema,
        resumable=listed.resumable,
        version=listed.version or said.version,
        examples=listed.examples,
    )


def validate(offer: Offer, arguments: Any) -> None:
    """Raises InvalidArguments naming each place that does not fit."""
    if not isinstance(arguments, dict):
        raise InvalidArguments(f"{offer.spec.name}: arguments must be a JSON object")
    if offer.validator is None or offer.validator.is_valid(arguments):
        return
    errors = list(offer.validator.iter_errors(arguments))[:3]
    texts = ["/".join(map(str, e.instance_path)) + ": " + e.message for e in errors]
    raise InvalidArguments(
        f"{offer.spec.name}: " + "; ".join(text.removeprefix(": ") for text in texts)
    )


def _version(offer: Offer) -> tuple[int, ...]:
    text = offer.spec.version or offer.handle.spec.version
    return tuple(int(part) if part.isdigit() else 0 for part in text.split("."))


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


def _reentered(handle: PluginHandle, flight: InFlight) -> QuotaExceeded:
    chain = " -> ".join(flight.chain)
    return QuotaExceeded(
        f"{handle.name} waits for itself and is at its concurrency limit: {chain}",
        plugin_id=handle.spec.id,
        quota="concurrency",
        limit=handle.slots.limit,
        used=handle.slots.limit + 1,
    )


async def _awake(handle: PluginHandle, request: Request) -> None:
    """Wait for a plugin that is starting: on the caller's time, not on its quota."""
    if handle.instance is not None and handle.state in ALIVE:
        return
    remaining = max(0.0, request.deadline - time.monotonic())
    try:
        async with asyncio.timeout(remaining):
            await handle.ready()
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"{request.capability}: {handle.name} was not ready within {remaining:.1f} s",
            plugin_id=handle.spec.id,
        ) from error


def _too_late(handle: PluginHandle, request: Request, allowed: float, queued: bool) -> LoomError:
    if queued:
        return QuotaExceeded(
            f"{handle.name} was busy with {handle.slots.active} call(s) for {allowed:.1f} s",
            plugin_id=handle.spec.id,
            quota="concurrency",
            limit=handle.slots.limit,
            used=handle.slots.limit + 1,
        )
    handle.counters.quota_hits += 1
    return DeadlineExceeded(
        f"{request.capability} did not end within {allowed * 1000:.0f} ms ({handle.name})",
        plugin_id=handle.spec.id,
    )


def _undispatched(offer: Offer, error: LoomError) -> bool:
    """Whether the plugin itself never saw the call: any effects may go to another provider."""
    if getattr(error, "plugin_id", "") != offer.handle.spec.id:
        return False
    return isinstance(error, PluginUnhealthy) or (
        isinstance(error, QuotaExceeded) and error.quota in ("rate", "concurrency")
    )


def _tell_index(error: LoomError, delivered: int) -> None:
    """Make the error of a stream that broke off say after how many items."""
    if delivered:
        error.message = f"{error.message} (after {delivered} item(s))"
        error.args = (error.message,)


def _delivery(handle: PluginHandle, request: Request, items: list[Item]) -> OnItem:
    """Where emitted items go: to the consumer, or into the result."""

    async def deliver(item: Item) -> None:
        if request.on_item is None:
            items.append(item)
            return
        request.delivered += 1
        await request.on_item(item)

    return deliver
