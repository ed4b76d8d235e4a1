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
    PluginCrashed,
    PluginUnhealthy,
    encode,
)
from loom_sdk.plugin import SubscriptionSpec
from loom_sdk.topics import covers

from .bus import Delivery, MemoryBus, Subscription
from .handle import InFlight, PluginHandle
from .runtimes.base import PluginInstance
from .telemetry import Tracer

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
        self.subscriptions: list[Subscription] = []

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
        while True:
            try:
                delivery = await subscription.take()
            except (StopAsyncIteration, BusError):
                return
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
        log.warning("%s: %s", subscription.name, message)
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
            await self._handle_event(instance, event)
        finally:
            handle.slots.release()

    async def _handle_event(self, instance: PluginInstance, event: Event) -> None:
        handle = self._handle
        limit = handle.spec.quotas.deadline_ms / 1000
        # Untraced events, such as frames of audio, do not begin a trace.
        name = f"handle {event.topic}"
        span = self._tracer.start(name, event.traceparent) if event.traceparent else None
        flight = InFlight(
            id=event.id,
            plugin=handle.name,
            caller=event.source,
            chain=(handle.name,),
            deadline=time.monotonic() + limit,
            traceparent=span.traceparent if span else "",
            started_ns=time.time_ns(),
            agent=self._agent,
        )
        handle.inflight[event.id] = flight
        handle.counters.events += 1
        began, failure = time.perf_counter(), "error"
        try:
            async with asyncio.timeout(limit):
                inside = await instance.handle_event(event)
            handle.counters.inside_us += inside
            failure = ""
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"{handle.name} did not handle {event.topic} within {limit * 1000:.0f} ms",
                plugin_id=handle.spec.id,
            ) from error
        finally:
            handle.inflight.pop(event.id, None)
            self._on_handled(time.perf_counter() - began, handle.name)
            if span is not None and span.sampled:
                span.attributes["plugin"] = handle.name
                span.end(failure or None)

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for subscription in self.subscriptions:
            await subscription.aclose()
