"""The composition root: builds every part, starts them in order, stops them in reverse."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from loom_sdk import Event, Item, Result
from loom_sdk.errors import ConfigError, PermissionDenied, PluginLoadError

from . import assembly
from .broker import Broker
from .builtin import host_handle
from .bus import MemoryBus
from .config import Settings, load_settings
from .dispatch import DEFAULT_TIMEOUT_MS, Request
from .egress import Egress
from .grants import Audit, missing
from .handle import PluginHandle
from .host_api import HostApi, HostParts
from .pump import Pump
from .runtimes.base import HostServices, Runtime
from .secret_store import Secrets
from .storage import MemoryStore, RocksStore, Store
from .supervisor import Supervisor
from .telemetry import Telemetry

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
        self.broker = Broker(
            self.telemetry.tracer,
            self.telemetry.on_action,
            self.settings.providers,
            {name: agent.policy for name, agent in self.settings.agents.items()},
            on_route=self.telemetry.on_route,
            on_no_route=self.telemetry.on_no_route,
        )
        self.plugins: dict[str, PluginHandle] = {}
        self._pumps: list[Pump] = []
        self._runtimes = dict(runtimes) if runtimes is not None else {}
        self._lazy_runtimes = runtimes is None
        kept = self.settings.path is not None
        self._store = store or (
            RocksStore(self.settings.host.data_dir / "store") if kept else MemoryStore()
        )
        self._egress = Egress(self.audit)
        self._parts = HostParts(
            self.bus,
            self.broker,
            self.audit,
            self._store,
            self._egress,
            Secrets(self.settings.secrets, self.telemetry.redact),
            self.telemetry.tracer,
        )
        self._supervisor = Supervisor(
            self._runtime,
            self._services,
            self._changed,
            self.settings.host.stop_grace_ms / 1000,
        )

    @classmethod
    def from_config(
        cls, path: str | Path | None = None, overrides: Mapping[str, Any] | None = None
    ) -> Host:
        """Raises ConfigError where the file is wrong."""
        return cls(load_settings(path, overrides))

    # -- life

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
        await self.telemetry.start(self._health)
        self._assemble()
        self.broker.register(host_handle(self.broker, self.plugins, Path()))
        for handle in self.plugins.values():
            self.broker.register(handle)
            self._note_missing(handle)
            self._open_pump(handle)
        await self._supervisor.start(self.plugins.values())
        self._require_enforced()
        self.started_at = time.time()
        self.telemetry.started(time.monotonic() - began)
        await self._announce()

    def _assemble(self) -> None:
        if not self.settings.plugins:
            return
        manifests = assembly.manifests_of(self.settings)
        for name in assembly.chosen(self.settings, manifests):
            try:
                handle = assembly.make_handle(name, manifests[name], self.settings)
            except PluginLoadError as error:
                log.error("%s", error.message)
                raise
            handle.redactor = self.telemetry.redactor
            self.plugins[name] = handle

    async def _runtime(self, tier: str) -> Runtime | None:
        """The tier's runtime, made at first need; heavy libraries are imported beside the loop."""
        if tier not in self._runtimes and self._lazy_runtimes:
            if tier in _HEAVY:
                await asyncio.to_thread(import_module, _HEAVY[tier])
            self._runtimes.setdefault(tier, _RUNTIMES[tier](self.settings))
        return self._runtimes.get(tier)

    def _note_missing(self, handle: PluginHandle) -> None:
        """What was asked for and is silently not had, so that `why-denied` can tell."""
        for kind, value in missing(handle.manifest, handle.grants):
            if kind in ("subscribe", "provide", "devices", "filesystem", "env"):
                try:
                    self.audit.refuse(handle.grants, kind, value, level=logging.INFO)
                except PermissionDenied:
                    continue

    def _open_pump(self, handle: PluginHandle) -> None:
        agent = next((n for n, a in self.settings.agents.items() if a.plugin == handle.name), "")
        pump = Pump(self.bus, self.telemetry.tracer, handle, agent, self.telemetry.on_handled)
        pump.start()
        self._pumps.append(pump)

    def _require_enforced(self) -> None:
        if not self.settings.host.require_enforced:
            return
        weak = [
            f"{handle.name}: {quota} is {how}"
            for handle in self.plugins.values()
            if handle.instance is not None
            for quota, how in handle.instance.enforcement.items()
            if how != "enforced"
        ]
        if weak:
            raise ConfigError(
                "host.require_enforced is set, but this machine does not enforce: "
                + "; ".join(weak)
            )

    async def _announce(self) -> None:
        names = ",".join(self.plugins)
        await self.bus.publish("loom.host", Event("host.ready", metadata={"plugins": names}))

    async def aclose(self) -> None:
        """Stop everything. Safe to call twice."""
        for pump in self._pumps:
            pump.stop_taking()
        await self._supervisor.aclose()
        for pump in self._pumps:
            await pump.aclose()
        self._pumps.clear()
        for runtime in self._runtimes.values():
            await runtime.aclose()
        await self.bus.aclose()
        await self._egress.aclose()
        self._store.close()
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
        return any(h.slots.active for h in self.plugins.values()) or any(
            pump.waiting for pump in self._pumps
        )

    # -- what the parts tell the host

    def _mailboxes(self) -> dict[str, int]:
        """Events that wait, by agent or plugin; only those that hear anything."""
        return {pump.label: pump.waiting for pump in self._pumps if pump.subscriptions}

    def _services(self, handle: PluginHandle) -> HostServices:
        return HostApi(self._parts, handle)

    def _changed(self, handle: PluginHandle) -> None:
        if handle.instance is not None:
            self.broker.register(handle)
        log.info("%s: %s %s", handle.name, handle.state, handle.reason)
        event = Event(
            "plugin.state",
            metadata={"plugin": handle.name, "state": handle.state, "reason": handle.reason},
        )
        self.bus.publish_nowait("loom.plugin", event)

    def _health(self) -> tuple[bool, dict[str, Any]]:
        states = {handle.name: handle.state for handle in self.plugins.values()}
        return all(state != "failed" for state in states.values()), {"plugins": states}


def _native(settings: Settings) -> Runtime:
    from .runtimes.native import NativeRuntime

    return NativeRuntime()


def _wasm(settings: Settings) -> Runtime:
    from .runtimes.wasm.runtime import WasmRuntime

    return WasmRuntime(settings.host.cache_dir)


def _grpc(settings: Settings) -> Runtime:
    from .runtimes.grpc.runtime import GrpcRuntime

    return GrpcRuntime(settings.host.runtime_dir)


_HEAVY = {tier: f"{__package__}.runtimes.{tier}.runtime" for tier in ("wasm", "grpc")}
_RUNTIMES: Mapping[str, Callable[[Settings], Runtime]] = {
    "native": _native,
    "wasm": _wasm,
    "grpc": _grpc,
}
