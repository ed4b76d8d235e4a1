"""One plugin of the wasm tier.

The event loop never waits for a guest: every call runs in the instance's worker thread, and what
the guest asks of the host runs on the loop while that thread waits. Cancelling a call interrupts
the guest; its store is then replaced before the next call: state is lost and `init` runs again.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from loom_host.runtimes.base import Declaration, HostServices, PluginSpec, Usage
from loom_sdk import Call, Event, Result
from loom_sdk.driver import negotiate
from loom_sdk.errors import (
    ActionFailed,
    InvalidArguments,
    LoomError,
    PluginCrashed,
    PluginLoadError,
    PluginUnhealthy,
    QuotaExceeded,
)
from loom_sdk.plugin import API_VERSION

from .contract import Loaded
from .declared import declaration_of
from .engine import Engine, Guest
from .host_imports import call_record, event_record
from .ticket import Ticket
from .traps import Limits
from .worker import GuestPort, Worker

T = TypeVar("T")

STOP_GRACE_S = 0.25
"""How long a cancelled call may take to leave the guest before its thread is abandoned."""
HIGH_WATER = 0.75
"""Part of the room to grow above which a guest is renewed between calls: componentize-py keeps
every `list<u8>` that a guest sends."""
_MEMORY_CHECK_S = 0.25
_HEALTH_TIMEOUT_S = 2.0


class WasmInstance:
    """One plugin, at most one guest at a time."""

    def __init__(self, spec: PluginSpec, services: HostServices, engine: Engine) -> None:
        loop = asyncio.get_running_loop()
        quotas = spec.quotas
        self._spec, self._engine = spec, engine
        self._new_port: Callable[[], GuestPort] = lambda: GuestPort(services, loop)
        self._limits = Limits(spec.id, quotas.memory, quotas.output_bytes, quotas.cpu)
        self._worker = Worker(f"loom-{spec.name}")
        self._turn = asyncio.Lock()
        self._exit: asyncio.Future[str] = loop.create_future()
        self._ticket: Ticket | None = None
        self._loaded: Loaded | None = None
        self._linker: Any = None
        self._guest: Guest | None = None
        self._closed = False
        self._peak = self._calls = self._abandoned = self._starts = 0
        self._at_start, self._next_check, self._cpu_s = 0, 0.0, 0.0
        self.declaration = Declaration()
        self.enforcement: Mapping[str, str] = dict.fromkeys(_ENFORCED, "enforced")

    async def load(self, find: Callable[[], Path]) -> None:
        """Build or find the component, compile or load it, instantiate it and run `init`."""
        ticket = Ticket("", self._spec.start_timeout_s)

        def work() -> Declaration:
            loaded = self._engine.load(find())
            if ticket.reason:
                raise PluginLoadError(f"{self._spec.name} was {ticket.reason} while it loaded")
            self._loaded, self._linker = loaded, self._engine.linker(loaded)
            ticket.restart(self._spec.start_timeout_s)  # a first build may take longer than that
            return self._renew(ticket)

        self.declaration = await self._run(ticket, work)

    def _renew(self, ticket: Ticket) -> Declaration:
        """In the worker: a fresh guest, initialised."""
        assert self._loaded is not None
        if self._guest is not None:
            self._guest.close()
        port = self._new_port()
        guest = self._guest = Guest(self._engine, self._loaded, self._linker, port, self._limits)
        try:
            guest.open(ticket)
            answer = guest.call("init", (self._init_request(),), ticket)
        except BaseException:
            guest.dead = True
            raise
        self._starts += 1
        self._at_start = guest.memory_bytes()
        negotiate([answer["api-version"]], self._spec.id)
        return declaration_of(answer, self._spec.id)

    def _init_request(self) -> dict[str, Any]:
        quotas = self._spec.quotas
        named = ("memory", "deadline_ms", "output_bytes", "log_bytes", "storage_bytes")
        return {
            "api-versions": [API_VERSION],
            "plugin-id": self._spec.id,
            "config": json.dumps(dict(self._spec.config)),
            "grants": list(self._spec.grants),
            "quotas": [(name, int(getattr(quotas, name))) for name in named],
        }

    async def _run(self, ticket: Ticket, work: Callable[[], T], closing: bool = False) -> T:
        """Run `work` in the worker when it is its turn; a cancellation stops the guest."""
        async with self._turn:
            if self._closed and not closing:
                raise PluginUnhealthy(f"{self._spec.name} is closed", plugin_id=self._spec.id)
            self._ticket = ticket
            future = self._worker.submit(work)
            try:
                await asyncio.wait({future})
            except asyncio.CancelledError:
                self._engine.stop(ticket, "cancelled")
                await self._let_go(future)
                raise
            finally:
                self._ticket = None
            return future.result()

    async def _let_go(self, future: asyncio.Future[Any]) -> None:
        """Wait for a stopped guest; abandon its thread when it does not come back."""
        try:
            await asyncio.wait({future}, timeout=STOP_GRACE_S)
        finally:
            if not future.done():
                self._abandoned += 1
                self._guest = None
                self._worker.stop()
                self._worker = Worker(f"loom-{self._spec.name}")

    def _serve(self, name: str, argument: dict[str, Any], ticket: Ticket) -> Any:
        """In the worker: one call of an export, on a guest that is fit for it."""
        if self._loaded is None:
            raise PluginCrashed(f"{self._spec.name} was never loaded", plugin_id=self._spec.id)
        if self._guest is None or self._guest.dead or self._above_high_water():
            self._renew(ticket)
        guest = self._guest
        assert guest is not None
        self._calls += 1
        try:
            return guest.call(name, (argument,), ticket)
        except QuotaExceeded as error:
            guest.dead = guest.dead or error.quota == "memory"
            raise
        finally:
            self._cpu_s += ticket.cpu_used_s()

    def _above_high_water(self) -> bool:
        """Looks at most four times a second: reading the kernel's map takes half a millisecond."""
        if self._guest is None or time.monotonic() < self._next_check:
            return False
        self._next_check = time.monotonic() + _MEMORY_CHECK_S
        used = self._guest.memory_bytes()
        self._peak = max(self._peak, used)
        room = max(0, self._spec.quotas.memory - self._at_start)
        return used > self._at_start + room * HIGH_WATER

    def _new_ticket(self, call_id: str, remaining_ms: int, traceparent: str) -> Ticket:
        timeout_ms = min(remaining_ms, self._spec.quotas.deadline_ms)
        return Ticket(call_id, timeout_ms / 1000, self._limits.cpu_s, traceparent)

    async def invoke(self, call: Call) -> Result:
        ticket = self._new_ticket(call.id, call.remaining_ms, call.traceparent)
        try:
            record = call_record(call)
        except (TypeError, ValueError) as error:
            raise InvalidArguments(f"arguments are not JSON: {error}") from error

        def work() -> Result:
            return self._result(self._serve("invoke", record, ticket), ticket)

        return await self._run(ticket, work)

    def _result(self, answer: dict[str, Any], ticket: Ticket) -> Result:
        output, payload = answer["output"], answer["payload"]
        limit, used = self._limits.output_bytes, len(output) + len(payload) + ticket.output_bytes
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
        ticket = self._new_ticket(event.id, self._spec.quotas.deadline_ms, event.traceparent)
        record = event_record(event)
        return int(await self._run(ticket, lambda: self._serve("handle-event", record, ticket)))

    async def health(self) -> str:
        """A guest at work is healthy as long as its deadlines hold it; an idle one is asked."""
        if self._abandoned:
            return f"{self._abandoned} blocked thread(s) abandoned"
        if self._turn.locked():
            return ""
        ticket = Ticket("", _HEALTH_TIMEOUT_S)
        try:
            answer = await self._run(ticket, lambda: self._ask_health(ticket))
        except LoomError as error:
            return error.message
        return "" if answer["healthy"] else str(answer["message"] or "unhealthy")

    def _ask_health(self, ticket: Ticket) -> Any:
        if self._guest is None or self._guest.dead:
            self._renew(ticket)
        assert self._guest is not None
        return self._guest.call("health", (), ticket)

    async def wait_exit(self) -> str:
        """A guest that trapped is renewed, so an instance ends only when it is closed."""
        return await asyncio.shield(self._exit)

    async def aclose(self, grace_s: float) -> None:
        if self._closed:
            return
        self._closed = True
        if (running := self._ticket) is not None:
            asyncio.get_running_loop().call_later(
                grace_s, self._engine.stop, running, "closed by the host"
            )
        ticket = Ticket("", max(grace_s, 0.1))
        try:
            await self._run(ticket, lambda: self._shut_down(ticket), closing=True)
        except LoomError:
            pass  # it ends now, whatever its `stop` said
        finally:
            self._exit.cancel()
            await self._end_worker()

    def _shut_down(self, ticket: Ticket) -> None:
        if self._guest is not None and not self._guest.dead:
            self._guest.call("shutdown", (), ticket)

    async def _end_worker(self) -> None:
        guest, self._guest = self._guest, None
        if guest is not None:
            await asyncio.wait({self._worker.submit(guest.close)}, timeout=STOP_GRACE_S)
        self._worker.stop()
        self._worker.join(0.05)

    def usage(self) -> Usage:
        now = 0 if self._guest is None or self._guest.dead else self._guest.memory_bytes()
        self._peak = max(self._peak, now)
        extra = {
            "calls": float(self._calls),
            "renewals": float(max(0, self._starts - 1)),
            "abandoned_threads": float(self._abandoned),
            "cpu_s": round(self._cpu_s, 6),
        }
        return Usage(now, self._peak, extra=extra)


_ENFORCED = (
    "deadline_ms",
    "memory",
    "cpu",
    "concurrency",
    "rate",
    "output_bytes",
    "log_bytes",
    "storage_bytes",
    "processes",
    "open_files",
)
