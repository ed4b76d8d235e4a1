"""What an operator changes on a running host: swap a plugin, disable it, enable it.

    start the new one beside the old -> ask for its health -> move calls and events at once
        -> let the old one end what it has in hand -> stop it

Whatever fails before the move leaves the old one as it was.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from loom_sdk.errors import ConfigError, PluginUnhealthy, encode

from .broker import Broker
from .drain import emptied, let_end
from .handle import PluginHandle
from .pump import Pump
from .runtimes.base import PluginInstance
from .settings import HostSettings
from .start_order import check_enforced
from .supervisor import Supervisor

log = logging.getLogger("loom.changes")

T = TypeVar("T")

EVENTS_S = 60.0
"""So long, at most, an old plugin goes on with the events in its queue after another, which
was there already and has a queue of its own, took its calls; what is left are dead letters."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How a plugin is to run from now on; what is empty stays as it was."""

    tier: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Settings of its own that change."""


@dataclass(frozen=True, slots=True)
class Swapped:
    """What a swap did."""

    plugin: str
    """Which serves now."""
    instead_of: str
    tier: str
    version: str
    pid: int
    """0 where it has no process of its own."""
    ready_ms: float
    """Until the new one served."""
    drained_ms: float
    """From then until the old one had ended what it had in hand, and was stopped."""


@dataclass(frozen=True, slots=True)
class Changeable:
    """What is changed, and what makes new parts of it."""

    plugins: dict[str, PluginHandle]
    pumps: list[Pump]
    broker: Broker
    supervisor: Supervisor
    make: Callable[[str, Wish], PluginHandle]
    """A fresh handle by the plugin's name; raises ConfigError, ManifestError, PluginLoadError."""
    open_pump: Callable[[PluginHandle], None]
    settings: HostSettings

    @property
    def grace_s(self) -> float:
        return self.settings.stop_grace_ms / 1000


class Changes:
    """One change of a plugin at a time; a caller that leaves does not break one off."""

    def __init__(self, parts: Changeable) -> None:
        self._parts = parts
        self._under_way: dict[str, asyncio.Task[Any]] = {}
        self.leaving: set[PluginHandle] = set()
        """Those that others took the place of, while they end what they have in hand."""

    async def swap(self, name: str, other: str, tier: str, config: Mapping[str, Any]) -> Swapped:
        """As `Host.swap`."""
        wish = Wish(tier, config)
        return await self._alone({name, other}, lambda: self._swap(name, other, wish))

    async def disable(self, name: str, reason: str) -> None:
        """As `Host.disable`."""
        await self._alone({name}, lambda: self._disable(name, reason))

    async def enable(self, name: str) -> None:
        """As `Host.enable`."""
        await self._alone({name}, lambda: self._enable(name))

    async def aclose(self) -> None:
        """Break off what is under way; old plugins that drain get the grace of a stop."""
        tasks = set(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _alone(self, names: set[str], work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if taken := names & self._under_way.keys():
            raise PluginUnhealthy(f"{taken.pop()} is being changed: try again when that is done")
        task = asyncio.create_task(work())
        self._under_way |= dict.fromkeys(names, task)
        task.add_done_callback(lambda _: self._done(names, task))
        return await asyncio.shield(task)

    def _done(self, names: set[str], task: asyncio.Task[Any]) -> None:
        for name in names:
            del self._under_way[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("%s: %s", "/".join(sorted(names)), encode(error).message)

    def _known(self, name: str) -> PluginHandle:
        if name not in self._parts.plugins:
            known = ", ".join(self._parts.plugins) or "none"
            raise ConfigError(f"no plugin {name!r} runs here; there are: {known}")
        return self._parts.plugins[name]

    # -- swap

    async def _swap(self, name: str, other: str, wish: Wish) -> Swapped:
        old, began = self._known(name), time.monotonic()
        if old.state == "stopped":
            raise PluginUnhealthy(f"{old.explain()}; `loom enable {name}` starts it")
        there = self._there(other, wish) if other != name else None
        if there is None:
            fresh = await asyncio.to_thread(self._parts.make, other, wish)
        else:
            fresh = there
        if other != name:
            self._check_offers(old, fresh)
        instance = await self._tried(old, fresh, there is None)
        moved = time.monotonic()
        why = f"replaced by {fresh.name} {fresh.spec.version} ({fresh.spec.tier})"
        silent: list[Pump] = []
        if there is None:
            await self._move(old, fresh, instance)
        else:
            self._parts.broker.replace(old, fresh)
            silent = await self._silence(old, EVENTS_S, why)
            await self._unwatch(old)
        old.yield_to(fresh, why)
        await self._let_go(old, fresh, why)
        await self._finish(silent)
        ended = time.monotonic()
        return Swapped(
            fresh.name, old.name, fresh.spec.tier, fresh.spec.version, instance.usage().pid,
            round((moved - began) * 1000, 1), round((ended - moved) * 1000, 1),
        )  # fmt: skip

    def _there(self, name: str, wish: Wish) -> PluginHandle | None:
        """The other one where it runs already; None where it must be started."""
        other = self._parts.plugins.get(name)
        if other is None or other.state == "stopped":
            return None
        if not other.serves:
            raise PluginUnhealthy(f"{other.explain()}; nothing was swapped")
        if wish != Wish():
            raise ConfigError(f"{name} runs already: swap it for itself to change how it runs")
        return other

    def _check_offers(self, old: PluginHandle, fresh: PluginHandle) -> None:
        listed = {spec.name for spec in fresh.manifest.capabilities}
        lacking = {
            name
            for name in self._parts.broker.offered(old)
            if not fresh.grants.permits("provide", name)
            or (name not in listed and not fresh.manifest.offers_by_types)
        }
        if lacking:
            raise ConfigError(
                f"{fresh.name} cannot take the place of {old.name}: it does not provide "
                f"{', '.join(sorted(lacking))}, or [plugins.{fresh.name}] allow.provide lacks it"
            )

    async def _tried(self, old: PluginHandle, fresh: PluginHandle, start: bool) -> PluginInstance:
        """A healthy instance of the new one. Raises PluginUnhealthy, and all is as it was."""
        old.note = f"a swap is under way: {fresh.name} ({fresh.spec.tier}) starts"
        try:
            if start:
                instance = await self._begun(fresh)
            else:
                instance = await fresh.ready()
                if problem := await self._parts.supervisor.ailment(instance):
                    raise PluginUnhealthy(f"{fresh.name} is not well: {problem}")
        except Exception as error:
            why = fresh.redactor.text(encode(error).message)
            old.note = f"the last swap was rolled back: {why}"
            raise PluginUnhealthy(
                f"nothing was swapped, {old.name} goes on ({old.state}): {why}",
                plugin_id=old.spec.id,
            ) from error
        old.note = ""
        return instance

    async def _begun(self, fresh: PluginHandle) -> PluginInstance:
        instance = await self._parts.supervisor.start_beside(fresh)
        try:
            if self._parts.settings.require_enforced:
                check_enforced({fresh.name: instance})
        except ConfigError:
            await instance.aclose(self._parts.grace_s)
            raise
        return instance

    async def _move(
        self, old: PluginHandle | None, fresh: PluginHandle, instance: PluginInstance
    ) -> None:
        """Calls and events go to the new one: from one turn of the loop to the next."""
        parts = self._parts
        former = parts.plugins.get(fresh.name)
        try:
            if old is not None:
                await parts.supervisor.unwatch(old)
        except BaseException:
            await asyncio.shield(instance.aclose(0.0))
            raise
        if former is not None:
            fresh.counters, fresh.log_lines = former.counters, former.log_lines
        parts.plugins[fresh.name] = fresh
        if old is not None:
            parts.broker.replace(old, fresh)
            for pump in parts.pumps:
                if pump.handle is old:
                    pump.follow(fresh)
        parts.supervisor.adopt(fresh, instance, former)

    async def _let_go(self, old: PluginHandle, fresh: PluginHandle, why: str) -> None:
        """The old one ends what it has in hand, each within its own deadline, and is stopped."""
        fresh.counters.swaps += 1
        fresh.note = f"a swap is under way: the old one ({old.spec.tier}) ends what it has in hand"
        self.leaving.add(old)
        try:
            await let_end(old)
        finally:
            await emptied(old, self._parts.grace_s)
            await self._parts.supervisor.retire(old, why, tell=old.name != fresh.name)
            self.leaving.discard(old)
            fresh.note = ""

    # -- disable, enable

    async def _disable(self, name: str, reason: str) -> None:
        handle, why = self._known(name), f"disabled: {reason}"
        if handle.state == "stopped":
            raise PluginUnhealthy(f"{handle.explain()}: nothing to disable")
        handle.become(handle.state, why)
        self._parts.broker.withdraw(handle)
        silent = await self._silence(handle, self._parts.grace_s, why)
        await self._unwatch(handle)
        handle.yield_to(None, why)
        await emptied(handle, self._parts.grace_s)
        await self._parts.supervisor.retire(handle, why)
        await self._finish(silent)

    async def _unwatch(self, handle: PluginHandle) -> None:
        """For good: as long as it was watched, a change of its health put it back among those
        that calls are routed to."""
        await self._parts.supervisor.unwatch(handle)
        self._parts.broker.withdraw(handle)

    async def _silence(self, handle: PluginHandle, patience_s: float, why: str) -> list[Pump]:
        """It hears nothing any more; what is queued is delivered, as far as there is time.

        Returns what to `finish` when it is stopped.
        """
        silent = [pump for pump in self._parts.pumps if pump.handle is handle]
        for pump in silent:
            await pump.retire(patience_s, why)
        return silent

    async def _finish(self, silent: list[Pump]) -> None:
        for pump in silent:
            await pump.finish()
            self._parts.pumps.remove(pump)

    async def _enable(self, name: str) -> None:
        handle = self._parts.plugins.get(name)
        if handle is not None and handle.state not in ("stopped", "failed"):
            raise PluginUnhealthy(f"{name} is {handle.state}: there is nothing to enable")
        fresh = await asyncio.to_thread(self._parts.make, name, Wish())
        instance = await self._begun(fresh)
        await self._move(handle, fresh, instance)
        if not any(pump.handle is fresh for pump in self._parts.pumps):
            self._parts.open_pump(fresh)
