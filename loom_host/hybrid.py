"""Two passes of one call at once: a local one that is quick, one in the cloud that is better.

Only for calls that may run twice. The caller gets the refined answer if it comes within the budget,
else the quick one; what is late goes on, and both are announced when they end. Where one fails the
other's answer is the call's. A stream is that of the quick pass; the refined answer is announced
only, since items that were delivered cannot be taken back; it becomes the stream's where the quick
pass fails before its first item.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from loom_sdk import Result
from loom_sdk.errors import LoomError

from .announce import Announcer
from .dispatch import Request
from .failover import Again, Failover
from .registry import Offer

Pass = asyncio.Task[Result]


class Hybrid:
    """Runs both passes, and keeps those whose caller has its answer already."""

    def __init__(self, failover: Failover, announce: Announcer) -> None:
        self._failover = failover
        self._announce = announce
        self._running: set[Pass] = set()

    async def serve(
        self,
        request: Request,
        offers: Sequence[Offer],
        checked: Offer,
        budget_s: float,
        again: Again,
    ) -> Result:
        """The answer that the caller gets. Raises the error of the pass that failed last."""
        better = replace(request, on_item=None, items=[])
        quick = self._start("quick", request, _at(offers, "local"), checked, again)
        refine = self._start("refine", better, _at(offers, "cloud"), checked, again)
        for task in (quick, refine):
            task.add_done_callback(lambda _: self._judge(offers, request, quick, better, refine))
        try:
            if request.on_item is not None:
                return await self._streamed(request, quick, refine)
            await asyncio.wait({refine}, timeout=budget_s)
            return await _first_good(refine, quick)
        except asyncio.CancelledError:
            quick.cancel()
            refine.cancel()
            await asyncio.wait({quick, refine})
            raise

    async def _streamed(self, request: Request, quick: Pass, refine: Pass) -> Result:
        await asyncio.wait({quick})
        if quick.exception() is None or request.delivered:
            return quick.result()
        result = await asyncio.shield(refine)
        for item in result.items:
            await request.deliver(item)
        return result

    def _start(
        self, phase: str, request: Request, offers: list[Offer], checked: Offer, again: Again
    ) -> Pass:
        side = offers[0].handle.placement

        async def same_side(request: Request) -> list[Offer]:
            found = await again(request)
            return _at(found, side) or list(found)

        async def run() -> Result:
            try:
                result = await self._failover.run(request, offers, checked, same_side, standby=True)
            except LoomError as error:
                self._announce.phase(request, phase, error)
                raise
            self._announce.phase(request, phase, result)
            return result

        task = asyncio.create_task(run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def _judge(
        self, offers: Sequence[Offer], first: Request, quick: Pass, second: Request, refine: Pass
    ) -> None:
        """Once both have ended: whoever failed a call that the other pass answered is at fault."""
        if not (quick.done() and refine.done()):
            return
        handles = {offer.handle.name: offer.handle for offer in offers}
        for request, failed, good in ((first, quick, refine), (second, refine, quick)):
            error = None if failed.cancelled() else failed.exception()
            if not (isinstance(error, LoomError) and _good(good)):
                continue
            answered = good.result().provider
            failures = _at(offers, "local" if failed is quick else "cloud")
            if answered in handles:
                self._announce.switched(request, failures[-1].handle, handles[answered], error)
            self._failover.blame(request, answered)

    async def aclose(self) -> None:
        """Break off what nobody waits for any more."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


def _at(offers: Sequence[Offer], placement: str) -> list[Offer]:
    return [offer for offer in offers if offer.handle.placement == placement]


def _good(task: Pass) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


async def _first_good(*passes: Pass) -> Result:
    """The answer of the first that has one, in this order; the last error where none has."""
    while True:
        for task in passes:
            if _good(task):
                return task.result()
        running = {task for task in passes if not task.done()}
        if not running:
            return passes[0].result()
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
