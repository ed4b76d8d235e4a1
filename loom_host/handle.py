"""One plugin as the host holds it: identity, state, slots, calls in flight, counters."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from loom_sdk import Item
from loom_sdk.errors import LoomError, PermissionDenied, PluginUnhealthy

from .circuit import Circuit
from .desk import Desk
from .grants import Grants
from .labels import Labels
from .manifest import Manifest
from .privacy import DEFAULT, NAMES
from .runtimes.base import PluginInstance, PluginSpec
from .settings import PluginSettings
from .slots import Slots as Slots
from .slots import Spent as Spent
from .telemetry import Redactor

STATES = ("discovered", "starting", "ready", "degraded", "draining", "stopped", "failed")
ALIVE = ("ready", "degraded")
NOTICE_S = 0.1
"""A crash reaches its callers before the supervisor; so long they wait for it to catch up."""

OnItem = Callable[[Item], Awaitable[None]]


class Replaced(PluginUnhealthy):
    """Another took the plugin's place before the call reached it: it goes to that one instead.

    Never told to a caller.
    """


def _nobody(error: Exception) -> None: ...


@dataclass(slots=True)
class InFlight:
    """A call or event that a plugin is serving: the host's own record, which it believes."""

    id: str
    plugin: str
    caller: str = "host"
    depth: int = 0
    chain: tuple[str, ...] = ()
    """Names of the plugins from the first caller to this one."""
    deadline: float = 0.0
    """On the monotonic clock."""
    traceparent: str = ""
    started_ns: int = 0
    """Unix time."""
    on_item: OnItem | None = None
    emitted_bytes: int = 0
    asked: int = 0
    """Requests to the host so far."""
    refused: int = 0
    """Those that a quota refused."""
    end: Callable[[Exception], None] = _nobody
    """Ends the call with this error, whatever the plugin does."""
    agent: str = ""
    """Whose policy holds for what is invoked below."""
    desk: Desk | None = None
    """What an agent reads and writes of its own while it handles the event."""
    level: int = DEFAULT
    """Of privacy, the strictest of what it serves: what is invoked below has at least this."""
    confidence: float | None = None
    """Of the event that it serves; None for a call, or where the event states none."""
    parent: InFlight | None = None
    """The call below which it was made."""
    labels: Labels | None = None
    """Of the plugin that serves it."""
    holder: PluginHandle | None = None
    """The plugin that serves it."""
    private_tools: tuple[str, ...] = ()
    """What its policy lets serve private turns although it has a way out."""

    def rise(self, level: int) -> None:
        """It came upon something stricter: so did all that wait for what comes of it.

        Raises PermissionDenied, and nothing has risen, where one of these may not be given that.
        """
        rising = []
        flight: InFlight | None = self
        while flight is not None:
            if flight.level < level:
                rising.append(flight)
            flight = flight.parent
        for flight in rising:
            flight.check_result(level)
        for flight in rising:
            flight.level = level
            if flight.labels is not None:
                flight.labels.enter(level)

    def check_result(self, level: int) -> None:
        """Raises PermissionDenied where what is of this level may not come back to its plugin."""
        if self.labels is None or self.holder is None:
            return
        why = self.labels.refusal(level, self.private_tools, self.agent, self.holder.instance)
        if why:
            raise PermissionDenied(
                f"{self.plugin} waits for what is {NAMES[level]}: {why}",
                plugin_id=self.holder.spec.id,
                permission=f"privacy:{NAMES[level]}",
            )


@dataclass(slots=True)
class Counters:
    """What `loom ps` shows."""

    calls: int = 0
    events: int = 0
    errors: int = 0
    restarts: int = 0
    swaps: int = 0
    quota_hits: int = 0
    hits: dict[str, int] = field(default_factory=dict)
    """The same by quota."""
    lines_dropped: int = 0
    """Log lines and lines of output for which its quotas had no room."""
    peak_memory: int = 0
    inside_us: int = 0

    def hit(self, quota: str) -> None:
        """It went over a quota."""
        self.quota_hits += 1
        self.hits[quota] = self.hits.get(quota, 0) + 1


@dataclass(slots=True, eq=False)
class PluginHandle:
    """What the host knows of one plugin. The supervisor alone changes its state."""

    manifest: Manifest
    settings: PluginSettings
    grants: Grants
    spec: PluginSpec
    slots: Slots
    state: str = "discovered"
    reason: str = ""
    instance: PluginInstance | None = None
    counters: Counters = field(default_factory=Counters)
    inflight: dict[str, InFlight] = field(default_factory=dict)
    log_lines: deque[str] = field(default_factory=lambda: deque(maxlen=50))
    redactor: Redactor = field(default_factory=Redactor)
    """Takes secrets out of what the plugin says of itself: errors, log lines, reasons."""
    heir: PluginHandle | None = None
    """Who took its place: what waits for it goes there."""
    circuit: Circuit = field(default_factory=Circuit)
    """Whether calls that others can serve are kept away from it."""
    note: str = ""
    """How far a swap is, or why the last one was rolled back."""
    name: str = field(init=False)
    labels: Labels = field(init=False)
    """What it may read and has seen."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.name = self.spec.name
        cloud = self.manifest.placement == "cloud"
        self.labels = Labels(self.spec, self.grants, self.settings, cloud=cloud)

    @property
    def placement(self) -> str:
        """`cloud` where data may leave the machine through it, else `local`."""
        return self.labels.placement(self.instance)

    @property
    def serves(self) -> bool:
        return self.instance is not None and self.state in ALIVE

    @property
    def waking(self) -> bool:
        """Not there yet, but on its way: a call may wait."""
        return self.state in ("discovered", "starting")

    def become(self, state: str, reason: str = "") -> None:
        self.state, self.reason = state, self.redactor.text(reason)
        self._changed.set()
        self._changed = asyncio.Event()

    async def ready(self) -> PluginInstance:
        """The instance, once it serves. Raises as `gone` when it will not."""
        while self.instance is None or self.state not in ALIVE:
            if not self.waking:
                raise self.gone()
            await self._changed.wait()
        return self.instance

    async def rouse(self, instance: PluginInstance) -> None:
        """`instance.wake()`. Raises Replaced where the instance gave its place up meanwhile."""
        try:
            await instance.wake()
        except LoomError:
            if self.heir is None:
                raise
            raise self.gone() from None

    def gone(self) -> PluginUnhealthy:
        """Why it takes nothing: the error, or Replaced where another does."""
        kind = PluginUnhealthy if self.heir is None else Replaced
        return kind(self.explain(), plugin_id=self.spec.id)

    def yield_to(self, heir: PluginHandle | None, reason: str) -> None:
        """Take no more; what it has in hand goes on. What waits goes to the heir, or fails."""
        self.heir = heir
        self.become("draining", reason)
        self.slots.close(self.gone)

    async def noticed(self) -> None:
        """After a crash: wait, briefly, until the supervisor has taken the instance away."""
        instance = self.instance
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NOTICE_S):
                while self.instance is instance and self.state in ALIVE:
                    await self._changed.wait()

    def explain(self) -> str:
        """State, reason and last log lines, for people."""
        lines = "".join(f"\n  | {line}" for line in list(self.log_lines)[-5:])
        return f"{self.name} is {self.state}{': ' + self.reason if self.reason else ''}{lines}"


def health_of(plugins: Mapping[str, PluginHandle]) -> tuple[bool, dict[str, Any]]:
    """For `/healthz`: whether none has failed, and every state."""
    states = {handle.name: handle.state for handle in plugins.values()}
    return "failed" not in states.values(), {"plugins": states}
