"""One plugin as the host holds it: identity, state, slots, calls in flight, counters."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from loom_sdk import Item
from loom_sdk.errors import LoomError, PluginUnhealthy, QuotaExceeded

from .grants import Grants
from .manifest import Manifest
from .runtimes.base import PluginInstance, PluginSpec
from .settings import PluginSettings
from .telemetry import Redactor

STATES = ("discovered", "starting", "ready", "degraded", "draining", "stopped", "failed")
ALIVE = ("ready", "degraded")
WAITING_MAX = 1024
"""Calls and events that may wait for one plugin."""
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
    latency_ms: float | None = None
    """Moving average, weight 0.2 on the newest."""

    def hit(self, quota: str) -> None:
        """It went over a quota."""
        self.quota_hits += 1
        self.hits[quota] = self.hits.get(quota, 0) + 1


class Slots:
    """Concurrency and rate: how many at once, how many a second."""

    def __init__(self, plugin_id: str, limit: int, rate: float) -> None:
        self.plugin_id, self.limit, self.rate = plugin_id, limit, rate
        self.active = 0
        self._waiting: deque[asyncio.Future[bool]] = deque()
        self._closed: Callable[[], Exception] | None = None
        self._tokens, self._refilled = max(rate, 1.0), time.monotonic()

    @property
    def full(self) -> bool:
        return self.active >= self.limit

    def spend(self) -> None:
        """Take one call from the rate. Raises QuotaExceeded."""
        if not self.rate:
            return
        now = time.monotonic()
        grown = self._tokens + (now - self._refilled) * self.rate
        self._tokens, self._refilled = min(grown, max(self.rate, 1.0)), now
        if self._tokens < 1:
            raise QuotaExceeded(
                plugin_id=self.plugin_id, quota="rate", limit=self.rate, used=self.rate + 1
            )
        self._tokens -= 1

    def taken(self) -> bool:
        """Take a free place, where there is one."""
        if self.active < self.limit:
            self.active += 1
            return True
        return False

    async def acquire(self) -> None:
        """Wait for a free place, first come first served.

        Raises QuotaExceeded, or as it was closed.
        """
        if self.taken():
            return
        if self._closed is not None:
            raise self._closed()
        if len(self._waiting) >= WAITING_MAX:
            raise QuotaExceeded(
                f"{self.plugin_id} is busy and {WAITING_MAX} calls wait for it already",
                plugin_id=self.plugin_id,
                quota="concurrency",
                limit=self.limit,
                used=self.active + WAITING_MAX,
            )
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            given = await future
        except asyncio.CancelledError:
            if not future.cancelled():
                if future.result():
                    self.release()
            elif future in self._waiting:
                self._waiting.remove(future)
            raise
        if not given:
            assert self._closed is not None
            raise self._closed()

    def release(self) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(True)  # the place passes on, `active` stays
                return
        self.active -= 1

    def close(self, why: Callable[[], Exception]) -> None:
        """Nobody waits any more: who does gets the error. Places in use are given back as ever."""
        self._closed = why
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(False)


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
    note: str = ""
    """How far a swap is, or why the last one was rolled back."""
    name: str = field(init=False)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.name = self.spec.name

    @property
    def placement(self) -> str:
        """`cloud` where data may leave the machine: a network grant, an address, or unlisted native
        code."""
        if self.spec.remote is not None or self.grants.allowed.get("network"):
            return "cloud"
        trusted = self.spec.first_party or self.settings.trusted
        return "local" if self.spec.tier != "native" or trusted else "cloud"

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

    def observe(self, elapsed_ms: float) -> None:
        old = self.counters.latency_ms
        self.counters.latency_ms = elapsed_ms if old is None else old * 0.8 + elapsed_ms * 0.2


def health_of(plugins: Mapping[str, PluginHandle]) -> tuple[bool, dict[str, Any]]:
    """For `/healthz`: whether none has failed, and every state."""
    states = {handle.name: handle.state for handle in plugins.values()}
    return "failed" not in states.values(), {"plugins": states}
