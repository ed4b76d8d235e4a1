"""One request, one provider: a slot, a deadline, the call, and what became of it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from loom_sdk import Call, Item, Result
from loom_sdk.errors import (
    DeadlineExceeded,
    LoomError,
    OutcomeUnknown,
    PluginCrashed,
    QuotaExceeded,
)
from loom_sdk.events import new_id

from .config import Policy
from .deadline import Deadline
from .handle import InFlight, OnItem, PluginHandle
from .registry import Offer
from .runtimes.base import PluginInstance, serving

DEFAULT_TIMEOUT_MS = 30_000
REPEATABLE = ("none", "idempotent")


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
    route: tuple[str, str] = ("", "")
    """The router's decision and its reason."""
    deadline: float = 0.0


async def dispatch(offer: Offer, request: Request, traceparent: str) -> Result:
    handle = offer.handle
    await _awake(handle, request)
    remaining = request.deadline - time.monotonic()
    allowed = max(0.0, min(remaining, handle.spec.quotas.deadline_ms / 1000))
    items: list[Item] = []
    flight = _flight(handle, request, allowed, traceparent, items)
    queued = dispatched = False
    try:
        with Deadline(allowed) as limit:
            flight.end = limit.end
            if handle.slots.full and handle.name in flight.chain[:-1]:
                raise _reentered(handle, flight)
            handle.slots.spend()
            if not handle.serves:
                await handle.ready()
            queued = handle.slots.full
            await handle.slots.acquire()
            queued = False
            try:
                # After the wait it may be another one, or one that starts again.
                instance = await _instance(handle, request, flight, limit)
                dispatched = True
                result = await _call(handle, instance, request, flight)
            finally:
                handle.slots.release()
    except TimeoutError as error:
        raise _too_late(handle, request, allowed, queued) from error
    except PluginCrashed as error:
        own = error.plugin_id == handle.spec.id  # else one that it called crashed
        if dispatched and own and offer.spec.effects not in REPEATABLE:
            raise OutcomeUnknown(
                f"{request.capability} broke off and may or may not have happened: {error.message}"
            ) from error
        raise
    except (QuotaExceeded, DeadlineExceeded):
        handle.counters.quota_hits += not flight.refused  # else they were counted
        raise
    result.items = items
    return result


def _flight(
    handle: PluginHandle, request: Request, allowed: float, traceparent: str, items: list[Item]
) -> InFlight:
    parent = request.parent
    return InFlight(
        id=new_id(),
        plugin=handle.name,
        caller=request.caller,
        depth=parent.depth + 1 if parent else 0,
        chain=(*(parent.chain if parent else ()), handle.name),
        deadline=time.monotonic() + allowed,
        traceparent=traceparent,
        on_item=_delivery(handle, request, items),
        agent=request.agent,
    )


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
        await instance.wake()
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
    try:
        result: Result = await instance.invoke(call)
        return result
    except LoomError as error:
        handle.redactor.error(error)
        raise
    finally:
        serving.reset(token)
        del handle.inflight[flight.id]


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
    instance = handle.instance
    if handle.serves and instance is not None and (handle.slots.full or not instance.asleep):
        return
    remaining = max(0.0, request.deadline - time.monotonic())
    try:
        async with asyncio.timeout(remaining):
            instance = await handle.ready()
            if instance.asleep and not handle.slots.full:
                await instance.wake()
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


def _delivery(handle: PluginHandle, request: Request, items: list[Item]) -> OnItem:
    """Where emitted items go: to the consumer, or into the result."""

    async def deliver(item: Item) -> None:
        if request.on_item is None:
            items.append(item)
            return
        request.delivered += 1
        await request.on_item(item)

    return deliver
