"""Starts plugins in order, watches them, restarts them with backoff, stops them in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

from loom_sdk.errors import LoomError, PluginCrashed, PluginLoadError, PluginUnhealthy, encode

from .handle import PluginHandle
from .runtimes.base import HostServices, PluginInstance, Runtime
from .start_order import check_declaration, dependencies, start_order

log = logging.getLogger("loom.supervisor")

BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.1, 10.0
CIRCUIT_WINDOW_S = 60.0
"""In which `restarts` of a plugin's settings are counted."""
UNWATCH_S = 5.0
"""For native code, which may swallow the cancellation of its start."""
HEAD_START_S = 1.0
"""So long, at most, what starts in the background leaves the processor to what the host awaits."""
DRAIN_LOOK_S = 0.01
HEALTH_EVERY_S, HEALTH_TIMEOUT_S, HEALTH_MISSES = 5.0, 2.0, 3


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

    async def _live(
        self, handle: PluginHandle, needs: Iterable[str], running: PluginInstance | None = None
    ) -> None:
        """One plugin's whole life, from its start or from an instance that runs."""
        await self._all_settled(needs)
        failures: list[float] = []
        while True:
            reason = await self._once(handle, running)
            running = None
            now = time.monotonic()
            failures = [t for t in failures if now - t < CIRCUIT_WINDOW_S] + [now]
            if reason is None:
                return
            self._settled[handle.name].set()
            if len(failures) > handle.settings.restarts:
                many = f"{len(failures)} failures in {CIRCUIT_WINDOW_S:.0f} s"
                self._set(handle, "failed", f"{many}, the last: {reason}")
                return
            handle.counters.restarts += 1
            delay = backoff_s(len(failures))
            log.warning("%s ended (%s), restart in %.2f s", handle.name, reason, delay)
            self._set(handle, "starting", reason)
            await asyncio.sleep(delay)

    async def _once(self, handle: PluginHandle, instance: PluginInstance | None) -> str | None:
        """Start it and watch it to its end: the reason, or None when it must not be restarted."""
        if instance is None:
            self._set(handle, "starting", handle.reason)
            try:
                instance = await self._start_instance(handle)
            except PluginCrashed as error:
                return error.message
            except Exception as error:
                message = encode(error).message
                if handle in self._started:  # it has been ready: what is wrong now may pass
                    return message
                log.error("%s", message)
                self._set(handle, "failed", message)
                self._settled[handle.name].set()
                return None
            self._serve(handle, instance)
        reason = await self._watch(handle, instance)
        handle.instance = None
        self._set(handle, "starting", reason)
        with contextlib.suppress(Exception):
            await instance.aclose(0.0)
        return reason

    def _serve(self, handle: PluginHandle, instance: PluginInstance) -> None:
        handle.instance = instance
        if handle not in self._started:
            self._started.append(handle)
        self._set(handle, "ready")
        self._settled[handle.name].set()

    async def start_beside(self, handle: PluginHandle) -> PluginInstance:
        """A healthy instance that nobody calls yet, to be adopted or closed.

        Raises:
            PluginUnhealthy: it started and says that it is not well, or does not answer.
            LoomError: it did not start; the message tells why.
        """
        instance = await self._start_instance(handle)
        try:
            if problem := await self.ailment(instance):
                raise PluginUnhealthy(
                    f"{handle.name} started but is not well: {problem}", plugin_id=handle.spec.id
                )
        except BaseException:
            with contextlib.suppress(Exception):
                await asyncio.shield(instance.aclose(0.0))
            raise
        return instance

    def adopt(
        self, handle: PluginHandle, instance: PluginInstance, former: PluginHandle | None = None
    ) -> None:
        """Let an instance serve and watch it; `former` is out of the host's hands from now on."""
        for known in (self._handles, self._started):
            known[:] = [handle if other is former else other for other in known]
        if handle not in self._handles:
            self._handles.append(handle)
        self._settled.setdefault(handle.name, asyncio.Event())
        self._serve(handle, instance)
        self._tasks[handle.name] = asyncio.create_task(self._live(handle, (), instance))

    async def unwatch(self, handle: PluginHandle) -> None:
        """Neither watch it nor restart it any more; a start under way is broken off."""
        task = self._tasks.pop(handle.name, None)
        if task is not None:
            task.cancel()
            if (await asyncio.wait({task}, timeout=UNWATCH_S))[1]:
                log.warning("%s does not let its start be broken off: left alone", handle.name)
        if handle.name in self._settled:
            self._settled[handle.name].set()

    async def ailment(self, instance: PluginInstance) -> str:
        """What it says is wrong with it, or that it gives no answer; empty when it is well."""
        return (await self._probe(instance)).lstrip("!")

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
            await self.retire(handle)
        for handle in self._handles:
            if handle.state not in ("failed", "stopped"):
                self._set(handle, "stopped")
        self._tasks.clear()

    async def retire(self, handle: PluginHandle, reason: str = "", *, tell: bool = True) -> None:
        """Stop one that nobody watches; `tell` of it as of any change of state."""
        become = self._set if tell else PluginHandle.become
        instance, handle.instance = handle.instance, None
        if instance is None:
            if reason:
                become(handle, "stopped", reason)
            return
        become(handle, "draining", reason)
        try:
            await instance.aclose(self._grace_s)
        except Exception as error:
            why = str(error) or type(error).__name__
            log.warning("%s did not stop cleanly: %s", handle.name, why)
        for flight in tuple(handle.inflight.values()):
            why = f"{handle.name} was stopped while it served" + (f": {reason}" if reason else "")
            flight.end(PluginUnhealthy(why, plugin_id=handle.spec.id))
        become(handle, "stopped", reason)

    async def _drain(self) -> None:
        """Let what is in flight end, for at most the grace: all are there still to serve it."""
        until = time.monotonic() + self._grace_s
        while any(h.inflight for h in self._started) and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(DRAIN_LOOK_S)
