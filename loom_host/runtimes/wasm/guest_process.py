"""One worker process as the host sees it: its sockets, its running request, its end.

The worker is hostile as soon as its guest has broken out of wasmtime. So every frame is bounded and
checked, and one that does not fit ends the process. The loop never waits: sockets do not block, and
what a worker may make the host do in one turn of the loop is limited.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from loom_host.runtimes.base import serving
from loom_sdk.errors import LoomError, PluginCrashed, PluginError, QuotaExceeded

from . import messages
from .asks import Asks
from .cell import STOP_GRACE_S
from .frame_pipe import FramePipe
from .frames import (
    ANSWER,
    ASK,
    DONE,
    FAILED,
    OUT_OF_MEMORY,
    REFUSAL,
    REQUEST,
    STOP,
    TELL,
    Frame,
    FrameError,
    pack,
)
from .nursery import Nursery, Offspring
from .preopens import Room
from .ticket import Ticket
from .traps import Limits, stopped

_NOTICE_S = 0.2
"""How long the news of how a process ended may take, once its socket has closed."""
_REAP_S = 2.0
"""How long a killed process may take to be reaped."""


Count = Callable[[int, int, int, float, int, int], None]
"""Takes the values of `messages.USAGE`."""


@dataclass(slots=True)
class Running:
    """The request that the worker serves."""

    number: int
    ticket: Ticket
    ended: asyncio.Future[list[bytes]]
    count: Count
    ask: asyncio.Task[None] | None = None


class GuestProcess:
    """Serves one request at a time. Made by `start`."""

    def __init__(
        self,
        child: Offspring,
        sockets: list[socket.socket],
        limits: Limits,
        frame_limit: int,
        asks: Asks,
    ) -> None:
        self.child, self._asks, self._limits = child, asks, limits
        data, self._control = sockets
        self._pipe = FramePipe(data, frame_limit, self._frame, self._hung_up)
        self._loop = asyncio.get_running_loop()
        self._running: Running | None = None
        self._number = self._asked = 0
        self.over = False
        """It takes no more requests."""
        self.death: LoomError | None = None
        """Why it was killed."""
        child.exited.add_done_callback(self._exited)

    @classmethod
    async def start(
        cls,
        nursery: Nursery,
        files: Sequence[int],
        room: Room,
        limits: Limits,
        frame_limit: int,
        asks: Asks,
    ) -> GuestProcess:
        """Fork a worker. `files` are open: the compiled component, then the folders of `room`."""
        pairs = [socket.socketpair() for _ in range(2)]
        ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        try:
            sent = [*(end.fileno() for end in theirs), *files]
            child = await nursery.fork(
                "guest", limits.memory, frame_limit, sent, room, limits.metered
            )
        except BaseException:
            for end in ours:
                end.close()
            raise
        finally:
            for end in theirs:
                end.close()
        ours[1].setblocking(False)
        return cls(child, ours, limits, frame_limit, asks)

    async def request(
        self, name: str, fields: list[bytes], ticket: Ticket, count: Count
    ) -> list[bytes]:
        """Send a request and wait for its end: the answer's fields.

        Args:
            count: told what the request used, when the worker says so.

        Raises:
            LoomError: the guest's; or, once the process is dead, DeadlineExceeded, QuotaExceeded or
                PluginCrashed.
        """
        if self.over:
            raise PluginCrashed(f"{self._limits.plugin_id}: its worker process has ended")
        self._number += 1
        running = self._running = Running(self._number, ticket, self._loop.create_future(), count)
        left_us = ticket.remaining_ms() * 1000
        head = messages.REQUEST.pack(
            name, left_us, ticket.elapsed_us(), ticket.cpu_s, ticket.traceparent, ticket.fuel
        )
        late = self._loop.call_later(left_us / 1e6 + STOP_GRACE_S, self._overdue)
        try:
            self._pipe.send(pack(REQUEST, running.number, [*head, *fields]))
            return await asyncio.shield(running.ended)
        except asyncio.CancelledError:
            self.stop(ticket, "cancelled")
            try:
                await asyncio.wait({running.ended})
                running.ended.exception()  # nobody's to fetch
            except asyncio.CancelledError:
                self.kill()
            raise
        finally:
            late.cancel()
            self._end_ask(running)
            self._running = None

    def stop(self, ticket: Ticket, reason: str) -> None:
        """End the running request, softly for STOP_GRACE_S, then by SIGKILL."""
        running = self._running
        if running is None or running.ticket is not ticket or running.ended.done():
            return
        ticket.stop(reason)
        with contextlib.suppress(OSError):  # full or gone: the kill remains
            self._control.send(pack(STOP, running.number, [reason.encode()]))
        if running.ask is not None and not running.ask.done():
            running.ask.cancel()
            self._pipe.send(pack(REFUSAL, self._asked, []))
        handle = self._loop.call_later(STOP_GRACE_S, self._overdue)
        running.ended.add_done_callback(lambda _: handle.cancel())

    def _overdue(self) -> None:
        if self._running is None or self._running.ended.done():
            return
        ticket = self._running.ticket
        ticket.check()
        self.kill(stopped(ticket, self._limits))

    def kill(self, why: LoomError | None = None) -> None:
        """SIGKILL, which also ends one that was stopped by a signal.

        The running request ends with `why` at once, else when it is known how the process ended.
        """
        self.death = self.death or why
        self.over = True
        self._pipe.stop()
        self.child.kill()
        if why is not None:
            self._end(why)
        elif not self.child.exited.done():
            self._loop.call_later(_NOTICE_S, lambda: self._end(self._reason(-signal.SIGKILL)))

    def _end(self, why: LoomError) -> None:
        if self._running is not None and not self._running.ended.done():
            self._running.ended.set_exception(why)

    # -- from the worker

    def _hung_up(self, error: FrameError | None) -> None:
        if error is None:
            self.kill()  # it closed its socket: whatever it is, it serves no more
            return
        who = self._limits.plugin_id
        self.kill(
            PluginCrashed(f"{who}: its worker process broke the protocol: {error}", plugin_id=who)
        )

    def _frame(self, frame: Frame) -> None:
        """Raises FrameError."""
        running = self._running
        if frame.kind == FAILED and frame.number == 0:
            self.kill(messages.unpack_error(frame.fields))
            return
        if running is None or running.ended.done():
            raise FrameError("a frame while no request runs")
        if frame.kind == ASK:
            self._asked_for(frame, running)
        elif frame.kind == TELL:
            self._asks.told(frame.fields, running.ticket)
        elif frame.kind in (DONE, FAILED) and frame.number == running.number:
            used, rest = (
                frame.fields[: messages.USAGE_FIELDS],
                frame.fields[messages.USAGE_FIELDS :],
            )
            running.count(*messages.USAGE.unpack(used))
            if frame.kind == DONE:
                running.ended.set_result(rest)
            else:
                running.ended.set_exception(messages.unpack_error(rest))
        else:
            raise FrameError(f"a frame of kind {frame.kind} for request {frame.number}")

    def _asked_for(self, frame: Frame, running: Running) -> None:
        if running.ask is not None and not running.ask.done():
            raise FrameError("a question while another one is open")
        name, values = self._asks.parse(frame.fields)
        self._asked = frame.number
        if running.ticket.reason:
            self._pipe.send(pack(REFUSAL, frame.number, []))
            return
        running.ask = self._loop.create_task(self._serve(frame.number, name, values, running))

    async def _serve(self, number: int, name: str, values: list[Any], running: Running) -> None:
        serving.set(running.ticket.call_id)
        try:
            fields = await self._asks.answer(name, values, running.ticket)
            reply = pack(ANSWER, number, fields)
        except Exception as error:  # whatever the services raise is the guest's to see
            reply = pack(REFUSAL, number, messages.pack_error(error))
        if not running.ended.done():
            self._pipe.send(reply)

    def _end_ask(self, running: Running) -> None:
        if running.ask is not None and not running.ask.done():
            running.ask.cancel()

    # -- its end

    def _exited(self, exited: asyncio.Future[int]) -> None:
        self.over = True
        self._pipe.close()
        self._control.close()
        self._end(self.death or self._reason(exited.result()))

    def _reason(self, code: int) -> PluginError:
        who, limit = self._limits.plugin_id, self._limits.memory
        if self.child.out_of_memory or code == OUT_OF_MEMORY:
            return QuotaExceeded(
                f"{who}: its worker process was out of memory (quota memory = {limit} bytes)",
                plugin_id=who, quota="memory", limit=limit, used=limit,
            )  # fmt: skip
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return PluginCrashed(f"{who}: its worker process {how}", plugin_id=who)

    async def aclose(self) -> None:
        """Kill it and wait until it is reaped."""
        self.kill()
        await asyncio.wait({self.child.exited}, timeout=_REAP_S)
