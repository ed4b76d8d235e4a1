"""The protocols that every tier speaks.

A runtime starts instances; an instance answers calls until it is closed. Time limits and
cancellation are one mechanism: the host *cancels* the coroutine, and the instance must then stop
the plugin's work (cancel the task, interrupt the guest, cancel and then kill the child).
Everything a plugin may ask of the host goes through `HostServices`, one object per plugin.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from loom_host.folders import Folder
from loom_host.quotas import Quotas
from loom_sdk import Call, Event, Result
from loom_sdk.errors import PluginUnhealthy
from loom_sdk.plugin import CapabilitySpec, SubscriptionSpec
from loom_sdk.port import AsyncPort as HostServices

if TYPE_CHECKING:
    from loom_host.endpoint import Endpoint

__all__ = [
    "NO_CALL",
    "Declaration",
    "HostServices",
    "NotReached",
    "PluginInstance",
    "PluginSpec",
    "Runtime",
    "Usage",
    "serving",
]

serving: ContextVar[str] = ContextVar("serving", default="")
"""Id of the call or event on whose behalf a host service is asked, where it does not take one."""

NO_CALL = "-"
"""The id for what no call answers for, such as the output of a child: an empty one means the call
that is being served, where it is the only one."""


class NotReached(PluginUnhealthy):
    """The runtime gave the plugin nothing of the call, which thus cannot have happened."""


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
    folders: tuple[Folder, ...] = ()
    """What it may use of the machine's files, beside its own."""
    first_party: bool = False
    instances: str = "single"
    """`pool`: as many at once as `quotas.concurrency`, with no state between calls."""
    isolation: str = ""
    """Of the wasm tier: `thread` or `process`; empty for `thread` where it is first-party."""
    marshal: str = "direct"
    """Of the wasm tier: `direct` or `stock`, how values enter and leave a guest."""
    idle_s: float = 60.0
    """Seconds without a call after which a wasm worker process ends; 0: never."""
    sandbox: str = ""
    """Of the grpc tier: `strict`, `standard` or `none`; empty for `standard` where it is
    first-party, else `strict`."""
    start_timeout_s: float = 30.0
    remote: Endpoint | None = None
    """Of the grpc tier: where it runs already; None for a child of this host."""
    dynamic: bool = False
    """Whether it tells only at Init what it offers; else that must agree with its manifest."""
    code: tuple[Path, ...] = ()
    """Of the grpc tier: files and folders with programs that it may read and start."""

    @property
    def confined(self) -> bool:
        """Whether a wasm plugin runs in a worker process."""
        return self.isolation == "process" or not (self.isolation or self.first_party)


@dataclass(frozen=True, slots=True)
class Declaration:
    """What the plugin said at Init that it offers and hears."""

    capabilities: tuple[CapabilitySpec, ...] = ()
    subscriptions: tuple[SubscriptionSpec, ...] = ()
    inferred: bool = False
    """Read from the types of code that was not written for Loom: the manifest may list less."""


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

    @property
    def asleep(self) -> bool:
        """Whether a call would first have to wait for something to start."""
        ...

    async def wake(self) -> None:
        """Wait until it can serve: on the caller's time, not on the plugin's deadline.

        Raises LoomError where nothing can be started.
        """
        ...

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
        """Returns, with the reason, when the instance has ended without being asked, or is killed.

        What is left of it then ends by itself; `aclose` waits for that.
        """
        ...

    async def aclose(self, grace_s: float) -> None:
        """Ask to stop, wait at most `grace_s` seconds, then end it by force."""
        ...

    def usage(self) -> Usage: ...


class Runtime(Protocol):
    """Loads plugins of one tier."""

    tier: str

    async def start(self, spec: PluginSpec, services: HostServices) -> PluginInstance:
        """Load and initialise.

        Raises PluginLoadError or ProtocolMismatch that say what to do, PluginCrashed where another
        try may do better.
        """
        ...

    async def aclose(self) -> None:
        """Release what instances shared; all of them are closed already."""
        ...
