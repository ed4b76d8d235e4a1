"""Parts of a host for tests: handles without files, a rig over the fake tier, real hosts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from loom_host import Host, load_settings
from loom_host.announce import Announcer
from loom_host.broker import Broker
from loom_host.bus import DEAD_LETTER, MemoryBus, Subscription
from loom_host.discovery import code_hash
from loom_host.dispatch import Request
from loom_host.egress import Egress
from loom_host.grants import Audit, asked_for, grant
from loom_host.handle import PluginHandle, Slots
from loom_host.host_api import HostApi, HostParts
from loom_host.manifest import Manifest, Permissions
from loom_host.pump import Pump
from loom_host.quotas import Quotas
from loom_host.runtimes.base import PluginSpec
from loom_host.runtimes.fake import FakeInstance, FakeRuntime, Hear, Serve
from loom_host.secret_store import Secrets
from loom_host.settings import PluginSettings, Policy, RoutingSettings
from loom_host.storage import MemoryStore
from loom_host.supervisor import Supervisor
from loom_host.telemetry import Tracer
from loom_sdk import Call, Event, QoS, Result
from loom_sdk.calls import Effects
from loom_sdk.plugin import CapabilitySpec, SubscriptionSpec
from loom_sdk.port import AsyncPort

PLUGINS = Path(__file__).parent / "plugins"


def offers(name: str, effects: Effects = "none", **fields: Any) -> CapabilitySpec:
    return CapabilitySpec(name, effects=effects, **fields)


def hears(topic: str, qos: QoS = QoS.BATCHED, concurrency: int = 1) -> SubscriptionSpec:
    return SubscriptionSpec(topic, qos, (), concurrency)


def handle_of(
    name: str,
    *capabilities: CapabilitySpec,
    subscribes: Iterable[SubscriptionSpec] = (),
    publishes: Iterable[str] = (),
    permissions: Permissions | None = None,
    quotas: Quotas | None = None,
    settings: PluginSettings | None = None,
    allow: Mapping[str, tuple[str, ...]] | None = None,
    tier: str = "native",
    start_timeout_s: float = 5.0,
    folder: Path = Path(),
    version: str = "1.0.0",
) -> PluginHandle:
    """A plugin as the host holds it before its start; granted all it asks for, unless `allow`."""
    manifest = Manifest(
        id=f"test/{name}", version=version, type="tool", tier=tier, tiers=(tier,),
        entry=f"{name}:Plugin", folder=folder, capabilities=capabilities,
        subscribes=tuple(subscribes), publishes=tuple(publishes),
        permissions=permissions or Permissions(),
    )  # fmt: skip
    grants = grant(name, manifest, asked_for(manifest) if allow is None else allow)
    limits = quotas or Quotas()
    spec = PluginSpec(
        name=name, id=manifest.id, version=version, tier=tier, entry=manifest.entry,
        folder=folder, config={}, grants=grants.texts(), quotas=limits, data_dir=folder,
        cache_dir=folder, first_party=True, start_timeout_s=start_timeout_s,
    )  # fmt: skip
    slots = Slots(manifest.id, limits.concurrency, limits.rate)
    return PluginHandle(manifest, settings or PluginSettings(), grants, spec, slots)


class Rig:
    """Bus, broker and supervisor over the fake tier: a host without files."""

    def __init__(
        self,
        *handles: PluginHandle,
        serve: Mapping[str, Mapping[str, Serve]] | None = None,
        hear: Mapping[str, Hear] | None = None,
        providers: Mapping[str, tuple[str, ...]] | None = None,
        policies: Mapping[str, Policy] | None = None,
        secrets: Secrets | None = None,
        routing: RoutingSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.handles = {handle.name: handle for handle in handles}
        self.runtime = FakeRuntime(serve=serve, hear=hear)
        self.bus = MemoryBus(50)
        self.tracer = Tracer(1.0)
        self.audit = Audit()
        self.observed: list[tuple[str, str, str]] = []
        self.routes: list[tuple[str, str]] = []
        self.unrouted: list[str] = []
        self.broker = Broker(
            self.tracer, lambda c, p, s, _: self.observed.append((c, p, s)), providers, policies,
            on_route=lambda *route: self.routes.append(route), on_no_route=self.unrouted.append,
            routing=routing, announce=Announcer(self.bus), clock=clock,
        )  # fmt: skip
        self.states: list[tuple[str, str]] = []
        self.egress = Egress(self.audit)
        self.parts = HostParts(
            self.bus, self.broker, self.audit, MemoryStore(), lambda: self.egress,
            secrets or Secrets({}, lambda _: None), self.tracer,
        )  # fmt: skip
        self.supervisor = Supervisor(self._runtime, self.services, self._changed, stop_grace_s=0.2)
        self.pumps = [Pump(self.bus, self.tracer, h, "", lambda *_: None) for h in handles]

    async def _runtime(self, tier: str) -> FakeRuntime | None:
        return self.runtime if tier == "native" else None

    def services(self, handle: PluginHandle) -> AsyncPort:
        return HostApi(self.parts, handle)

    def _changed(self, handle: PluginHandle) -> None:
        self.states.append((handle.name, handle.state))
        if handle.instance is not None:
            self.broker.register(handle)

    async def __aenter__(self) -> Rig:
        for handle in self.handles.values():
            self.broker.register(handle)
        for pump in self.pumps:
            pump.start()
        await self.supervisor.start(self.handles.values())
        return self

    async def __aexit__(self, *_: object) -> None:
        for pump in self.pumps:
            await pump.aclose()
        await self.broker.aclose()
        await self.supervisor.aclose()
        await self.bus.aclose()
        await self.egress.aclose()

    def instance(self, name: str) -> FakeInstance:
        """The newest fake of a plugin."""
        return self.runtime.started[name][-1]

    async def invoke(self, capability: str, **fields: Any) -> Result:
        arguments = fields.pop("arguments", {})
        return await self.broker.invoke(Request(capability, arguments, **fields))


def answering(output: Any) -> Serve:
    async def serve(call: Call, services: AsyncPort) -> Result:
        return Result(output)

    return serve


def failing(error: Exception) -> Serve:
    async def serve(call: Call, services: AsyncPort) -> Result:
        raise error

    return serve


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait for something that happens by itself; fails loudly where it does not."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # the state has no event to wait for
            await asyncio.sleep(0.002)


def dead_letters(bus: MemoryBus) -> Subscription:
    return bus.subscribe(DEAD_LETTER)


async def next_of(subscription: Subscription, seconds: float = 5.0) -> Event:
    async with asyncio.timeout(seconds):
        return await anext(subscription)


def host_tables(folder: Path, **plugins: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, as tables, of a host that runs test plugins natively below `folder`."""
    tables = {
        name: {"trusted": True, "code": code_hash(PLUGINS / name), **table}
        for name, table in plugins.items()
    }
    return {
        "host": {
            "plugin_paths": [str(PLUGINS)],
            "data_dir": str(folder / "data"),
            "cache_dir": str(folder / "cache"),
            "runtime_dir": str(folder / "run"),
            "stop_grace_ms": 500,
        },
        "telemetry": {"log_level": "error"},
        "plugins": tables,
    }


def native_host(folder: Path, **plugins: Mapping[str, Any]) -> Host:
    """A host over real native plugins of tests/plugins, each with its table of settings."""
    return Host(load_settings(None, host_tables(folder, **plugins)))
