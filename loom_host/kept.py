"""Results kept by (caller, id), so that a call that is asked for twice happens once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from loom_sdk import Result
from loom_sdk.errors import DeadlineExceeded, InvalidArguments

from .dispatch import Request
from .privacy import DEFAULT, PUBLIC

KEPT_RESULTS = 1024

Serve = Callable[[Request], Coroutine[Any, Any, Result]]


@dataclass(slots=True)
class _Kept:
    asked: tuple[str, Mapping[str, Any], bytes]
    """Capability, arguments and payload."""
    task: asyncio.Task[Result]
    level: int = PUBLIC
    """Of privacy, of what came of it."""
    waiting: int = 0
    """Callers that still want it."""

    def note(self, request: Request) -> None:
        self.level = max(request.level, request.reached)


class KeptResults:
    """The same id while its call runs joins it, after success gets its result again.

    Errors are not kept. A call goes on until the last one who joined it gives up.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()

    async def once(self, request: Request, serve: Serve) -> Result:
        """Serve `request`, which has an id, or give what became of it before.

        Raises:
            InvalidArguments: the id was used with other arguments.
            DeadlineExceeded: the joined call goes on for longer than this caller waits.
        """
        key = (request.caller, request.id)
        asked = (request.capability, request.arguments, request.payload)
        kept = self._kept.get(key)
        patience: float | None = request.timeout_ms / 1000
        if kept is None:
            task = asyncio.create_task(serve(request))
            kept = self._kept[key] = _Kept(deepcopy(asked), task)
            task.add_done_callback(lambda _, kept=kept: kept.note(request))  # type: ignore[misc]
            patience = None  # it has its own deadline
        elif kept.asked != asked:
            raise InvalidArguments(
                f"id {request.id!r} was already used by {request.caller} with other arguments: "
                "draw a new id"
            )
        self._kept.move_to_end(key)
        kept.waiting += 1
        try:
            await asyncio.wait({kept.task}, timeout=patience)
        finally:
            kept.waiting -= 1
            await self._let_go(key, kept)
        if not kept.task.done():
            late = f"{request.capability} did not end within {request.timeout_ms} ms"
            raise DeadlineExceeded(f"{late}: the call joined by id {request.id!r} goes on")
        result = kept.task.result()
        if request.parent is not None and kept.level > DEFAULT:
            request.parent.rise(kept.level)
        return deepcopy(result)  # each caller may change what it gets

    async def _let_go(self, key: tuple[str, str], kept: _Kept) -> None:
        """Stop a call that nobody waits for, and forget one that failed."""
        task = kept.task
        if not kept.waiting and not task.done():
            task.cancel()
            await asyncio.wait({task})
        if task.done() and (task.cancelled() or task.exception()):
            if self._kept.get(key) is kept:
                del self._kept[key]
        elif task.done():
            self._forget()

    def _forget(self) -> None:
        """Drop the oldest results beyond the limit, never a call that runs."""
        spare = len(self._kept) - KEPT_RESULTS
        done = (key for key, kept in self._kept.items() if kept.task.done())
        for key in [key for key, _ in zip(done, range(spare), strict=False)]:
            del self._kept[key]
