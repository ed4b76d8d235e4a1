"""Isolation `process`: the guest runs in a worker process of its own.

A worker that is killed, crashes or was put to rest is followed by a new one at the next `init`: the
guest's state is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from loom_host.confine.report import ENFORCED
from loom_host.folders import Folder
from loom_host.quotas import HELD_BY_HOST
from loom_host.runtimes.base import HostServices
from loom_sdk.errors import LoomError, PluginCrashed, PluginLoadError

from . import messages
from .asks import Asks
from .cell import STOP_GRACE_S, Tally
from .compiling import SharedCode
from .frames import OVERHEAD, FrameError
from .guest_process import GuestProcess
from .nursery import Nursery
from .preopens import opened
from .ticket import Ticket
from .traps import Limits, stopped
from .values import MAX_BINARY

_LEAST_FRAME = 3 * MAX_BINARY
"""Frames may have at least this; an event with its metadata fits, whatever the output quota."""


class ProcessCell:
    """At most one worker process at a time."""

    def __init__(
        self,
        name: str,
        limits: Limits,
        nursery: Nursery,
        code: SharedCode,
        services: HostServices,
        folders: Sequence[Folder] = (),
        folder_bytes: int = 0,
    ) -> None:
        self._name, self._limits = name, limits
        self._folders, self._folder_bytes = folders, folder_bytes
        self._nursery, self._shared = nursery, code
        self._asks = Asks(services, limits.plugin_id, limits.output_bytes)
        self._frame_limit = max(limits.output_bytes, _LEAST_FRAME) + OVERHEAD
        self._code = -1
        self._fit = False
        self._process: GuestProcess | None = None
        self._dying: set[GuestProcess] = set()
        self._tally = Tally()
        self._starts_before = 0
        self.layers: Mapping[str, str] = {}
        self.enforcement: Mapping[str, str] = {}

    @property
    def fit(self) -> bool:
        return self._fit and self._process is not None and not self._process.over

    async def call(self, name: str, argument: Any, ticket: Ticket) -> Any:
        """As `Cell.call`. Raises FrameError's PluginCrashed when the worker answers nonsense."""
        if self._code < 0 and name == "init":
            self._code = await self._shared.open()
            if ticket.reason:
                raise PluginLoadError(f"{self._name} was {ticket.reason} while it loaded")
            ticket.restart()  # a first build may take longer than that
        if self._process is not None and not self._process.over:
            return await self._ask(name, argument, ticket)
        if name == "init":
            return await self._open(argument, ticket)
        if name == "shutdown":
            return None
        who = self._limits.plugin_id
        raise PluginCrashed(f"{who}: there is no worker process to run {name}", plugin_id=who)

    async def _open(self, request: Any, ticket: Ticket) -> Any:
        """A new worker with an initialised guest: the answer to `init`."""
        self._retire()
        try:
            async with asyncio.timeout(ticket.remaining_ms() / 1000 + STOP_GRACE_S):
                process = self._process = await self._fork()
        except TimeoutError as error:
            ticket.check()
            raise stopped(ticket, self._limits) from error
        self._tally.pid = process.child.pid
        self._starts_before = self._tally.starts
        settings = {
            "name": self._name,
            "limits": asdict(self._limits),
            "folders": [(folder.inside, folder.writable) for folder in self._folders],
        }
        try:
            self._report(await self._ask("load", settings, ticket))
            return await self._ask("init", request, ticket)
        except BaseException:
            process.kill()  # half a start serves nobody
            raise

    async def _fork(self) -> GuestProcess:
        with opened(self._folders, self._folder_bytes) as (room, held):
            return await GuestProcess.start(
                self._nursery,
                (self._code, *held),
                room,
                self._limits,
                self._frame_limit,
                self._asks,
            )

    async def _ask(self, name: str, argument: Any, ticket: Ticket) -> Any:
        process = self._process
        assert process is not None
        takes, gives = messages.EXPORTS[name]
        record = name in ("invoke", "handle-event")
        given = () if argument is None else (argument,)
        fields = takes.pack_record(argument) if record else takes.pack(*given)
        answer = await process.request(name, fields, ticket, self._count)
        try:
            if name == "invoke":
                return gives.unpack_record(answer)
            values = gives.unpack(answer)
        except FrameError as error:
            process.kill()
            who = self._limits.plugin_id
            raise PluginCrashed(
                f"{who}: its worker process answered {name} with nonsense: {error}", plugin_id=who
            ) from error
        return values[0] if values else None

    def _count(
        self, memory: int, peak: int, starts: int, cpu_s: float, fuel: int, fit: int
    ) -> None:
        tally, self._fit = self._tally, bool(fit)
        tally.fuel += fuel
        tally.memory, tally.peak = memory, max(tally.peak, peak)
        tally.starts = self._starts_before + starts
        tally.cpu_s += cpu_s

    def _report(self, layers: Any) -> None:
        if not isinstance(layers, dict):
            raise PluginLoadError(f"{self._name}: its worker process does not tell its layers")
        self.layers = {str(name): str(state) for name, state in layers.items()}
        self.enforcement = _enforcement(self.layers)

    def stop(self, ticket: Ticket, reason: str) -> None:
        if self._process is None:
            ticket.stop(reason)
        else:
            self._process.stop(ticket, reason)

    async def rest(self, ticket: Ticket) -> None:
        """Let an idle guest shut down, then end its worker."""
        if self._process is None:
            return
        try:
            await self.call("shutdown", None, ticket)
        except LoomError:
            pass  # it ends now, whatever its `stop` said
        finally:
            self._retire()

    def _retire(self) -> None:
        """Kill the worker, if there is one; nobody waits for it to be reaped but `aclose`."""
        process, self._process = self._process, None
        if process is not None:
            self._tally.killed += process.death is not None
            self._tally.pid = self._tally.memory = 0
            process.kill()
            self._dying = {old for old in self._dying if not old.child.exited.done()} | {process}

    def tally(self) -> Tally:
        return self._tally

    async def aclose(self) -> None:
        self._retire()
        dying, self._dying = self._dying, set()
        await asyncio.gather(*(asyncio.shield(process.aclose()) for process in dying))
        if self._code >= 0:
            self._code = -1
            self._shared.close()


def _enforcement(layers: Mapping[str, str]) -> dict[str, str]:
    """The quotas that the layers hold, in words."""
    held = dict.fromkeys(
        ("deadline_ms", "memory", "tables", "cpu", "fuel", *HELD_BY_HOST), ENFORCED
    )
    held["processes"] = layers.get("seccomp", "unenforced: it was not reported")
    held["open_files"] = layers.get("rlimits", "unenforced: it was not reported")
    held["filesystem"] = held["network"] = held["processes"]
    return held
