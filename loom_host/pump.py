"""Carries events from a plugin's subscriptions to its instance; a handler's return acknowledges."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from loom_sdk import Event, QoS
from loom_sdk.errors import (
    BusError,
    DeadlineExceeded,
    LoomError,
    PluginCrashed,
    PluginUnhealthy,
    encode,
)
from loom_sdk.plugin import SubscriptionSpec
from loom_sdk.topics import covers

from .bus import Delivery, MemoryBus, Subscription
from .deadline import Deadline
from .handle import InFlight, PluginHandle, Replaced
from .runtimes.base import PluginInstance, serving
from .telemetry import Tracer, current

log = logging.getLogger("loom.pump")

DRAIN_LOOK_S, FINISH_S = 0.01, 1.0


class Pump:
    """One plugin's subscriptions, from `start` to `aclose`."""

    def __init__(
        self,
        bus: MemoryBus,
        tracer: Tracer,
        handle: PluginHandle,
        agent: str,
        on_handled: Callable[[float, str], None],
    ) -> None:
        self._bus, self._tracer, self.handle, self._agent = bus, tracer, handle, agent
        self._on_handled = on_handled
        self._specs: dict[Subscription, SubscriptionSpec] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._busy: set[asyncio.Task[None]] = set()
        self._stopping = False
        self.subscriptions: list[Subscription] = []

    @property
    def label(self) -> str:
        """Who it is in the metrics: the agent that the plugin is, else the plugin."""
        return self._agent or self.handle.name

    @property
    def waiting(self) -> int:
        """Events that wait for the plugin."""
        return sum(subscription.depth for subscription in self.subscriptions)

    def start(self) -> None:
        """Subscribe to what is granted; from now on events wait for the plugin."""
        for spec, pattern in self._wanted():
            self._open(spec, pattern)

    def _wanted(self) -> list[tuple[SubscriptionSpec, str]]:
        found = self.handle.manifest.subscribes
        return [(spec, pattern) for spec in found for pattern in self._granted(spec)]

    def _granted(self, spec: SubscriptionSpec) -> list[str]:
        """The topic where it is granted, else the narrower patterns of it that are."""
        grants = self.handle.grants
        if grants.permits("subscribe", spec.topic):
            return [spec.topic]
        others = {other.topic for other in self.handle.manifest.subscribes}
        allowed = grants.allowed.get("subscribe", ())
        return [p for p in allowed if p not in others and covers(spec.topic, p)]

    def _open(self, spec: SubscriptionSpec, pattern: str) -> None:
        subscription = self._bus.subscribe(
            pattern,
            qos=spec.qos,
            types=spec.types,
            name=f"{self.handle.name}:{pattern}",
            manual_ack=True,
        )
        self.subscriptions.append(subscription)
        self._specs[subscription] = spec
        for _ in range(spec.concurrency):
            self._tasks.append(asyncio.create_task(self._run(spec, subscription)))

    def follow(self, heir: PluginHandle) -> None:
        """From the next event on deliver to `heir`; what is in hand ends where it is.

        What both hear stays one subscription with its queue. What only the old one heard is
        closed, its queue becomes dead letters; what only the new one hears is opened.
        """
        old, self.handle = self.handle, heir
        missing = self._wanted()
        for subscription in list(self.subscriptions):
            wish = (self._specs[subscription], subscription.pattern)
            if wish in missing:
                missing.remove(wish)
                subscription.name = f"{heir.name}:{subscription.pattern}"
                continue
            why = f"{heir.name}, which took the place of {old.name}, does not hear it"
            subscription.reject_all(why)
            subscription.close()
            self.subscriptions.remove(subscription)
        for spec, pattern in missing:
            self._open(spec, pattern)

    async def retire(self, patience_s: float, reason: str) -> None:
        """Hear nothing new, deliver what is queued for at most so long; the rest: dead letters."""
        for subscription in self.subscriptions:
            self._bus.unsubscribe(subscription)
        until = time.monotonic() + patience_s
        while self._has_queue() and time.monotonic() < until:  # noqa: ASYNC110  # it has no event
            await asyncio.sleep(DRAIN_LOOK_S)
        self.stop_taking()
        for subscription in self.subscriptions:
            subscription.reject_all(reason)

    async def finish(self) -> None:
        """After `retire`, when the plugin is stopped: close, once what was in hand is accounted."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=FINISH_S)
        await self.aclose()

    def _has_queue(self) -> bool:
        if self.handle.state == "failed":
            return False
        return any(s.depth or s.in_flight for s in self.subscriptions)

    async def _run(self, spec: SubscriptionSpec, subscription: Subscription) -> None:
        task = asyncio.current_task()
        assert task is not None
        while not self._stopping:
            try:
                delivery = await subscription.take()
            except (StopAsyncIteration, BusError):
                return
            self._busy.add(task)
            await self._handle_one(spec, delivery, subscription)
            self._busy.discard(task)

    async def _handle_one(
        self, spec: SubscriptionSpec, delivery: Delivery, subscription: Subscription
    ) -> None:
        handle: PluginHandle | None = None
        try:
            handle, instance = await self._placed()
            try:
                await self._handle_event(handle, instance, delivery.event)
            finally:
                handle.slots.release()
        except Exception as error:
            handle = handle or self.handle
            message = encode(error).message
            if _has_ended(handle, error):
                await self._again(handle, spec, delivery, subscription, message)
            else:
                self._give_up(handle, delivery, subscription, message)
        else:
            subscription.ack(delivery)

    async def _placed(self) -> tuple[PluginHandle, PluginInstance]:
        """A place at the plugin, and it is awake. Raises PluginUnhealthy or QuotaExceeded.

        Where a swap comes in between, at the plugin that took its place.
        """
        while True:
            handle = self.handle
            try:
                return handle, await _place(handle)
            except Replaced:
                if self.handle is handle:
                    raise

    def _give_up(
        self, handle: PluginHandle, delivery: Delivery, subscription: Subscription, message: str
    ) -> None:
        handle.counters.errors += 1
        trace = {"plugin": handle.name, "traceparent": delivery.event.traceparent}
        log.warning("%s: %s", subscription.name, message, extra=trace)
        subscription.dead_letter(delivery, f"handler failed: {message}")

    async def _again(
        self,
        handle: PluginHandle,
        spec: SubscriptionSpec,
        delivery: Delivery,
        subscription: Subscription,
        message: str,
    ) -> None:
        """After a restart, first and in order; Realtime events are not worth it."""
        await handle.noticed()
        if spec.qos is QoS.REALTIME:
            subscription.dead_letter(delivery, f"plugin ended: {message}")
        elif self.handle.state in ("failed", "stopped"):
            subscription.dead_letter(delivery, self.handle.explain())
        else:
            subscription.nack(delivery)

    async def _handle_event(
        self, handle: PluginHandle, instance: PluginInstance, event: Event
    ) -> None:
        # Untraced events, such as frames of audio, do not begin a trace.
        name = f"handle {event.topic}"
        span = self._tracer.start(name, event.traceparent) if event.traceparent else None
        traceparent = span.traceparent if span else ""
        flight = handle.inflight[event.id] = self._flight(handle, event, traceparent)
        handle.counters.events += 1
        began, token = time.perf_counter(), current.set(traceparent)
        served = serving.set(event.id)
        failure: BaseException | None = None
        try:
            handle.counters.inside_us += await self._in_time(handle, instance, event, flight)
        except BaseException as error:
            failure = error
            raise
        finally:
            current.reset(token)
            serving.reset(served)
            handle.inflight.pop(event.id, None)
            self._on_handled(time.perf_counter() - began, self.label)
            if span is not None and span.sampled:
                span.attributes["plugin"] = handle.name
                span.attributes["tier"] = handle.spec.tier
                span.end(failure)

    def _flight(self, handle: PluginHandle, event: Event, traceparent: str) -> InFlight:
        return InFlight(
            id=event.id,
            plugin=handle.name,
            caller=event.source,
            chain=(handle.name,),
            deadline=time.monotonic() + handle.spec.quotas.deadline_ms / 1000,
            traceparent=traceparent,
            started_ns=time.time_ns(),
            agent=self._agent,
        )

    async def _in_time(
        self, handle: PluginHandle, instance: PluginInstance, event: Event, flight: InFlight
    ) -> int:
        """Deliver; microseconds inside the plugin. Raises DeadlineExceeded or QuotaExceeded."""
        limit_ms = handle.spec.quotas.deadline_ms
        try:
            with Deadline(limit_ms / 1000) as limit:
                flight.end = limit.end
                return await instance.handle_event(event)
        except LoomError as error:
            handle.redactor.error(error)
            raise
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"{handle.name} did not handle {event.topic} within {limit_ms:.0f} ms",
                plugin_id=handle.spec.id,
            ) from error

    def stop_taking(self) -> None:
        """Hand no further event to the plugin; what it has in hand goes on until `aclose`."""
        self._stopping = True
        for task in self._tasks:
            if task not in self._busy:
                task.cancel()

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for subscription in self.subscriptions:
            await subscription.aclose()


def _has_ended(handle: PluginHandle, error: Exception) -> bool:
    """Whether this plugin, and not one that it called, is gone."""
    own = getattr(error, "plugin_id", "") == handle.spec.id
    return own and isinstance(error, PluginCrashed | PluginUnhealthy)


async def _place(handle: PluginHandle) -> PluginInstance:
    await handle.ready()
    await handle.slots.acquire()
    try:
        while (instance := await handle.ready()).asleep:  # it may be another one after a wait
            await handle.rouse(instance)
        return instance
    except BaseException:
        handle.slots.release()
        raise
