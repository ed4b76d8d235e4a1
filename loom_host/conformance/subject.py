"""The plugin under test in one tier: its host, its calls, what it answered."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from loom_host.handle import PluginHandle
from loom_host.host import Host
from loom_sdk import Result
from loom_sdk.errors import LoomError

from .kit import Fault, Skip
from .plan import Example, Plan
from .world import make_host

BACK_S = 15.0
"""For a plugin that crashed to serve again before the next check."""


class Subject:
    """One host after another over the same data, opened when a check first asks for it.

    Use it as `async with Subject(plan, tier) as subject`.
    """

    def __init__(self, plan: Plan, tier: str) -> None:
        self.plan, self.tier = plan, tier
        self.answers: dict[int, Any] = {}
        """Outputs by number of the example, for the comparison of tiers."""
        self._place = tempfile.TemporaryDirectory(prefix="loom-conform-")
        self._host: Host | None = None
        self._stack = AsyncExitStack()
        self._why_not = ""

    async def __aenter__(self) -> Subject:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        self._place.cleanup()

    @property
    def place(self) -> Path:
        """Where its hosts keep everything."""
        return Path(self._place.name)

    async def start(self) -> None:
        """Start the plugin in a host. Raises Fault where it does not become ready in time."""
        host = make_host(self.plan, self.tier, self.place)
        try:
            async with asyncio.timeout(self.plan.start_s):
                await self._stack.enter_async_context(host)
                await host.settled()
            handle = host.plugins[self.plan.manifest.name]
            if not handle.serves:
                raise Fault(handle.explain())
        except (Fault, LoomError, TimeoutError) as error:
            late = f"it was not ready within {self.plan.start_s:g} s"
            self._why_not = late if isinstance(error, TimeoutError) else str(error)
            await self._stack.aclose()
            raise Fault(self._why_not) from error
        self._host = host

    async def stop(self) -> None:
        """Stop the host, if any runs."""
        self._host = None
        await self._stack.aclose()

    async def host(self) -> Host:
        """The running host, in which the plugin serves. Raises Skip where it cannot be had."""
        if self._why_not:
            raise Skip("it did not start: see lifecycle.start")
        try:
            if self._host is None:
                await self.start()
            elif not await self._is_back(self._host):
                await self.stop()
                await self.start()
        except Fault as fault:
            raise Skip(f"it did not come back: {fault}") from fault
        assert self._host is not None
        return self._host

    async def _is_back(self, host: Host) -> bool:
        handle = host.plugins[self.plan.manifest.name]
        try:
            async with asyncio.timeout(BACK_S):
                await handle.ready()
        except (LoomError, TimeoutError):
            return False
        return True

    async def handle(self) -> PluginHandle:
        return (await self.host()).plugins[self.plan.manifest.name]

    async def call(self, example: Example, *, timeout_ms: int = 30_000) -> Result:
        """Raises what the call raises."""
        host = await self.host()
        return await host.invoke(example.spec.name, example.arguments, timeout_ms=timeout_ms)
