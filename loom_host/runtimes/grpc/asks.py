"""The host calls of one Session: served at once, bounded in number and size, each cancellable."""

from __future__ import annotations

import asyncio
from typing import Any

from loom_sdk._proto import plugin_pb2 as pb
from loom_sdk.errors import QuotaExceeded
from loom_sdk.frames import MAX_ASKS, Key
from loom_sdk.outbox import Outbox
from loom_sdk.status import error_to_proto
from loom_sdk.wire import span_from_proto

from . import host_calls
from .host_calls import METHODS, Client

BACKLOG = 4 * MAX_ASKS
"""Answers in work or unwritten beyond which nothing more is read; nobody honest gets there."""


class Asks:
    """What a child asked over its Session and the host has not answered."""

    def __init__(self, client: Client, outbox: Outbox) -> None:
        self._client, self._outbox = client, outbox
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def take(self, request: Any) -> bool:
        """Begin to serve a HostCall; False for one that makes no sense."""
        method, seq = request.WhichOneof("request"), int(request.seq)
        if method == "log":
            log, services = request.log, self._client.services
            services.log(log.level, log.message, dict(log.attributes), log.call_id)
            return True
        if method == "span":
            self._client.services.span(span_from_proto(request.span), request.span.call_id)
            return True
        if not method or not seq or seq in self._tasks:
            return False
        if len(self._tasks) >= MAX_ASKS:
            self.refuse(seq, self._too_many())
            return True
        task = asyncio.create_task(self._serve(seq, method, getattr(request, method)))
        self._tasks[seq] = task
        task.add_done_callback(lambda _: self._tasks.pop(seq, None))
        return True

    def cancel(self, seq: Key) -> None:
        """The child does not wait any more."""
        if isinstance(seq, int) and (task := self._tasks.get(seq)) is not None:
            task.cancel()
            self._outbox.drop(seq)

    def refuse(self, seq: int, error: Exception) -> None:
        self._reply(seq, error=error_to_proto(error))

    @property
    def overrun(self) -> bool:
        """Whether the child asks without taking the answers."""
        return len(self._tasks) + len(self._outbox) > BACKLOG

    async def aclose(self) -> None:
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, seq: int, method: str, request: Any) -> None:
        try:
            if method == "invoke":
                await self._invoke(seq, request)
                return
            serve, field = METHODS[method]
            self._reply(seq, **{field: await serve(self._client, request)})
        except Exception as error:  # also a bug of the host's: the child must not wait for ever
            self.refuse(seq, error)

    async def _invoke(self, seq: int, request: Any) -> None:
        async for message in host_calls.invoke(self._client, request):
            if not message.item:
                self._reply(seq, invoke=message)
                return
            await self._outbox.room(seq)
            frame = pb.HostFrame(reply=pb.HostReply(seq=seq, invoke=message))
            self._outbox.put(seq, frame.SerializeToString(), counted=True)

    def _reply(self, seq: int, **fields: Any) -> None:
        frame = pb.HostFrame(reply=pb.HostReply(seq=seq, **fields))
        self._outbox.end(seq, frame.SerializeToString())

    def _too_many(self) -> QuotaExceeded:
        plugin_id = self._client.plugin_id
        return QuotaExceeded(
            f"{plugin_id}: {MAX_ASKS} host calls wait for an answer already: take those first",
            plugin_id=plugin_id,
            quota="host_calls",
            limit=MAX_ASKS,
            used=MAX_ASKS + 1,
        )
