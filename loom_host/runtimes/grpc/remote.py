"""Plugins on other machines: one instance stands for all replicas at an address."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from loom_host.confine.report import ENFORCED
from loom_host.quotas import HELD_BY_HOST
from loom_host.runtimes.base import Declaration, HostServices, NotReached, PluginSpec, Usage
from loom_sdk import Call, Event, Result
from loom_sdk.errors import PluginCrashed, PluginError, PluginUnhealthy

from .connect import Connector
from .replica import Replica, backoff_s
from .replicas import Replicas
from .resolve import Resolve, Unresolved, lookup

REACH_S = 15.0
"""For the first connection of a start; then the supervisor tries again. That makes at most four
failures in a minute, and its circuit opens after five: a machine that is away is waited for."""
STREAM = "stream_id"
"""Metadata of events that keeps those of one stream at one replica."""
UNENFORCED = "unenforced: remote"


def enforcement_remote() -> dict[str, str]:
    """Quota to what holds: what the host counts itself, and nothing of the other machine."""
    held = dict.fromkeys(HELD_BY_HOST, ENFORCED)
    held["deadline_ms"] = "partial: remote: the caller is let go and the replica told to stop"
    there = (
        "memory", "cpu", "cpu_share", "processes", "open_files", "file_size", "folder_bytes",
        "network", "filesystem",
    )  # fmt: skip
    return held | dict.fromkeys(there, UNENFORCED)


async def start_remote(
    spec: PluginSpec, services: HostServices, resolve: Resolve = lookup
) -> RemoteInstance:
    """Connect to the replicas; returns with the first that serves.

    Raises:
        PluginCrashed: none is reached: the supervisor tries again.
        PluginLoadError, ProtocolMismatch: what is wrong must be mended first.
    """
    instance = RemoteInstance(spec, services, resolve)
    try:
        await instance.begin()
    except BaseException:
        await asyncio.shield(instance.aclose(0))
        raise
    return instance


class RemoteInstance:
    """All replicas behind `PluginInstance`. Made by `start_remote`."""

    layers: Mapping[str, str] = {}

    def __init__(self, spec: PluginSpec, services: HostServices, resolve: Resolve) -> None:
        self.declaration = Declaration()
        self.enforcement: Mapping[str, str] = enforcement_remote()
        self._spec = spec
        self._connector = Connector(spec, services)
        self._replicas = Replicas(spec, self._connector, resolve, self._on_change)
        self._changed = asyncio.Event()
        self._closing = self._began = False
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._finder: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """As `start_remote`, within nine tenths of the start-up limit, to be told the reason."""
        limit = self._spec.start_timeout_s * 0.9
        loop = asyncio.get_running_loop()
        soonest = loop.time() + min(REACH_S, limit)
        try:
            async with asyncio.timeout(limit):
                await self._find(soonest)
                while (first := self._replicas.least()) is None:
                    self._check_refused()
                    late = None if self._connector.reached else soonest
                    async with asyncio.timeout_at(late):
                        await self._change()
        except TimeoutError as error:
            raise self._not_there() from error
        assert first.line is not None
        self.declaration = first.line.declaration
        self._began = True
        self._finder = asyncio.create_task(self._replicas.keep_finding())

    @property
    def asleep(self) -> bool:
        """No replica is there just now, but one may come."""
        return not self._replicas.ready and not self._gone

    async def wake(self) -> None:
        await self._some(None)

    async def invoke(self, call: Call) -> Result:
        """As `PluginInstance.invoke`, at the replica with the fewest calls.

        Raises:
            PluginCrashed: that replica was lost; others go on.
        """
        replica = await self._some(None)
        return await replica.invoke(call)

    async def handle_event(self, event: Event) -> int:
        """As `PluginInstance.handle_event`; those of one `stream_id` at one replica."""
        replica = await self._some(event.metadata.get(STREAM))
        return await replica.handle_event(event)

    async def health(self) -> str:
        if self._gone:
            raise PluginUnhealthy(self._reason(), plugin_id=self._spec.id)
        words = [self._replicas.problem] if self._replicas.problem else []
        away = [r for r in self._replicas if not r.ready]
        if away:
            told = "; ".join(map(_why, away))
            words.append(f"{len(away)} of {len(self._replicas)} replicas are away: {told}")
        words += [f"{r.address}: {r.unwell}" for r in self._replicas if r.ready and r.unwell]
        return "; ".join(words)

    async def wait_exit(self) -> str:
        return await asyncio.shield(self._ended)

    async def aclose(self, grace_s: float) -> None:
        """Ask every replica to stop serving this host; idempotent. The plugin itself goes on."""
        self._closing = True
        self._on_change()
        if self._finder is not None:
            self._finder.cancel()
            await asyncio.gather(self._finder, return_exceptions=True)
        await self._replicas.aclose(grace_s)

    def usage(self) -> Usage:
        """Memory is the sum of what the replicas last said of themselves."""
        ready = self._replicas.ready
        counts = {
            "replicas": float(len(self._replicas)),
            "replicas_ready": float(len(ready)),
            "outstanding": float(sum(replica.outstanding for replica in self._replicas)),
        }
        memory = sum(replica.memory for replica in ready)
        return Usage(memory, memory, 0, counts)

    @property
    def replicas(self) -> Replicas:
        return self._replicas

    # -- the first connection

    async def _find(self, until: float) -> None:
        """The first resolution, again and again until it tells something."""
        attempt = 0
        while True:
            try:
                return await self._replicas.find()
            except Unresolved as error:
                self._replicas.problem = str(error)
            attempt += 1
            async with asyncio.timeout_at(until):
                await asyncio.sleep(backoff_s(attempt))

    def _check_refused(self) -> None:
        """Raises the first refusal where all replicas are refused: waiting would not help."""
        problems = [replica.problem for replica in self._replicas]
        if problems and all(p is not None and not isinstance(p, PluginUnhealthy) for p in problems):
            assert problems[0] is not None
            raise problems[0]

    def _not_there(self) -> PluginError:
        return PluginCrashed(
            f"{self._spec.name} is not there: {self._reason()}: start it, or correct `address` "
            f"under [plugins.{self._spec.name}]",
            plugin_id=self._spec.id,
        )

    # -- who serves

    async def _some(self, stream_id: str | None) -> Replica:
        """A ready replica, waited for where there is none."""
        while True:
            if self._gone:
                raise NotReached(self._reason(), plugin_id=self._spec.id)
            pick = self._replicas.pinned(stream_id) if stream_id else self._replicas.least()
            if pick is not None:
                return pick
            await self._change()

    @property
    def _gone(self) -> bool:
        return self._closing or self._ended.done()

    async def _change(self) -> None:
        await self._changed.wait()

    def _on_change(self) -> None:
        if self._began and not self._closing and not self._replicas.up and not self._ended.done():
            self._ended.set_result(f"no replica is left: {self._reason()}")
        self._changed.set()
        self._changed = asyncio.Event()

    def _reason(self) -> str:
        if self._closing:
            return f"{self._spec.id} is stopped"
        told = [_why(replica) for replica in self._replicas if not replica.ready]
        if self._replicas.problem:
            told.append(self._replicas.problem)
        return "; ".join(told) or f"{self._spec.remote and self._spec.remote.address}: no replica"


def _why(replica: Replica) -> str:
    if replica.problem is not None:
        return replica.problem.message
    return f"{replica.address} is {replica.state}"
