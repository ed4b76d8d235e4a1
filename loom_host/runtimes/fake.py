"""The fake tier for tests: a table of functions instead of code that is loaded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from loom_sdk import Call, Event, Result
from loom_sdk.errors import CapabilityNotFound, PluginCrashed
from loom_sdk.plugin import CapabilitySpec

from .base import Declaration, HostServices, PluginSpec, Usage

Serve = Callable[[Call, HostServices], Awaitable[Result]]
Hear = Callable[[Event, HostServices], Awaitable[None]]


class FakeInstance:
    """Serves from the tables; `crash` ends it as a dying process would."""

    asleep = False

    def __init__(
        self, plugin_id: str, services: HostServices, serve: Mapping[str, Serve], hear: Hear | None
    ) -> None:
        self.plugin_id = plugin_id
        self.services = services
        self._serve, self._hear = serve, hear
        self._exit: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._running: set[asyncio.Task[Any]] = set()
        self.sick = ""
        self.declaration = Declaration(tuple(CapabilitySpec(name) for name in serve))
        self.enforcement: Mapping[str, str] = {}

    def crash(self, reason: str = "crashed") -> None:
        if not self._exit.done():
            self._exit.set_result(reason)

    async def _while_alive(self, work: Awaitable[Any]) -> Any:
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, self._exit}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise PluginCrashed(
                f"the plugin ended: {self._exit.result()}", plugin_id=self.plugin_id
            )
        finally:
            task.cancel()

    async def wake(self) -> None:
        """A fake never sleeps."""

    async def invoke(self, call: Call) -> Result:
        if call.capability not in self._serve:
            raise CapabilityNotFound(f"the fake does not offer {call.capability!r}")
        began = time.perf_counter_ns()
        result: Result = await self._while_alive(self._serve[call.capability](call, self.services))
        result.elapsed_us = (time.perf_counter_ns() - began) // 1000
        return result

    async def handle_event(self, event: Event) -> int:
        if self._hear is not None:
            await self._while_alive(self._hear(event, self.services))
        return 0

    async def health(self) -> str:
        return self.sick

    async def wait_exit(self) -> str:
        return await asyncio.shield(self._exit)

    async def aclose(self, grace_s: float) -> None:
        self._exit.cancel()

    def usage(self) -> Usage:
        return Usage()


class FakeRuntime:
    """Starts fakes; `failures` makes the next starts fail with the given errors."""

    def __init__(
        self,
        tier: str = "native",
        serve: Mapping[str, Mapping[str, Serve]] | None = None,
        hear: Mapping[str, Hear] | None = None,
    ) -> None:
        self.tier = tier
        self.serve = dict(serve or {})
        self.hear = dict(hear or {})
        self.failures: list[Exception] = []
        self.started: dict[str, list[FakeInstance]] = {}

    async def start(self, spec: PluginSpec, services: HostServices) -> FakeInstance:
        if self.failures:
            raise self.failures.pop(0)
        serve, hear = self.serve.get(spec.name, {}), self.hear.get(spec.name)
        instance = FakeInstance(spec.id, services, serve, hear)
        self.started.setdefault(spec.name, []).append(instance)
        return instance

    async def aclose(self) -> None:
        self.started.clear()
