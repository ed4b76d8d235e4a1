"""The plugin under test in one tier: its host, its calls, what it answered."""

from __future__ import annotations

import asyncio
import tempfile
from collections import deque
from collections.abc import Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loom_host.grants import Refusal
from loom_host.handle import PluginHandle
from loom_host.host import Host
from loom_sdk import Result
from loom_sdk.errors import LoomError, told

from .comparison import difference
from .kit import Fault, Skip
from .plan import Example, Plan
from .process_state import ProcessState
from .world import make_host


@dataclass(frozen=True, slots=True)
class Answered:
    """One call of one example."""

    number: int
    """Of the example in the plan."""
    example: Example
    output: Any = None
    error: LoomError | None = None

    def differs(self) -> str:
        """How the answer is not what the example says; empty where it is."""
        if self.error is not None:
            return f"{type(self.error).__name__}: {told(self.error)}"
        return difference(self.example.output, self.output)


BUILD_S = 180.0
"""For a guest's source to be built and compiled before its first start."""
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
        self.held: set[int] = set()
        """Numbers of the examples that were right when they were asked last."""
        self.steady: set[int] = set()
        """Numbers of the examples that were answered alike when they were asked again."""
        self.refusals: list[Refusal] = []
        """What hosts that have stopped denied the plugin."""
        self._first: list[Answered] = []
        self.before = ProcessState.now()
        """This process before the plugin came into it."""
        self._place = tempfile.TemporaryDirectory(prefix="loom-conform-")
        self._host: Host | None = None
        self._stack = AsyncExitStack()
        self._why_not = ""

    async def __aenter__(self) -> Subject:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        if self.tier == "native":
            self.before.restore()
        self._place.cleanup()

    @property
    def place(self) -> Path:
        """Where its hosts keep everything."""
        return Path(self._place.name)

    async def start(self) -> None:
        """Start the plugin in a host. Raises Fault where it does not become ready in time."""
        host = make_host(self.plan, self.tier, self.place)
        limit_s = self.plan.start_s + (BUILD_S if self.tier == "wasm" else 0)
        try:
            async with asyncio.timeout(limit_s):
                await self._stack.enter_async_context(host)
                await host.settled()
            handle = host.plugins[self.plan.manifest.name]
            if not handle.serves:
                raise Fault(handle.explain())
        except (Fault, LoomError, TimeoutError) as error:
            late = f"it was not ready within {limit_s:g} s"
            self._why_not = late if isinstance(error, TimeoutError) else str(error)
            await self._stack.aclose()
            raise Fault(self._why_not) from error
        self._host = host

    async def stop(self) -> None:
        """Stop the host, if any runs."""
        host, self._host = self._host, None
        await self._stack.aclose()
        if host is not None:
            self.refusals.extend(host.audit.refusals)

    def denied(self) -> list[Refusal]:
        """All that was denied it so far, by every host."""
        return [*self.refusals, *(self._host.audit.refusals if self._host is not None else ())]

    def forgive(self, known: Collection[Refusal], kinds: Collection[str]) -> None:
        """Forget what of these kinds was denied since `known` was all."""
        places: list[list[Refusal] | deque[Refusal]] = [
            self.refusals,
            *([self._host.audit.refusals] if self._host is not None else ()),
        ]
        for place in places:
            kept = [one for one in place if one.kind not in kinds or one in known]
            place.clear()
            place.extend(kept)

    async def first(self) -> list[Answered]:
        """What came of each example that is not slow, called once. Raises Skip without any."""
        if not self._first:
            quick = [(n, one) for n, one in enumerate(self.plan.examples) if not one.slow]
            if not quick:
                raise Skip("it has no examples to call")
            self._first = [await self.ask(number, example) for number, example in quick]
            self.answers = {one.number: one.output for one in self._first if one.error is None}
        return self._first

    async def ask(self, number: int, example: Example) -> Answered:
        """Call it, within the plugin's own deadline, and keep the answer or the error."""
        try:
            found = Answered(number, example, (await self.call(example)).output)
        except LoomError as error:
            found = Answered(number, example, None, error)
        (self.held.discard if found.differs() else self.held.add)(number)
        return found

    async def host(self) -> Host:
        """The running host, in which the plugin serves. Raises Skip where it cannot be had."""
        self.must_have_started()
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

    def must_have_started(self) -> None:
        """Raises Skip where its last start failed."""
        if self._why_not:
            raise Skip("it did not start: see lifecycle.start")

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
        return await host.invoke(
            example.spec.name,
            example.arguments,
            payload=example.payload,
            content_type=example.content_type,
            timeout_ms=timeout_ms,
        )
