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
from .handle import InFlight, PluginHandle
from .runtimes.base import PluginInstance, serving
from .telemetry import Tracer, current

log = logging.getLogger("loom.pump")


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
        self._bus, self._tracer, self._handle, self._agent = bus, tracer, handle, agent
        self._on_handled = on_handled
        self._tasks: list[asyncio.Task[None]] = []
        self._busy: set[asyncio.Task[None]] = set()
        self._stopping = False
        self.subscriptions: list[Subscription] = []

    @property
    def label(self) -> str:
        """Who it is in the metrics: the agent that the plugin is, else the plugin."""
        return self._agent or self._handle.name

    @property
    def waiting(self) -> int:
        """Events that wait for the plugin."""
        return sum(subscription.depth for subscription in self.subscriptions)

    def start(self) -> None:
        """Subscribe to what is granted; from now on events wait for the plugin."""
        for spec in self._handle.manifest.subscribes:
            for pattern in self._granted(spec):
                self._open(spec, pattern)

    def _granted(self, spec: SubscriptionSpec) -> list[str]:
        """The topic where it is granted, else the narrower patterns of it that are."""
        grants = self._handle.grants
        if grants.permits("subscribe", spec.topic):
            return [spec.topic]
        others = {other.topic for other in self._handle.manifest.subscribes}
        allowed = grants.allowed.get("subscribe", ())
        return [p for p in allowed if p not in others and covers(spec.topic, p)]

    def _open(self, spec: SubscriptionSpec, pattern: str) -> None:
        subscription = self._bus.subscribe(
            pattern,
            qos=spec.qos,
            types=spec.types,
            name=f"{self._handle.name}:{pattern}",
            manual_ack=True,
        )
        self.subscriptions.append(subscription)
        for _ in range(spec.concurrency):
            self._tasks.append(asyncio.create_task(self._run(spec, subscription)))

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
        try:
            await self._deliver(delivery, subscription)
        except Exception as error:
            if self._has_ended(error):
                await self._again(spec, delivery, subscription, encode(error).message)
            else:
                self._give_up(delivery, subscription, encode(error).message)
        else:
            subscription.ack(delivery)

    def _has_ended(self, error: Exception) -> bool:
        """Whether this plugin, and not one that it called, is gone."""
        own = getattr(error, "plugin_id", "") == self._handle.spec.id
        return own and isinstance(error, PluginCrashed | PluginUnhealthy)

    def _give_up(self, delivery: Delivery, subscription: Subscription, message: str) -> None:
        self._handle.counters.errors += 1
        trace = {"plugin": self._handle.name, "traceparent": delivery.event.traceparent}
        log.warning("%s: %s", subscription.name, message, extra=trace)
        subscription.dead_letter(delivery, f"handler failed: {message}")

    async def _again(
        self,
        spec: SubscriptionSpec,
        delivery: Delivery,
        subscription: Subscription,
        message: str,
    ) -> None:
        """After a restart, first and in order; Realtime events are not worth it."""
        await self._handle.noticed()
        if spec.qos is QoS.REALTIME:
            subscription.dead_letter(delivery, f"plugin ended: {message}")
        elif self._handle.state in ("failed", "stopped"):
            subscription.dead_letter(delivery, self._handle.explain())
        else:
            subscription.nack(delivery)

    async def _deliver(self, delivery: Delivery, subscription: Subscription) -> None:
        handle, event = self._handle, delivery.event
        await handle.ready()
        await handle.slots.acquire()
        try:
            instance = await handle.ready()  # it may be another one after the wait
            if instance.asleep:
                await instance.wake()
            await self._handle_event(instance, event)
        finally:
            handle.slots.release()

    async def _handle_event(self, instance: PluginInstance, event: Event) -> None:
        handle = self._handle
        # Untraced events, such as frames of audio, do not begin a trace.
        name = f"handle {event.topic}"
        span = self._tracer.start(name, event.traceparent) if event.traceparent else None
        traceparent = span.traceparent if span else ""
        flight = handle.inflight[event.id] = self._flight(event, traceparent)
        handle.counters.events += 1
        began, token = time.perf_counter(), current.set(traceparent)
        served = serving.set(event.id)
        failure: BaseException | None = None
        try:
            handle.counters.inside_us += await self._in_time(instance, event, flight)
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

    def _flight(self, event: Event, traceparent: str) -> InFlight:
        handle = self._handle
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

    async def _in_time(self, instance: PluginInstance, event: Event, flight: InFlight) -> int:
        """Deliver; microseconds inside the plugin. Raises DeadlineExceeded or QuotaExceeded."""
        limit_ms = self._handle.spec.quotas.deadline_ms
        try:
            with Deadline(limit_ms / 1000) as limit:
                flight.end = limit.end
                return await instance.handle_event(event)
        except LoomError as error:
            self._handle.redactor.error(error)
            raise
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"{self._handle.name} did not handle {event.topic} within {limit_ms:.0f} ms",
                plugin_id=self._handle.spec.id,
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
