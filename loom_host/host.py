"""The composition root: builds every part, starts them in order, stops them in reverse."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loom_sdk import Event, Item, Result

from . import lineup
from .agents import AgentParts, Agents, PumpParts
from .announce import told_by
from .broker import broker_of
from .builtin import host_handle
from .bus import MemoryBus
from .collector import collector_still
from .config import load_settings
from .dispatch import DEFAULT_TIMEOUT_MS, Request
from .event_keeper import EventKeeper
from .grants import Audit
from .handle import PluginHandle, health_of
from .host_api import HostApi, HostParts
from .pump import Pump
from .runtimes.base import HostServices, Runtime
from .secret_store import Secrets
from .settings import Settings
from .start_order import check_enforced
from .storage import Store, store_at
from .supervisor import Supervisor
from .telemetry import Telemetry
from .tiers import Tiers

if TYPE_CHECKING:
    from .changes import Changes, Swapped, Wish
    from .egress import Egress

log = logging.getLogger("loom.host")


class Host:
    """A plugin host. Use it as `async with Host.from_config("loom.toml") as host`.

    Args:
        settings: what to run and what to allow.
        runtimes: tiers by name; the default makes each tier when a plugin first needs it.
        store: key-value storage; the default is RocksDB in the data folder.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        runtimes: Mapping[str, Runtime] | None = None,
        store: Store | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.started_at = 0.0
        self.audit = Audit()
        self.telemetry = Telemetry(self.settings.telemetry)
        self.audit.redact = self.telemetry.redactor.text
        self.bus = MemoryBus(
            self.settings.host.publish_wait_ms,
            on_publish=self.telemetry.on_publish,
            on_dispatch=self.telemetry.on_dispatch,
        )
        self.telemetry.watch_bus(self.bus.stats)
        self.telemetry.watch_mailboxes(self._mailboxes)
        self.broker = broker_of(self.settings, self.telemetry, self.bus)
        self.approvals = self.broker.approvals
        self.plugins: dict[str, PluginHandle] = {}
        self._pumps: list[Pump] = []
        self._tiers = Tiers(self.settings, runtimes)
        kept_at = self.settings.path and self.settings.host.data_dir
        self.store = store or store_at(kept_at, fsync=self.settings.storage.fsync)
        self.bus.settle = self.store.settle
        self._egress: Egress | None = None
        self.event_log = EventKeeper(self.bus, self.store, self.settings.event_log)
        self._parts = HostParts(
            self.bus, self.broker, self.audit, self.store, self._reach_out,
            Secrets(self.settings.secrets, self.telemetry.redact), self.telemetry.tracer,
        )  # fmt: skip
        grace_s = self.settings.host.stop_grace_ms / 1000
        self._supervisor = Supervisor(self._tiers.runtime, self._services, self._changed, grace_s)
        self._changes: Changes | None = None
        carry = PumpParts(
            self.bus, self.telemetry.tracer, self.store,
            self.telemetry.on_handled, self.telemetry.on_waited,
        )  # fmt: skip
        parts = AgentParts(carry, self.broker, self.plugins, self._pumps, kept_at, grace_s)
        self.agents = Agents(parts, self.settings.agents)

    @classmethod
    def from_config(
        cls, path: str | Path | None = None, overrides: Mapping[str, Any] | None = None
    ) -> Host:
        """Raises ConfigError where the file is wrong."""
        return cls(load_settings(path, overrides))

    async def __aenter__(self) -> Host:
        try:
            await self.start()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Start every chosen plugin; returns when the eager ones are ready or have failed."""
        began = time.monotonic()
        self.event_log.start()
        with collector_still():
            await self.telemetry.start(lambda: health_of(self.plugins))
            own = host_handle(self.broker, self.plugins, self.event_log, Path())
            self.broker.register(own)
            self.agents.recall()
            chosen = self._line_up()
            for handle in chosen:
                self.broker.register(handle)
                self.audit.note_missing(handle.manifest, handle.grants)
                self.agents.open(handle)
            await self._supervisor.start(chosen)
        self._require_enforced()
        self.started_at = time.time()
        self.telemetry.started(time.monotonic() - began)
        await self._announce()

    def _line_up(self) -> list[PluginHandle]:
        """Take up all plugins; those that are to run."""
        for handle in lineup.line_up(self.settings):
            handle.redactor = self.telemetry.redactor
            self.plugins[handle.name] = handle
            if handle.state == "stopped":
                self.broker.withdraw(handle)
        return [handle for handle in self.plugins.values() if handle.state != "stopped"]

    def _require_enforced(self) -> None:
        if self.settings.host.require_enforced:
            handles = self.plugins.values()
            check_enforced({h.name: h.instance for h in handles if h.instance is not None})

    async def _announce(self) -> None:
        names = ",".join(name for name, h in self.plugins.items() if h.state != "stopped")
        await self.bus.publish("loom.host", Event("host.ready", metadata={"plugins": names}))

    async def aclose(self) -> None:
        """Stop everything. Safe to call twice."""
        for pump in self._pumps:
            pump.stop_taking()
        if self._changes is not None:
            await self._changes.aclose()
        await self.agents.aclose()
        await self.broker.aclose()
        await self._supervisor.aclose()
        for pump in self._pumps:
            await pump.aclose()
        self._pumps.clear()
        await self._tiers.aclose()
        await self.bus.aclose()
        if self._egress is not None:
            await self._egress.aclose()
        await self.event_log.aclose()
        self.store.close()
        await self.telemetry.aclose()

    # -- use

    def invoke(
        self,
        capability: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        payload: bytes = b"",
        content_type: str = "",
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
        id: str = "",
        traceparent: str = "",
        agent: str = "",
    ) -> Coroutine[Any, Any, Result]:
        """Call a capability, to be awaited. Raises any CapabilityError or PluginError.

        Args:
            id: idempotency: the same id with the same arguments gives the same kept result.
            agent: whose routing policy holds.
        """
        return self.broker.invoke(
            Request(
                capability,
                dict(arguments or {}),
                payload,
                content_type,
                timeout_ms,
                id,
                traceparent=traceparent,
                agent=agent,
            )
        )

    def stream(
        self,
        capability: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        payload: bytes = b"",
        content_type: str = "",
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
    ) -> AsyncIterator[Item]:
        """As `invoke`, item by item; the last item is the final output."""
        request = Request(capability, dict(arguments or {}), payload, content_type, timeout_ms)
        return self.broker.stream(request)

    async def settled(self) -> None:
        """Wait until every plugin, those in the background too, is ready or has failed."""
        await self._supervisor.settled()

    def busy(self) -> bool:
        """Whether any event waits for a plugin or any plugin is at work."""
        leaving = self._changes.leaving if self._changes is not None else ()
        at_work = (*self.plugins.values(), *leaving)
        return any(h.slots.active for h in at_work) or any(pump.waiting for pump in self._pumps)

    async def swap(
        self, name: str, other: str = "", *, tier: str = "", config: Mapping[str, Any] | None = None
    ) -> Swapped:
        """Put a new instance in a plugin's place, or `other` plugin; no call or event is lost.

        Returns when the old one has ended what it had in hand; a caller that is cancelled does
        not break the swap off. See docs/LIVE.md.

        Args:
            tier, config: how the new one runs; what they do not name stays as it is.

        Raises:
            PluginUnhealthy: the new one did not start or is not well; all is as it was.
            ConfigError: the new one cannot take the place, or the settings are wrong.
        """
        changes = self._changing()
        return await changes.swap(name, other or name, tier, dict(config or {}))

    async def disable(self, name: str, reason: str) -> None:
        """Let a plugin end what it has in hand, within `stop_grace_ms`, and stop it.

        Calls that only it could serve raise NoProvider with the reason. Nothing is written to
        `loom.toml`. Raises ConfigError or PluginUnhealthy where there is nothing to disable.
        """
        await self._changing().disable(name, reason)

    async def enable(self, name: str) -> None:
        """Start a plugin that is switched off or has failed. Raises why it does not start."""
        await self._changing().enable(name)

    def _changing(self) -> Changes:
        if self._changes is None:
            from .changes import Changeable, Changes  # few hosts are changed while they run

            parts = Changeable(
                self.plugins, self._pumps, self.broker, self._supervisor, self._remake,
                self.agents.open, self.settings.host,
            )  # fmt: skip
            self._changes = Changes(parts)
        return self._changes

    # -- what the parts tell the host

    def _mailboxes(self) -> dict[str, int]:
        """Events that wait, by agent or plugin; only those that hear anything."""
        return {pump.label: pump.waiting for pump in self._pumps if pump.subscriptions}

    def _remake(self, name: str, wish: Wish) -> PluginHandle:
        now = self.plugins.get(name)
        handle = lineup.remake(name, self.settings, now, wish.tier, wish.config)
        handle.redactor = self.telemetry.redactor
        return handle

    def _reach_out(self) -> Egress:
        from .egress import Egress  # many hosts grant no network

        self._egress = self._egress or Egress(self.audit)
        return self._egress

    def _services(self, handle: PluginHandle) -> HostServices:
        return HostApi(self._parts, handle)

    def _changed(self, handle: PluginHandle) -> None:
        if handle.serves:
            self.broker.register(handle)
        log.info("%s: %s %s", handle.name, handle.state, handle.reason)
        told = {"plugin": handle.name, "state": handle.state, "reason": handle.reason}
        event = Event("plugin.state", metadata=told_by(handle, told))
        self.bus.publish_nowait("loom.plugin", event)
