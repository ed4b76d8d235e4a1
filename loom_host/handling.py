"""One event in a plugin's hands: a place, the deadline, the trace, the record of what is served."""

from __future__ import annotations

import time
from collections.abc import Callable

from loom_sdk import Event
from loom_sdk.errors import DeadlineExceeded, LoomError, PluginCrashed, PluginUnhealthy

from .deadline import Deadline
from .desk import Desk
from .handle import InFlight, PluginHandle, Replaced
from .privacy import DEFAULT, NAMES
from .runtimes.base import PluginInstance, serving
from .telemetry import Tracer, current


class Handling:
    """Delivers events to instances.

    Args:
        on_handled: called with the seconds that a handler took and who it is in the metrics.
    """

    def __init__(self, tracer: Tracer, on_handled: Callable[[float, str], None]) -> None:
        self._tracer, self._on_handled = tracer, on_handled

    async def handle(
        self,
        handle: PluginHandle,
        instance: PluginInstance,
        event: Event,
        *,
        label: str,
        agent: str,
        desk: Desk | None = None,
    ) -> InFlight:
        """Returns, with the record of it, when the plugin has handled the event.

        Args:
            agent: whose policy holds for what the plugin invokes.
            desk: what an agent reads and writes of its state while it handles the event.

        Raises:
            LoomError: the handler's own, or DeadlineExceeded or QuotaExceeded.
        """
        # Untraced events, such as frames of audio, do not begin a trace.
        span = None
        if event.traceparent:
            span = self._tracer.start(f"handle {event.topic}", event.traceparent)
        flight = _flight(handle, event, span.traceparent if span else "", agent)
        flight.desk = desk
        handle.inflight[event.id] = flight
        handle.counters.events += 1
        began, token = time.perf_counter(), current.set(flight.traceparent)
        served = serving.set(event.id)
        failure: BaseException | None = None
        try:
            handle.counters.inside_us += await _in_time(handle, instance, event, flight)
        except BaseException as error:
            failure = error
            raise
        finally:
            current.reset(token)
            serving.reset(served)
            handle.inflight.pop(event.id, None)
            self._on_handled(time.perf_counter() - began, label)
            if span is not None and span.sampled:
                span.attributes["plugin"] = handle.name
                span.attributes["tier"] = handle.spec.tier
                if flight.level > DEFAULT:
                    span.attributes["privacy"] = NAMES[flight.level]
                span.end(failure)
        return flight


def _flight(handle: PluginHandle, event: Event, traceparent: str, agent: str) -> InFlight:
    return InFlight(
        id=event.id,
        plugin=handle.name,
        caller=event.source,
        chain=(handle.name,),
        deadline=time.monotonic() + handle.spec.quotas.deadline_ms / 1000,
        traceparent=traceparent,
        started_ns=time.time_ns(),
        agent=agent,
        level=_level(handle, event, agent),
        labels=handle.labels,
        holder=handle,
        confidence=event.confidence if event.confidence < 1.0 else None,  # 1.0: it states none
    )


def _level(handle: PluginHandle, event: Event, agent: str) -> int:
    """Of privacy: the event's label or the agent's policy. Raises PermissionDenied where the plugin
    may not be given that: a swap may have come between.
    """
    level = handle.labels.of_event(agent, event.metadata)
    if level > DEFAULT:
        handle.labels.check_read(level, handle.instance)
    return handle.labels.enter(level)


async def _in_time(
    handle: PluginHandle, instance: PluginInstance, event: Event, flight: InFlight
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


async def placed(serves: Callable[[], PluginHandle]) -> tuple[PluginHandle, PluginInstance]:
    """A place at the plugin, and it is awake. Raises PluginUnhealthy or QuotaExceeded.

    Where a swap comes in between, at the plugin that took its place.
    """
    while True:
        handle = serves()
        try:
            return handle, await _place(handle)
        except Replaced:
            if serves() is handle:
                raise


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


def has_ended(handle: PluginHandle, error: Exception) -> bool:
    """Whether this plugin, and not one that it called, is gone."""
    own = getattr(error, "plugin_id", "") == handle.spec.id
    return own and isinstance(error, PluginCrashed | PluginUnhealthy)
