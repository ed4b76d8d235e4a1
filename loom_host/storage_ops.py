"""What the control socket tells and does about storage: sizes, checkpoints, the log, recording."""

from __future__ import annotations

import asyncio
import base64
import time
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

from loom_sdk import Event
from loom_sdk.errors import InvalidArguments, StorageError

from .bus.tap import Tap
from .host import Host
from .storage import RocksStore
from .storage.backup import new_checkpoint
from .storage.record import plain_event
from .storage.sizes import sizes

BEHIND_MAX = 65_536
"""Events that wait for a slow reader of a recording; more are left out, and it is told so."""
STEP = 100
"""Events of the log between two turns for others."""


async def answers(host: Host, request: dict[str, Any]) -> AsyncGenerator[Any, None]:
    """The answers to an operation `storage.*`. Raises InvalidArguments or StorageError."""
    op = request["op"]
    if op == "storage.stats":
        yield await stats(host)
    elif op == "storage.checkpoint":
        yield await checkpoint(host)
    elif op == "storage.log":
        async for row in logged(host, request):
            yield row
    elif op == "storage.record":
        async for row in recorded(host, request):
            yield row
    else:
        raise InvalidArguments(f"the host knows no operation {op!r}")


async def stats(host: Host) -> dict[str, Any]:
    """As `sizes`, of a running host."""
    await host.event_log.drained()
    folder = host.store.folder if isinstance(host.store, RocksStore) else None
    found: dict[str, Any] = {}
    for step in sizes(host.store, folder):
        await asyncio.sleep(0)
        found = step or found
    return found | {"lost": host.event_log.lost}


async def checkpoint(host: Host) -> dict[str, Any]:
    """A consistent copy beside the store; whoever asked for it removes it."""
    store = host.store
    if not isinstance(store, RocksStore):
        raise StorageError("this host keeps its store in memory: there is nothing to back up")
    await host.event_log.drained()
    folder = new_checkpoint(store.folder.parent)
    await asyncio.to_thread(store.checkpoint, folder)
    return {"folder": str(folder)}


async def logged(host: Host, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
    """Events of the log, in order of logging, whole."""
    await host.event_log.drained()
    found = host.event_log.read(
        request.get("pattern", ">"),
        int(request.get("since_ms", 0)),
        int(request.get("until_ms", 0)),
    )
    for number, entry in enumerate(found, 1):
        position = base64.b16encode(entry.position).decode()
        event = plain_event(entry.event)
        yield {"logged_ms": entry.time_ms, "position": position, "event": event}
        if not number % STEP:
            await asyncio.sleep(0)


async def recorded(host: Host, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
    """What is published from now on, until the client leaves; the first row tells the time."""
    waiting: deque[tuple[float, Event]] = deque()
    come, lost = asyncio.Event(), 0

    def hear(event: Event) -> None:
        nonlocal lost
        if len(waiting) < BEHIND_MAX:
            waiting.append((time.monotonic(), event))
        else:
            lost += 1
        come.set()

    tap = Tap(host.bus, request.get("topics", [">"]), "record", hear)
    began = time.monotonic()
    try:
        yield {"started_ms": time.time_ns() // 1_000_000}
        while await come.wait():
            come.clear()
            while waiting:
                at, event = waiting.popleft()
                after_ms = max(at - began, 0.0) * 1000
                yield {"after_ms": after_ms, "event": plain_event(event)}
            if lost:
                yield {"lost": lost}
                lost = 0
    finally:
        tap.close()
