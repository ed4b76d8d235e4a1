"""Carries events from a plugin's subscriptions to its instance; a handler's return acknowledges."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from loom_sdk import QoS
from loom_sdk.errors import BusError, PluginCrashed, encode
from loom_sdk.plugin import SubscriptionSpec
from loom_sdk.topics import covers

from .bus import Delivery, MemoryBus, Subscription
from .handle import PluginHandle
from .handling import Handling, has_ended, placed
from .runtimes.base import PluginInstance
from .telemetry import Tracer

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
        self._bus, self.handle, self._agent = bus, handle, agent
        self._handling = Handling(tracer, on_handled)
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

    def _named(self, pattern: str) -> str:
        return f"{self.handle.name}:{pattern}"

    def _open(self, spec: SubscriptionSpec, pattern: str) -> None:
        subscription = self._bus.subscribe(
            pattern,
            qos=spec.qos,
            types=spec.types,
            name=self._named(pattern),
            manual_ack=True,
        )
        subscription.reads = self._reads
        self.subscriptions.append(subscription)
        self._specs[subscription] = spec
        for _ in range(spec.concurrency):
            self._tasks.append(asyncio.create_task(self._run(spec, subscription)))

    def _reads(self, level: int) -> bool:
        return self.handle.labels.may_read(level, self.handle.instance)

    def follow(self, heir: PluginHandle) -> None:
        """From the next event on deliver to `heir`; what is in hand ends where it is.

        What both hear stays one subscription with its queue. What only the old one heard is
        closed, its queue becomes dead letters; what only the new one hears is opened.
        """
        old, self.handle = self.handle, heir
        heir.labels.agents.update(old.labels.agents)
        missing = self._wanted()
        for subscription in list(self.subscriptions):
            wish = (self._specs[subscription], subscription.pattern)
            if wish in missing:
                missing.remove(wish)
                subscription.name = self._named(subscription.pattern)
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
            handle, instance = self._at_once() or await self._placed()
            try:
                await self._deliver(handle, instance, delivery, subscription)
            finally:
                handle.slots.release()
        except Exception as error:
            handle = handle or self.handle
            message = encode(error).message
            if has_ended(handle, error):
                if isinstance(error, PluginCrashed):
                    self._tell(handle, delivery, subscription, message)
                await self._again(handle, spec, delivery, subscription, message)
            else:
                self._give_up(handle, delivery, subscription, message)
        else:
            subscription.ack(delivery)

    def _at_once(self) -> tuple[PluginHandle, PluginInstance] | None:
        """A place at the plugin, where it is awake and has a free one."""
        handle, instance = self.handle, self.handle.instance
        if instance is not None and handle.serves and not instance.asleep and handle.slots.taken():
            return handle, instance
        return None

    async def _placed(self) -> tuple[PluginHandle, PluginInstance]:
        """As `placed`, for its plugin or whatever took its place."""
        return await placed(lambda: self.handle)

    async def _deliver(
        self,
        handle: PluginHandle,
        instance: PluginInstance,
        delivery: Delivery,
        subscription: Subscription,
    ) -> None:
        """Returns when it is handled. Raises LoomError."""
        await self._handling.handle(
            handle, instance, delivery.event, label=self.label, agent=self._agent
        )

    def _tell(
        self, handle: PluginHandle, delivery: Delivery, subscription: Subscription, message: str
    ) -> None:
        """An error of a handler, in the log and in the plugin's count of them."""
        handle.counters.errors += 1
        trace = {"plugin": handle.name, "traceparent": delivery.event.traceparent}
        log.warning("%s: %s", subscription.name, message, extra=trace)

    def _give_up(
        self, handle: PluginHandle, delivery: Delivery, subscription: Subscription, message: str
    ) -> None:
        self._tell(handle, delivery, subscription, message)
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
        elif self._stopping or self.handle.state in ("failed", "stopped"):  # nobody takes it again
            subscription.dead_letter(delivery, self.handle.explain())
        else:
            subscription.nack(delivery, last=message)

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
