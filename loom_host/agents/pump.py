"""One agent's events, one at a time; what each writes is kept together with the progress."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from loom_host.actions import Action
from loom_host.bus import Delivery, MemoryBus, Subscription
from loom_host.desk import Card, Desk, card_of
from loom_host.handle import InFlight, PluginHandle
from loom_host.pump import Pump
from loom_host.runtimes.base import PluginInstance
from loom_host.settings import AgentSettings
from loom_host.storage import Store
from loom_host.telemetry import Tracer
from loom_sdk import Event, QoS
from loom_sdk.errors import QuotaExceeded
from loom_sdk.plugin import SubscriptionSpec
from loom_sdk.topics import covers, matches

from .journal import Journal
from .mailbox import Inlet, Mailbox

CROWDED_S = 0.005
"""Where too many wait for the plugin already: the event stays in the mailbox so much longer."""
KNOWN_MAX = 4096
"""Bytes of an agent's state that are kept in memory from one event to the next."""
FAILED_LOOK_S = 0.25
"""How often a durable agent looks whether its failed plugin is back."""


@dataclass(frozen=True, slots=True)
class PumpParts:
    """What the pumps of all agents share."""

    bus: MemoryBus
    tracer: Tracer
    store: Store
    on_handled: Callable[[float, str], None]
    on_waited: Callable[[float, str], None]
    """Called with the seconds that an event was in the mailbox, and the agent."""


@dataclass(frozen=True, slots=True)
class Who:
    """One agent, as its pump knows it."""

    name: str
    settings: AgentSettings
    policy: str = ""
    """Name whose routing policy holds; empty for the host's default."""
    act: Callable[[str, InFlight, list[Action]], None] = lambda name, event, actions: None
    """Called with its name, the event that it handled, and what it wants done."""


class AgentPump(Pump):
    """One agent's mailbox and who empties it, from `start` to `aclose`."""

    def __init__(self, parts: PumpParts, handle: PluginHandle, who: Who) -> None:
        super().__init__(parts.bus, parts.tracer, handle, who.policy, parts.on_handled)
        self._parts, self._who = parts, who
        durable = who.settings.durable
        self._journal = Journal(parts.store, who.name) if durable else None
        self._mailbox = Mailbox(who.settings.mailbox, self._journal)
        self._life = time.time_ns()
        self._card = self._make_card()
        self._known: bytes | None = None
        """The value of the agent's state: nobody else writes it while this runs."""

    @property
    def label(self) -> str:
        return self._who.name

    @property
    def waiting(self) -> int:
        return self._mailbox.size

    def start(self) -> None:
        """Hear what is granted, after what the log still has. Raises StorageError."""
        logged = self._journal.load() if self._journal is not None else []
        super().start()
        for place, (number, event) in enumerate(logged):
            if not place:  # the one that was in hand, if any was
                event = replace(event, delivery_attempt=event.delivery_attempt + 1)
            if (inlet := self._inlet_for(event.topic)) is not None:
                self._mailbox.restore(event, inlet, number)
        self._tasks.append(asyncio.create_task(self._serve()))

    def _inlet_for(self, topic: str) -> Inlet | None:
        firm = [inlet for inlet in self._mailbox.inlets if inlet.qos is not QoS.REALTIME]
        fitting = (inlet for inlet in firm if matches(inlet.pattern, topic))
        return next(fitting, firm[0] if firm else None)

    def _make_card(self) -> Card:
        parameters = {**self.handle.spec.config, **self._who.settings.parameters}
        return card_of(self._who.name, parameters, self._life)

    def follow(self, heir: PluginHandle) -> None:
        super().follow(heir)
        self._card = self._make_card()
        for inlet in self._mailbox.inlets:  # what is not heard any more has left room
            inlet.made_room()

    def _granted(self, spec: SubscriptionSpec) -> list[str]:
        """Of what the plugin may hear what this agent is to hear."""
        own = self._who.settings.subscribe
        allowed = super()._granted(spec)
        return [p for p in own if any(covers(a, p) for a in allowed)] if own else allowed

    def _named(self, pattern: str) -> str:
        return f"{self.label}:{pattern}"

    def _open(self, spec: SubscriptionSpec, pattern: str) -> None:
        inlet = Inlet(
            self._bus, pattern, self._mailbox, qos=spec.qos, types=spec.types,
            name=self._named(pattern),
        )  # fmt: skip
        inlet.reads = self._reads
        self._bus.attach(inlet)
        self.subscriptions.append(inlet)
        self._specs[inlet] = spec

    async def _serve(self) -> None:
        task, on_waited, name = asyncio.current_task(), self._parts.on_waited, self._who.name
        assert task is not None
        while not self._stopping:
            inlet, delivery, waited = await self._mailbox.take()
            on_waited(waited, name)
            if self._journal is not None and inlet.number_of(delivery):
                await self._plugin_is_back()
            self._busy.add(task)
            await self._handle_one(self._specs[inlet], delivery, inlet)
            self._busy.discard(task)

    async def _plugin_is_back(self) -> None:
        """What is logged waits for a plugin that has failed, until somebody enables it."""
        while self.handle.state in ("failed", "stopped"):  # noqa: ASYNC110  # handles change
            await asyncio.sleep(FAILED_LOOK_S)

    async def _again(
        self,
        handle: PluginHandle,
        spec: SubscriptionSpec,
        delivery: Delivery,
        subscription: Subscription,
        message: str,
    ) -> None:
        """What is logged is never given up for a plugin or host that ended: it waits in the log."""
        if isinstance(subscription, Inlet) and subscription.number_of(delivery):
            await handle.noticed()
            subscription.nack(delivery, last=message)
            return
        await super()._again(handle, spec, delivery, subscription, message)

    async def _placed(self) -> tuple[PluginHandle, PluginInstance]:
        while True:
            try:
                return await super()._placed()
            except QuotaExceeded as error:
                if error.quota != "concurrency":
                    raise
                await asyncio.sleep(CROWDED_S)

    def _own(self, event: Event) -> Event:
        """Under an id of its own: other agents of the plugin may have it in hand, too."""
        if not self._agent:
            return event
        return Event(  # `dataclasses.replace` takes 20 times as long
            event.type, event.payload, event.metadata, f"{event.id}@{self._who.name}",
            event.timestamp_ms, event.source, event.confidence, event.tags, event.priority,
            event.topic, event.traceparent, event.delivery_attempt,
        )  # fmt: skip

    async def _deliver(
        self,
        handle: PluginHandle,
        instance: PluginInstance,
        delivery: Delivery,
        subscription: Subscription,
    ) -> None:
        """Handle it, then keep all that it wrote, and that it is handled, in one batch."""
        assert isinstance(subscription, Inlet)
        store = self._parts.store
        desk = Desk(store, self._card, self._known)
        served = await self._handling.handle(
            handle, instance, self._own(delivery.event), label=self._who.name, agent=self._agent,
            desk=desk,
        )  # fmt: skip
        batch = desk.batch()
        if self._journal is not None and (number := subscription.number_of(delivery)):
            self._journal.settle(batch, number)
        if batch.operations:
            await store.save(batch)
            desk.committed()
        known = desk.known
        self._known = known if known is not None and len(known) <= KNOWN_MAX else None
        if desk.actions:
            alone = replace(served, depth=0, chain=())  # it waits for nobody
            self._who.act(self.label, alone, desk.actions)
