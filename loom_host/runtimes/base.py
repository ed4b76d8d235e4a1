"""The protocols that every tier speaks.

A runtime starts instances; an instance answers calls until it is closed. Time limits and
cancellation are one mechanism: the host *cancels* the coroutine, and the instance must then stop
the plugin's work (cancel the task, interrupt the guest, cancel and then kill the child).
Everything a plugin may ask of the host goes through `HostServices`, one object per plugin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from loom_host.quotas import Quotas
from loom_sdk import Call, Event, Result
from loom_sdk.context import AsyncPort as HostServices
from loom_sdk.plugin import CapabilitySpec, SubscriptionSpec

__all__ = [
    "Declaration",
    "HostServices",
    "PluginInstance",
    "PluginSpec",
    "Runtime",
    "Usage",
]


@dataclass(frozen=True, slots=True)
class PluginSpec:
    """All that a runtime needs to start one plugin."""

    name: str
    """Short name, the key in `loom.toml`."""
    id: str
    """`publisher/name`."""
    version: str
    tier: str
    entry: str | tuple[str, ...]
    """`module:Class`, the file name of a component, or a command line; relative to `folder`."""
    folder: Path
    config: Mapping[str, Any]
    """The plugin's own settings, validated."""
    grants: tuple[str, ...]
    """What was really granted, as text, told to the plugin at Init."""
    quotas: Quotas
    data_dir: Path
    cache_dir: Path
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment granted to a child beside the bare minimum."""
    first_party: bool = False
    start_timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Declaration:
    """What the plugin said at Init that it offers and hears."""

    capabilities: tuple[CapabilitySpec, ...] = ()
    subscriptions: tuple[SubscriptionSpec, ...] = ()


@dataclass(slots=True)
class Usage:
    """What an instance uses now."""

    memory_bytes: int = 0
    peak_memory_bytes: int = 0
    pid: int = 0
    """0 where the plugin has no process of its own."""
    extra: dict[str, float] = field(default_factory=dict)


class PluginInstance(Protocol):
    """One running plugin. It owns its calls in flight."""

    declaration: Declaration
    enforcement: Mapping[str, str]
    """Quota name to `enforced`, `partial: why` or `unenforced: why`."""

    async def invoke(self, call: Call) -> Result:
        """Serve a call. Items go to `services.emit(call.id, item)` as they come.

        Raises LoomError subclasses only. Cancelling stops the plugin's work on the call.
        """
        ...

    async def handle_event(self, event: Event) -> int:
        """Deliver an event; the return acknowledges it: microseconds inside the plugin."""
        ...

    async def health(self) -> str:
        """Empty when healthy, else what is wrong."""
        ...

    async def wait_exit(self) -> str:
        """Returns, with the reason, when the instance has ended without being asked."""
        ...

    async def aclose(self, grace_s: float) -> None:
        """Ask to stop, wait at most `grace_s` seconds, then end it by force."""
        ...

    def usage(self) -> Usage: ...


class Runtime(Protocol):
    """Loads plugins of one tier."""

    tier: str

    async def start(self, spec: PluginSpec, services: HostServices) -> PluginInstance:
        """Load and initialise. Raises PluginLoadError or ProtocolMismatch that say what to do."""
        ...

    async def aclose(self) -> None:
        """Release what instances shared; all of them are closed already."""
        ...
