"""The guests of one plugin: how many there are, and which call gets which.

A plugin with `instances = "single"` has one seat, whose guest keeps its state. With `"pool"` it has
a seat for each call at once, up to its concurrency; a seat is added when all are taken and given up
when it was idle for a while. Each seat of the isolation `process` has a worker of its own, so that
a call that is killed takes no other with it.

A guest that has ended, or has grown too large, is made anew as soon as its call is over: what that
takes is no call's time.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from loom_host.runtimes.base import NotReached

from .cell import REST_S, Tally
from .seat import Seat


class Pool:
    """Seats of one plugin.

    Args:
        make: a new seat, without a guest yet.
        size: most seats.
        idle_s: seconds without a call after which a seat rests; 0: never.
    """

    def __init__(self, plugin_id: str, make: Callable[[], Seat], size: int, idle_s: float) -> None:
        self._plugin_id, self._make, self._size, self._idle_s = plugin_id, make, size, idle_s
        self._loop = asyncio.get_running_loop()
        self.seats: list[Seat] = []
        self._free: list[Seat] = []
        """With a guest, the one used last at the end."""
        self._asleep: list[Seat] = []
        """Without a guest."""
        self._waiting: deque[asyncio.Future[Seat]] = deque()
        self._tasks: dict[asyncio.Task[None], Seat] = {}
        self._starting = self._resting = 0
        self._look_again: asyncio.TimerHandle | None = None
        self._past, self._past_renewals = Tally(), 0
        self.closed = False

    async def open(self) -> Any:
        """Start the first guest: its answer to `init`."""
        seat = self._add()
        answer = await seat.renew()
        self._put(seat)
        return answer

    def _add(self) -> Seat:
        seat = self._make()
        self.seats.append(seat)
        return seat

    # -- who gets which

    @property
    def asleep(self) -> bool:
        """Whether the next call has to wait for a guest that starts."""
        if self.idle:
            return False
        coming = self._starting or self._asleep or self._resting
        return bool(coming or len(self.seats) < self._size)

    @property
    def idle(self) -> bool:
        """Whether a guest is there that has nothing to do. A worker may have ended meanwhile."""
        while self._free and not self._free[-1].fit:
            self._asleep.append(self._free.pop())
        return bool(self._free)

    async def take(self) -> Seat:
        """A seat with a guest, the caller's until `give_back`; first come, first served.

        Raises:
            LoomError: no guest could be started.
            PluginUnhealthy: closed.
        """
        if self.closed:
            raise self._is_closed()
        if self.idle:
            return self._free.pop()
        future: asyncio.Future[Seat] = self._loop.create_future()
        self._waiting.append(future)
        self._bring_up()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._put(future.result())
            raise

    def give_back(self, seat: Seat) -> None:
        """Free a seat; one without a guest gets a new one."""
        if self.closed:
            return
        if seat.fit:
            self._put(seat)
        else:
            self._start(seat)

    def _put(self, seat: Seat) -> None:
        seat.last_use = time.monotonic()
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(seat)
                return
        self._free.append(seat)
        if self._look_again is None and self._idle_s and not self.closed:
            self._look_again = self._loop.call_later(self._idle_s, self._look)

    def _bring_up(self) -> None:
        """Start a guest where more wait than start, and where one can be."""
        if sum(not future.done() for future in self._waiting) <= self._starting:
            return
        if self._asleep:
            self._start(self._asleep.pop())
        elif len(self.seats) < self._size:
            self._start(self._add())

    def _start(self, seat: Seat) -> None:
        self._starting += 1
        self._spawn(self._renew(seat), seat)

    def _spawn(self, work: Any, seat: Seat) -> None:
        task = self._loop.create_task(work)
        self._tasks[task] = seat
        task.add_done_callback(self._tasks.pop)

    async def _renew(self, seat: Seat) -> None:
        try:
            await seat.renew()
        except Exception as error:
            self._asleep.append(seat)
            self._refuse(error)
        else:
            self._put(seat)
        finally:
            self._starting -= 1
            if not self.closed:
                self._bring_up()

    def _refuse(self, error: Exception) -> None:
        """Tell one that waits; the next try is for the next one."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)
                return

    def _is_closed(self) -> NotReached:
        return NotReached(f"{self._plugin_id} is closed", plugin_id=self._plugin_id)

    # -- idle

    def _look(self) -> None:
        """One timer at a time, which looks again rather than being moved by every call."""
        self._look_again = None
        limit = time.monotonic() - self._idle_s
        while self._free and self._free[0].last_use <= limit:
            seat = self._free.pop(0)
            self._spawn(self._rest(seat), seat)
        if self._free:
            left = self._free[0].last_use - limit
            self._look_again = self._loop.call_later(left, self._look)

    async def _rest(self, seat: Seat) -> None:
        """The first seat stays, if only to be woken; the others end."""
        self._resting += 1
        try:
            if seat is self.seats[0]:
                await seat.rest()
                self._free[:0] = [seat] if seat.fit else []
                self._asleep += [] if seat.fit else [seat]
            else:
                await seat.aclose(REST_S)
                self._leave(seat)
        finally:
            self._resting -= 1
        if self._waiting and self._free:
            self._put(self._free.pop())
        self._bring_up()

    def _leave(self, seat: Seat) -> None:
        self.seats.remove(seat)
        tally = seat.cell.tally()
        self._past_renewals += tally.renewals
        tally.memory = tally.pid = 0
        self._past.add(tally)

    # -- end

    async def aclose(self, grace_s: float) -> None:
        """Let calls that run go on for `grace_s`; then end everything."""
        self.closed = True
        if self._look_again is not None:
            self._look_again.cancel()
            self._look_again = None
        while self._waiting:
            self._refuse(self._is_closed())
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.gather(*(seat.aclose(grace_s) for seat in self.seats))

    def tally(self) -> Tally:
        """Of all seats together, those that have ended included."""
        total = Tally()
        total.add(self._past)
        for seat in self.seats:
            total.add(seat.cell.tally())
        return total

    @property
    def renewals(self) -> int:
        """Guests that took another's place."""
        return self._past_renewals + sum(seat.cell.tally().renewals for seat in self.seats)

    @property
    def guests(self) -> int:
        return sum(seat.fit for seat in self.seats)
