"""Does what agents want done, and tells on `agent.NAME` what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from loom_host.actions import Action
from loom_host.broker import Broker
from loom_host.bus import MemoryBus
from loom_host.dispatch import Request
from loom_host.handle import InFlight
from loom_host.privacy import labelled
from loom_sdk import Event, QoS
from loom_sdk.errors import BusError, encode, mapping_of

WAITING_MAX = 1024
"""Actions of one agent that may wait; what comes then is refused, and told so."""


STATUS = {"ACTION_TIMEOUT": "timeout", "ACTION_RETRYABLE": "retryable"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """One action of one agent."""

    agent: str
    action: Action
    event: InFlight
    """That it was handling: whose policy, privacy and trace hold."""


class Queue:
    """One agent's actions that wait: Batched before Background, each in order."""

    def __init__(self) -> None:
        self._lanes: tuple[deque[Wanted], deque[Wanted]] = (deque(), deque())

    def put(self, wanted: Wanted) -> bool:
        """False where too many wait."""
        if sum(map(len, self._lanes)) >= WAITING_MAX:
            return False
        self._lanes[wanted.action.qos is QoS.BACKGROUND].append(wanted)
        return True

    def take(self) -> Wanted | None:
        return next((lane.popleft() for lane in self._lanes if lane), None)


class Performer:
    """All agents' actions.

    Realtime ones start at once. The others of an agent are done one after another, Background
    ones when it has no Batched one left.
    """

    def __init__(self, broker: Broker, bus: MemoryBus) -> None:
        self._broker, self._bus = broker, bus
        self._tasks: set[asyncio.Task[None]] = set()
        self._queues: dict[str, Queue] = {}

    def take(self, agent: str, event: InFlight, actions: list[Action]) -> None:
        """Begin with what can begin; does not wait."""
        for action in sorted(actions, key=lambda action: action.qos):
            wanted = Wanted(agent, action, event)
            if action.qos is QoS.REALTIME:
                self._spawn(self._perform(wanted))
            elif not self._queue_of(agent).put(wanted):
                late = self._tell(wanted, "error", "QUOTA_EXCEEDED", "too many actions wait")
                self._spawn(late)

    def _queue_of(self, agent: str) -> Queue:
        queue = self._queues.get(agent)
        if queue is None:
            queue = self._queues[agent] = Queue()
            self._spawn(self._empty(agent, queue))
        return queue

    async def aclose(self) -> None:
        """What has not begun is not done."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _empty(self, agent: str, queue: Queue) -> None:
        while (wanted := queue.take()) is not None:
            await self._perform(wanted)
        del self._queues[agent]

    async def _perform(self, wanted: Wanted) -> None:
        action, event = wanted.action, wanted.event
        request = Request(
            action.capability,
            action.arguments,
            timeout_ms=action.timeout_ms,
            caller=event.plugin,
            parent=event,
            traceparent=event.traceparent,
        )
        try:
            result = await self._broker.invoke(request)
        except Exception as error:
            info = encode(error)
            status = STATUS.get(mapping_of(error).status, "error")
            await self._tell(wanted, status, info.code, info.message)
        else:
            await self._tell(wanted, "ok", output=result.output)

    async def _tell(
        self, wanted: Wanted, status: str, code: str = "", message: str = "", output: Any = None
    ) -> None:
        metadata = {"action_type": wanted.action.capability, "status": status}
        if code:
            metadata |= {"code": code, "message": message}
        about = {"event_id": wanted.event.id, "qos": wanted.action.qos.name.lower()}
        event = Event(
            "action_result",
            b"" if output is None else json.dumps(output).encode(),
            labelled(metadata | about, wanted.event.level),
            source=wanted.event.plugin,
            traceparent=wanted.event.traceparent,
        )
        with contextlib.suppress(BusError):  # the host stops
            await self._bus.publish(f"agent.{wanted.agent}", event)
