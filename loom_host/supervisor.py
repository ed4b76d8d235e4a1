"""Starts plugins in order, watches them, restarts them with backoff, stops them in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

from loom_sdk.errors import LoomError, PluginCrashed, PluginLoadError, PluginUnhealthy, encode

from .handle import PluginHandle
from .runtimes.base import HostServices, PluginInstance, Runtime

log = logging.getLogger("loom.supervisor")

BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.1, 10.0
CIRCUIT_RESTARTS, CIRCUIT_WINDOW_S = 5, 60.0
HEAD_START_S = 1.0
"""So long, at most, what starts in the background leaves the processor to what the host awaits."""
DRAIN_LOOK_S = 0.01
HEALTH_EVERY_S, HEALTH_TIMEOUT_S, HEALTH_MISSES = 5.0, 2.0, 3


def dependencies(handles: Iterable[PluginHandle]) -> dict[str, set[str]]:
    """Plugin name to the plugins whose capabilities it invokes."""
    handles = list(handles)
    return {
        user.name: {
            other.name
            for other in handles
            if other is not user
            and any(user.grants.permits("invoke", name) for name in _offers(other))
        }
        for user in handles
    }


def _offers(handle: PluginHandle) -> tuple[str, ...]:
    """Names of what it provides; where only its types tell, what it may."""
    if handle.manifest.offers_by_types:
        return handle.grants.allowed.get("provide", ())
    return tuple(spec.name for spec in handle.manifest.capabilities)


def start_order(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The same graph, without edges if they form a circle: then all start at once."""
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError:
        return {name: set() for name in graph}
    return dict(graph)


def backoff_s(attempt: int) -> float:
    """Delay before restart `attempt` (from 1): doubling, plus up to half of it at random."""
    delay = min(BACKOFF_FIRST_S * 2.0 ** (attempt - 1), BACKOFF_MOST_S)
    return delay * (1 + random.random() / 2)


class Supervisor:
    """Owns the instances. Tells `on_change` of every state change."""

    def __init__(
        self,
        runtime_of: Callable[[str], Awaitable[Runtime | None]],
        services_for: Callable[[PluginHandle], HostServices],
        on_change: Callable[[PluginHandle], None],
        stop_grace_s: float,
    ) -> None:
        self._runtime_of = runtime_of
        self._services_for = services_for
        self._on_change = on_change
        self._grace_s = stop_grace_s
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._handles: list[PluginHandle] = []
        self._started: list[PluginHandle] = []
        self._settled: dict[str, asyncio.Event] = {}

    async def start(self, handles: Iterable[PluginHandle]) -> None:
        """Start all; returns when every eager plugin is ready or has failed once.

        One that crashes or hangs at start is tried again, but nobody waits for that.
        """
        handles = self._handles = list(handles)
        eager = [handle for handle in handles if handle.settings.start == "eager"]
        background = [handle for handle in handles if handle.settings.start != "eager"]
        later = {handle.name for handle in background}
        graph = start_order(dependencies(handles))
        self._settled = {handle.name: asyncio.Event() for handle in handles}
        self._launch(eager, graph, later)
        ready = asyncio.create_task(self._all_settled(handle.name for handle in eager))
        try:
            await asyncio.wait({ready}, timeout=HEAD_START_S)
            self._launch(background, graph, later)
            await ready
        finally:
            ready.cancel()

    def _launch(
        self, handles: Iterable[PluginHandle], graph: Mapping[str, set[str]], later: set[str]
    ) -> None:
        for handle in handles:
            task = asyncio.create_task(self._live(handle, graph[handle.name] - later))
            self._tasks[handle.name] = task

    async def settled(self) -> None:
        """Wait until every plugin has been ready or has failed once."""
        await self._all_settled(self._settled)

    async def _all_settled(self, names: Iterable[str]) -> None:
        await asyncio.gather(*(self._settled[name].wait() for name in names))

    async def _live(self, handle: PluginHandle, needs: set[str]) -> None:
        """One plugin's whole life."""
        await self._all_settled(needs)
        failures: list[float] = []
        while True:
            reason = await self._once(handle)
            now = time.monotonic()
            failures = [t for t in failures if now - t < CIRCUIT_WINDOW_S] + [now]
            if reason is None:
                return
            self._settled[handle.name].set()
            if len(failures) > CIRCUIT_RESTARTS:
                many = f"{len(failures)} failures in {CIRCUIT_WINDOW_S:.0f} s"
                self._set(handle, "failed", f"{many}, the last: {reason}")
                return
            handle.counters.restarts += 1
            delay = backoff_s(len(failures))
            log.warning("%s ended (%s), restart in %.2f s", handle.name, reason, delay)
            self._set(handle, "starting", reason)
            await asyncio.sleep(delay)

    async def _once(self, handle: PluginHandle) -> str | None:
        """Start it and watch it to its end: the reason, or None when it must not be restarted."""
        self._set(handle, "starting", handle.reason)
        try:
            instance = await self._start_instance(handle)
        except PluginCrashed as error:
            return error.message
        except Exception as error:
            message = encode(error).message
            log.error("%s", message)
            self._set(handle, "failed", message)
            self._settled[handle.name].set()
            return None
        handle.instance = instance
        if handle not in self._started:
            self._started.append(handle)
        self._set(handle, "ready")
        self._settled[handle.name].set()
        reason = await self._watch(handle, instance)
        handle.instance = None
        self._set(handle, "starting", reason)
        with contextlib.suppress(Exception):
            await instance.aclose(0.0)
        return reason

    async def _start_instance(self, handle: PluginHandle) -> PluginInstance:
        runtime = await self._runtime_of(handle.spec.tier)
        if runtime is None:
            raise PluginLoadError(
                f"{handle.name}: this host has no {handle.spec.tier} tier", plugin_id=handle.spec.id
            )
        timeout = handle.spec.start_timeout_s
        try:
            async with asyncio.timeout(timeout):
                instance = await runtime.start(handle.spec, self._services_for(handle))
        except TimeoutError as error:
            raise PluginCrashed(
                f"{handle.name} was not ready within {timeout:g} s", plugin_id=handle.spec.id
            ) from error
        try:
            check_declaration(handle, instance)
        except LoomError:
            await instance.aclose(self._grace_s)
            raise
        return instance

    async def _watch(self, handle: PluginHandle, instance: PluginInstance) -> str:
        """Until the instance ends or misses its health checks: the reason."""
        exited = asyncio.ensure_future(instance.wait_exit())
        misses = 0
        try:
            while True:
                done, _ = await asyncio.wait({exited}, timeout=HEALTH_EVERY_S)
                if done:
                    return exited.result()
                problem = await self._probe(instance)
                misses = misses + 1 if problem.startswith("!") else 0
                if misses >= HEALTH_MISSES:
                    return f"{misses} health checks missed"
                self._judge(handle, problem.lstrip("!"))
        finally:
            exited.cancel()

    async def _probe(self, instance: PluginInstance) -> str:
        """What is wrong; with `!` in front where there was no answer at all."""
        try:
            # Not wait_for: in Python 3.11 it swallows a cancellation that meets the answer.
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                return await instance.health()
        except Exception as error:
            return f"!{error or 'no answer'}"

    def _judge(self, handle: PluginHandle, problem: str) -> None:
        state = "degraded" if problem else "ready"
        if handle.state in ("ready", "degraded") and state != handle.state:
            self._set(handle, state, problem)

    def _set(self, handle: PluginHandle, state: str, reason: str = "") -> None:
        handle.become(state, reason)
        self._on_change(handle)

    async def aclose(self) -> None:
        """Stop all: let them finish, ask, wait, kill; in reverse start order."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._drain()
        for handle in reversed(self._started):
            await self._stop(handle)
        for handle in self._handles:
            if handle.state not in ("failed", "stopped"):
                self._set(handle, "stopped")
        self._tasks.clear()

    async def _stop(self, handle: PluginHandle) -> None:
        instance, handle.instance = handle.instance, None
        if instance is None:
            return
        self._set(handle, "draining")
        try:
            await instance.aclose(self._grace_s)
        except Exception as error:
            why = str(error) or type(error).__name__
            log.warning("%s did not stop cleanly: %s", handle.name, why)
        for flight in tuple(handle.inflight.values()):
            why = f"{handle.name} was stopped while it served"
            flight.end(PluginUnhealthy(why, plugin_id=handle.spec.id))
        self._set(handle, "stopped")

    async def _drain(self) -> None:
        """Let what is in flight end, for at most the grace: all are there still to serve it."""
        until = time.monotonic() + self._grace_s
        while any(h.inflight for h in self._started) and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(DRAIN_LOOK_S)


def check_declaration(handle: PluginHandle, instance: PluginInstance) -> None:
    """What the plugin said at Init must agree with its manifest.

    Raises:
        PluginLoadError: names what differs and which of the two to mend.
    """
    manifest, said = handle.manifest, instance.declaration
    offered = {c.name for c in said.capabilities}
    listed = {c.name for c in manifest.capabilities}
    heard = {s.topic for s in said.subscriptions}
    subscribed = {s.topic for s in manifest.subscribes}
    for extra, what, table in (
        (offered - listed, "offers", "[[capability]]"),
        (heard - subscribed, "subscribes to", "[[events.subscribes]]"),
    ):
        if extra and not said.inferred:
            raise PluginLoadError(
                f"{handle.name} {what} {', '.join(sorted(extra))}, which its plugin.toml does not "
                f"list: add it under {table}",
                plugin_id=handle.spec.id,
            )
    if offered and listed - offered:
        raise PluginLoadError(
            f"{handle.name} lists {', '.join(sorted(listed - offered))} in plugin.toml but its "
            "code does not offer it: remove it or mark a method with @capability",
            plugin_id=handle.spec.id,
        )
