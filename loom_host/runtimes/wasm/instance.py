"""One plugin of the wasm tier.

The event loop never waits for a guest: it runs in a *cell*, a thread of the host or a worker
process, and what it asks of the host runs on the loop. Cancelling a call interrupts the guest,
which is then made anew: state is lost and `init` runs again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from loom_host.runtimes.base import Declaration, PluginSpec, Usage
from loom_sdk import Call, Event, Result
from loom_sdk.errors import (
    ActionFailed,
    DeadlineExceeded,
    InvalidArguments,
    LoomError,
    QuotaExceeded,
)
from loom_sdk.plugin import API_VERSION

from .cell import Cell
from .declared import declaration_of
from .folder_watch import FolderWatch
from .host_imports import call_record, event_record
from .pool import Pool
from .seat import Seat
from .ticket import Ticket

_HEALTH_TIMEOUT_S = 2.0


class WasmInstance:
    """One plugin over its seats: the declaration, calls, events, health and use."""

    def __init__(self, spec: PluginSpec, make_cell: Callable[[], Cell]) -> None:
        self._spec = spec
        size = spec.quotas.concurrency if spec.instances == "pool" else 1
        self._pool = Pool(spec.id, _seats(spec, make_cell), size, spec.idle_s)
        self._exit: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._calls = 0
        self.declaration = Declaration()
        self.enforcement: Mapping[str, str] = {}
        self.layers: Mapping[str, str] = {}
        """What the kernel holds the plugin's process to, layer by layer; empty without one."""

    async def load(self) -> None:
        """Build or find the component, compile or load it, instantiate it and run `init`."""
        answer = await self._pool.open()
        cell = self._pool.seats[0].cell
        self.enforcement, self.layers = cell.enforcement, cell.layers
        self.declaration = declaration_of(answer, self._spec.id)

    # -- calls

    @property
    def asleep(self) -> bool:
        return self._pool.asleep

    async def wake(self) -> None:
        self._pool.give_back(await self._pool.take())

    async def _take(self, wait_ms: int) -> Seat:
        """Raises as `Pool.take`, and DeadlineExceeded."""
        if self._pool.idle:
            return await self._pool.take()
        try:
            async with asyncio.timeout(wait_ms / 1000):
                return await self._pool.take()
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"{self._spec.name} was not ready within {wait_ms} ms", plugin_id=self._spec.id
            ) from error

    def _ticket(self, call_id: str, remaining_ms: int, traceparent: str) -> Ticket:
        quotas = self._spec.quotas
        timeout_ms = min(remaining_ms, quotas.deadline_ms)
        return Ticket(call_id, timeout_ms / 1000, quotas.cpu, traceparent, quotas.fuel)

    async def _serve(self, seat: Seat, name: str, record: Any, ticket: Ticket) -> Any:
        self._calls += 1
        try:
            return await seat.run(name, record, ticket)
        finally:
            self._pool.give_back(seat)

    async def invoke(self, call: Call) -> Result:
        try:
            record = call_record(call)
        except (TypeError, ValueError) as error:
            raise InvalidArguments(f"arguments are not JSON: {error}") from error
        asked = asyncio.get_running_loop().time()
        seat = await self._take(call.remaining_ms)
        waited_ms = int((asyncio.get_running_loop().time() - asked) * 1000)
        ticket = self._ticket(call.id, max(0, call.remaining_ms - waited_ms), call.traceparent)
        return self._result(await self._serve(seat, "invoke", record, ticket), ticket)

    def _result(self, answer: dict[str, Any], ticket: Ticket) -> Result:
        output, payload = answer["output"], answer["payload"]
        limit = self._spec.quotas.output_bytes
        used = len(output) + len(payload) + ticket.output_bytes
        if used > limit:
            raise QuotaExceeded(
                plugin_id=self._spec.id, quota="output_bytes", limit=limit, used=used
            )
        try:
            value = json.loads(output or "null")
        except (ValueError, RecursionError) as error:
            raise ActionFailed(f"{self._spec.name} returned what is not JSON: {error}") from error
        return Result(value, payload, answer["content-type"], answer["elapsed-us"])

    async def handle_event(self, event: Event) -> int:
        limit_ms = self._spec.quotas.deadline_ms
        seat = await self._take(limit_ms)
        ticket = self._ticket(event.id, limit_ms, event.traceparent)
        return int(await self._serve(seat, "handle-event", event_record(event), ticket))

    async def health(self) -> str:
        """A guest at work is healthy as long as its deadlines hold it; an idle one is asked."""
        if abandoned := self._pool.tally().abandoned:
            return f"{abandoned} blocked thread(s) abandoned"
        if not self._pool.idle:
            return ""
        seat = await self._pool.take()
        try:
            answer = await seat.run("health", None, Ticket("", _HEALTH_TIMEOUT_S))
        except LoomError as error:
            return error.message
        finally:
            self._pool.give_back(seat)
        return "" if answer["healthy"] else str(answer["message"] or "unhealthy")

    # -- end

    async def wait_exit(self) -> str:
        """A guest that ended is renewed, so an instance ends only when it is closed."""
        return await asyncio.shield(self._exit)

    async def aclose(self, grace_s: float) -> None:
        if self._pool.closed:
            return
        try:
            await self._pool.aclose(grace_s)
        finally:
            self._exit.cancel()

    def usage(self) -> Usage:
        tally = self._pool.tally()
        extra = {
            "calls": float(self._calls),
            "instances": float(self._pool.guests),
            "renewals": float(self._pool.renewals),
            "abandoned_threads": float(tally.abandoned),
            "workers_killed": float(tally.killed),
            "cpu_s": round(tally.cpu_s, 6),
            "fuel": float(tally.fuel),
        }
        return Usage(tally.memory, tally.peak, tally.pid, extra=extra)


def _seats(spec: PluginSpec, make_cell: Callable[[], Cell]) -> Callable[[], Seat]:
    """What makes the plugin's seats; they share the watch over its folders."""
    watch, request = FolderWatch(spec.folders, spec.quotas.folder_bytes, spec.id), _request(spec)
    return lambda: Seat(make_cell(), watch, request, spec.start_timeout_s)


def _request(spec: PluginSpec) -> dict[str, Any]:
    """What `init` is told."""
    named = ("memory", "deadline_ms", "output_bytes", "log_bytes", "storage_bytes")
    return {
        "api-versions": [API_VERSION],
        "plugin-id": spec.id,
        "config": json.dumps(dict(spec.config)),
        "grants": list(spec.grants),
        "quotas": [(name, int(getattr(spec.quotas, name))) for name in named],
    }
