"""The Sessions of hosts with a plugin that listens: each has a plugin object of its own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import grpc

from .plugin import Plugin
from .session import PluginSession
from .work import Work

STOP_S = 5.0
"""For `Plugin.stop` after a Session that ended without a Shutdown."""
LOOK_S = 0.05


class Served:
    """One Session: the plugin object behind it, and whether it was asked to stop."""

    def __init__(self, load: Callable[[], type[Plugin]]) -> None:
        self.work = Work(load)
        self.session = PluginSession(self.work, self._stop, self._stopped)
        self.over = asyncio.Event()
        self._asked = False

    async def _stop(self, grace_s: float) -> Exception | None:
        self._asked = True
        return await self.work.stop(grace_s)

    def _stopped(self) -> None:
        self.session.aclose()

    async def end(self) -> None:
        """After the stream: the plugin object ends too."""
        if not self._asked:
            await self.work.stop(STOP_S)
        self.over.set()


class RemoteSessions:
    """Serves `Session` to every host whose certificate was accepted.

    Args:
        pool: whether hosts are served side by side; else one at a time.
    """

    def __init__(self, load: Callable[[], type[Plugin]], *, pool: bool) -> None:
        self._load, self._pool = load, pool
        self._served: set[Served] = set()
        self._left: list[Work] = []
        self._ends: set[asyncio.Task[None]] = set()
        self.draining = False

    @property
    def well(self) -> bool:
        """What health answers: not draining, no object unwell, no work that cannot be stopped."""
        objects = [served.work for served in self._served if served.work.driver is not None]
        return not (self.draining or self.stuck) and all(w.health().healthy for w in objects)

    @property
    def stuck(self) -> bool:
        """Whether work goes on whose Session has ended."""
        self._left = [work for work in self._left if work.running]
        return bool(self._left)

    async def serve(self, requests: Any, context: Any) -> None:
        served = Served(self._load)
        await self._admit(served, context)
        try:
            await served.session.serve(context.read, context.write, grpc.aio.EOF)
        finally:
            end = asyncio.create_task(self._end(served))
            self._ends.add(end)
            end.add_done_callback(self._ends.discard)
            await asyncio.shield(end)

    async def over(self, grace_s: float) -> None:
        """Wait until hosts have ended their Sessions; then end those that are left."""
        try:
            async with asyncio.timeout(grace_s):
                while self._served:  # noqa: ASYNC110  # hosts end them one by one
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            for served in tuple(self._served):
                served.session.aclose()
            await asyncio.gather(*(served.over.wait() for served in tuple(self._served)))

    async def _admit(self, served: Served, context: Any) -> None:
        """Refuse it, or note it."""
        if self.draining:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "it shuts down")
        if self._served and not self._pool:
            await context.abort(
                grpc.StatusCode.ALREADY_EXISTS,
                'it keeps state (instances = "single") and serves another host already: stop that '
                "one, or run one for each host",
            )
        self._served.add(served)

    async def _end(self, served: Served) -> None:
        try:
            await served.end()
        finally:
            self._served.discard(served)
            if served.work.running:
                self._left.append(served.work)
                names = ", ".join(served.work.running)
                print(f"still at work for a Session that ended: {names}", file=sys.stderr)
