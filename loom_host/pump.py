"""Carries events from a plugin's subscriptions to its instance; the handler's return acknowledges."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from loom_sdk import Event, QoS
from loom_sdk.errors import BusError, DeadlineExceeded, LoomError, PluginCrashed, PluginUnhealthy
from loom_sdk.plugin import SubscriptionSpec

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
            if not self._handle.grants.permits("subscribe", spec.topic):
                continue
            subscription = self._bus.subscribe(
                spec.topic,
                qos=spec.qos,
                types=spec.types,
                name=f"{self._handle.name}:{spec.topic}",
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
            except (PluginCrashed, PluginUnhealthy) as error:
                await self._again(spec, delivery, subscription, error)
            except LoomError as error:
                self._handle.counters.errors += 1
                log.warning("%s: %s", subscription.name, error.message)
                subscription.dead_letter(delivery, f"handler failed: {error.message}")
            else:
                subscription.ack(delivery)

    async def _again(
        self,
        spec: SubscriptionSpec,
        delivery: Delivery,
        subscription: Subscription,
        error: LoomError,
    ) -> None:
        """After a restart, first and in order; Realtime events are not worth it."""
        if spec.qos is QoS.REALTIME:
            subscription.dead_letter(delivery, f"plugin ended: {error.message}")
        elif self._handle.state in ("failed", "stopped"):
            subscription.dead_letter(delivery, self._handle.explain())
        else:
            subscription.nack(delivery)

    async def _deliver(self, delivery: Delivery, subscription: Subscription) -> None:
        handle, event = self._handle, delivery.event
        instance = await handle.ready()
        await handle.slots.acquire()
        try:
            await self._handle_event(instance, event)
        finally:
            handle.slots.release()

    async def _handle_event(self, instance: PluginInstance, event: Event) -> None:
        handle = self._handle
        limit = handle.spec.quotas.deadline_ms / 1000
        span = self._tracer.start(f"handle {event.topic}", event.traceparent)
        flight = InFlight(
            id=event.id,
            plugin=handle.name,
            caller=event.source,
            chain=(handle.name,),
            deadline=time.monotonic() + limit,
            traceparent=span.traceparent,
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
            if span.sampled:
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
