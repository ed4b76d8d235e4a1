"""One request, one provider: a slot, a deadline, the call, and what became of it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from loom_sdk import Call, Item, Result
from loom_sdk.errors import (
    DeadlineExceeded,
    LoomError,
    NoProvider,
    OutcomeUnknown,
    PluginCrashed,
    PluginUnhealthy,
    QuotaExceeded,
)
from loom_sdk.events import new_id

from .deadline import Deadline
from .handle import ALIVE, InFlight, OnItem, PluginHandle
from .privacy import DEFAULT, PUBLIC
from .registry import Offer
from .runtimes.base import NotReached, PluginInstance, serving
from .settings import Policy

DEFAULT_TIMEOUT_MS = 30_000
REPEATABLE = ("none", "idempotent")


class Stalled(DeadlineExceeded):
    """The first item of a stream did not come in time, and another provider could be tried."""


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
    level: int = PUBLIC
    """Of privacy: at least this holds; once it is routed, what holds."""
    reached: int = PUBLIC
    """The strictest level that a provider came upon while it served it."""
    approved: bool = False
    """Its caller's own user allowed this call; what is called below it is asked about."""
    settled: str = ""
    """The effects that it was allowed with; empty: nothing was settled yet."""
    private_tools: tuple[str, ...] = ()
    """Of the policy: who may be given what is private although it has a way out."""
    confidence: float | None = None
    """That of the event being served; None where it has none."""
    on_item: OnItem | None = None
    items: list[Item] = field(default_factory=list)
    """Emitted by the provider that was tried last, where nobody takes them as they come."""
    delivered: int = 0
    """Items that the consumer already has."""
    first_at: float = 0.0
    """When the first one came, on the performance counter; 0: none has."""
    first_item_s: float = 0.0
    """How long the provider that is tried may take to the first one; 0: until the deadline."""
    suspects: tuple[tuple[Offer, LoomError], ...] = ()
    """Providers that failed, maybe through the call's fault: another one's answer tells."""
    route: tuple[str, str] = ("", "")
    """The router's decision and its reason."""
    deadline: float = 0.0
    dispatched: bool = False
    """Whether the provider that was tried last has seen the call."""

    async def deliver(self, item: Item) -> None:
        """Where emitted items go: to the consumer, or into the result."""
        if self.on_item is None:
            self.items.append(item)
            return
        if not self.delivered:
            self.first_at = time.perf_counter()
        self.delivered += 1
        await self.on_item(item)


async def dispatch(offer: Offer, request: Request, traceparent: str) -> Result:
    handle, slots = offer.handle, offer.handle.slots
    request.dispatched = False
    if not _awake(handle):
        await _wake(handle, request)
    request.items = []
    now = time.monotonic()
    allowed = min(max(0.0, request.deadline - now), handle.spec.quotas.deadline_ms / 1000)
    flight = _flight(handle, request, now + allowed, traceparent)
    queued = False
    try:
        with Deadline(allowed) as limit:
            flight.end = limit.end
            if flight.depth and slots.full and handle.name in flight.chain[:-1]:
                raise _reentered(handle, flight)
            if slots.rate:
                slots.spend()
            if not slots.taken():
                queued = True
                await slots.acquire()
                queued = False
            try:
                instance = handle.instance
                if instance is None or instance.asleep or handle.state not in ALIVE:
                    instance = await _instance(handle, request, flight, limit)
                _admit(offer, request, flight, instance)
                request.dispatched = True
                result = await _call(handle, instance, request, flight)
            finally:
                slots.release()
    except TimeoutError as error:
        raise _too_late(offer, request, allowed, queued) from error
    except (PluginCrashed, PluginUnhealthy) as error:
        _check_known(offer, request, error)
        raise
    except (QuotaExceeded, DeadlineExceeded) as error:
        _count(handle, flight, error)
        raise
    result.items = request.items
    return result


def _count(handle: PluginHandle, flight: InFlight, error: LoomError) -> None:
    if not flight.refused and not isinstance(error, Stalled):  # else it was counted, or is no quota
        handle.counters.hit(error.quota if isinstance(error, QuotaExceeded) else "deadline_ms")


def _check_known(offer: Offer, request: Request, error: LoomError) -> None:
    """Raises OutcomeUnknown where the call may have happened and may not be repeated."""
    own = getattr(error, "plugin_id", "") == offer.handle.spec.id  # else one that it called crashed
    request.dispatched = request.dispatched and not (own and isinstance(error, NotReached))
    if request.dispatched and own and offer.spec.effects not in REPEATABLE:
        raise OutcomeUnknown(
            f"{request.capability} broke off and may or may not have happened: {error.message}"
        ) from error


def _flight(handle: PluginHandle, request: Request, deadline: float, traceparent: str) -> InFlight:
    parent = request.parent
    return InFlight(
        id=new_id(),
        plugin=handle.name,
        caller=request.caller,
        depth=parent.depth + 1 if parent else 0,
        chain=(*(parent.chain if parent else ()), handle.name),
        deadline=deadline,
        traceparent=traceparent,
        on_item=request.deliver,
        agent=request.agent,
        level=request.level,
        parent=parent,
        labels=handle.labels,
        holder=handle,
        private_tools=request.private_tools,
    )


def _admit(offer: Offer, request: Request, flight: InFlight, instance: PluginInstance) -> None:
    """Last look at privacy: only now it is known what holds the plugin from the network."""
    labels, level = offer.handle.labels, request.level
    if level > DEFAULT or offer.route[0] == "Cloud":
        reason = labels.refusal(level, request.private_tools, request.agent, instance)
        if reason:
            raise NoProvider(f"{request.capability}: {reason}")
        labels.count(level, request.capability, instance)
    flight.level = labels.enter(level)
    if flight.level > level and request.parent is not None:
        request.parent.rise(flight.level)


async def _instance(
    handle: PluginHandle, request: Request, flight: InFlight, limit: Deadline
) -> PluginInstance:
    """After the wait for a place it may be another one, or one that starts again, which takes of
    the caller's time alone.
    """
    while True:
        instance = handle.instance if handle.serves else await handle.ready()
        assert instance is not None
        if not instance.asleep:
            return instance
        began = time.monotonic()
        limit.restart(max(0.0, request.deadline - began))
        await handle.rouse(instance)
        now = time.monotonic()
        flight.deadline = min(flight.deadline + now - began, request.deadline)
        limit.restart(max(0.0, flight.deadline - now))


async def _call(handle: PluginHandle, instance: Any, request: Request, flight: InFlight) -> Result:
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
    flight.started_ns = time.time_ns()  # the plugin's own spans count from here
    handle.inflight[flight.id] = flight
    token = serving.set(flight.id)
    timer = _watch_first_item(handle, request, flight) if request.first_item_s else None
    try:
        result: Result = await instance.invoke(call)
        return result
    except LoomError as error:
        handle.redactor.error(error)
        raise
    finally:
        if timer is not None:
            timer.cancel()
        serving.reset(token)
        request.reached = max(request.reached, flight.level)
        del handle.inflight[flight.id]


def _watch_first_item(
    handle: PluginHandle, request: Request, flight: InFlight
) -> asyncio.TimerHandle:
    """Ends the call with Stalled where its first item takes longer than `first_item_s`."""

    def look() -> None:
        if not request.delivered:
            flight.end(
                Stalled(
                    f"{request.capability}: {handle.name} gave no item within "
                    f"{request.first_item_s * 1000:.0f} ms",
                    plugin_id=handle.spec.id,
                )
            )

    return asyncio.get_running_loop().call_later(request.first_item_s, look)


def _reentered(handle: PluginHandle, flight: InFlight) -> QuotaExceeded:
    chain = " -> ".join(flight.chain)
    return QuotaExceeded(
        f"{handle.name} waits for itself and is at its concurrency limit: {chain}",
        plugin_id=handle.spec.id,
        quota="concurrency",
        limit=handle.slots.limit,
        used=handle.slots.limit + 1,
    )


def _awake(handle: PluginHandle) -> bool:
    """Whether it serves; a busy one is waited for later."""
    instance = handle.instance
    if instance is None or handle.state not in ALIVE:
        return False
    return not instance.asleep or handle.slots.full


async def _wake(handle: PluginHandle, request: Request) -> None:
    """Wait for a plugin that is starting: on the caller's time, not on its quota."""
    remaining = max(0.0, request.deadline - time.monotonic())
    try:
        async with asyncio.timeout(remaining):
            instance = await handle.ready()
            if instance.asleep and not handle.slots.full:
                await handle.rouse(instance)
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"{request.capability}: {handle.name} was not ready within {remaining:.1f} s",
            plugin_id=handle.spec.id,
        ) from error


def _too_late(offer: Offer, request: Request, allowed: float, queued: bool) -> LoomError:
    handle = offer.handle
    handle.counters.hit("concurrency" if queued else "deadline_ms")
    if queued:
        return QuotaExceeded(
            f"{handle.name} was busy with {handle.slots.active} call(s) for {allowed:.1f} s",
            plugin_id=handle.spec.id,
            quota="concurrency",
            limit=handle.slots.limit,
            used=handle.slots.limit + 1,
        )
    text = f"{request.capability} did not end within {allowed * 1000:.0f} ms ({handle.name})"
    if request.dispatched and offer.spec.effects not in REPEATABLE:
        text += ": it may or may not have happened"
    return DeadlineExceeded(text, plugin_id=handle.spec.id)
