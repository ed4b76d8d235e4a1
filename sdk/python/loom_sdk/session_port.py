"""The host over a Session: the plugin's own calls as frames of the one stream."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from itertools import count
from typing import Any

from ._proto import plugin_pb2 as pb
from .errors import PluginUnhealthy
from .frames import MAX_ASKS, MAX_MESSAGE, Window
from .outbox import Outbox
from .ports import MAX_RECORDS, RemotePort
from .running import Running
from .status import error_from_proto

FIELDS = {
    "Publish": ("publish", "publish"),
    "Invoke": ("invoke", "invoke"),
    "Emit": ("emit", "empty"),
    "KvGet": ("kv_get", "kv"),
    "KvPut": ("kv_put", "kv"),
    "KvDelete": ("kv_delete", "kv"),
    "KvList": ("kv_list", "kv"),
    "HttpRequest": ("http_request", "http"),
    "Log": ("log", "empty"),
    "Span": ("span", "empty"),
    "GetSecret": ("get_secret", "secret"),
}
"""Method of `service Host` to its field in HostCall and that of its answer in HostReply."""
LONGEST_RECORD = MAX_MESSAGE // 2
"""Bytes of a log line or span; a longer one loses its attributes and its end."""


class _Replies:
    """What the host answered to one HostCall and nobody took yet."""

    def __init__(self) -> None:
        self.window = Window()
        self._waiting: deque[Any] = deque()
        self._reader: asyncio.Future[None] | None = None

    def push(self, reply: Any) -> None:
        self._waiting.append(reply)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def next(self) -> Any:
        while not self._waiting:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        reply = self._waiting.popleft()
        if reply.HasField("error"):
            raise error_from_proto(reply.error)
        return reply


class SessionPort(RemotePort):
    """By `HostCall` frames, answered by `HostReply` frames."""

    def __init__(self, outbox: Outbox, running: Mapping[str, Running]) -> None:
        super().__init__(running)
        self._outbox = outbox
        self._numbers = count(1)
        self._asked: dict[int, _Replies] = {}
        self._places = asyncio.Semaphore(MAX_ASKS)
        self._lost = False

    def take(self, reply: Any) -> None:
        """A reply that came; one to a call that was given up is ignored."""
        asked = self._asked.get(reply.seq)
        if asked is not None:
            asked.push(reply)

    def lose(self) -> None:
        """The stream is over: whoever waits for a reply is told."""
        self._lost = True
        error = pb.ActionError(code="PLUGIN_UNHEALTHY", message="the host ended the Session")
        for seq, asked in self._asked.items():
            asked.push(pb.HostReply(seq=seq, error=error))

    def _send(self, method: str, request: Any) -> tuple[int, _Replies]:
        if self._lost:
            raise PluginUnhealthy("the host ended the Session")
        seq = next(self._numbers)
        replies = self._asked[seq] = _Replies()
        call = pb.HostCall(seq=seq, **{FIELDS[method][0]: request})
        self._outbox.end(seq, pb.PluginFrame(call=call).SerializeToString())
        return seq, replies

    def _give_up(self, seq: int) -> None:
        """Nobody waits for the answer any more."""
        del self._asked[seq]
        self._outbox.drop(seq)
        self._outbox.control(
            pb.PluginFrame(cancel=pb.CancelFrame(seq=seq, reason="given up")).SerializeToString()
        )

    async def _ask(self, method: str, request: Any) -> Any:
        async with self._places:
            seq, replies = self._send(method, request)
            try:
                reply = await replies.next()
            except asyncio.CancelledError:
                self._give_up(seq)
                raise
            except BaseException:
                del self._asked[seq]
                raise
            del self._asked[seq]
            return getattr(reply, FIELDS[method][1])

    async def _messages(self, request: Any) -> AsyncGenerator[Any, None]:
        async with self._places:
            seq, replies = self._send("Invoke", request)
            over = False
            try:
                while not over:
                    try:
                        message = (await replies.next()).invoke
                    except Exception:
                        over = True
                        raise
                    over = not message.item
                    if message.item and (credit := replies.window.take()):
                        self._outbox.grant(seq, credit)
                    yield message
            finally:
                if over:
                    del self._asked[seq]
                else:
                    self._give_up(seq)

    def _post(self, method: str, message: Any) -> None:
        running = self._running.get(message.call_id)
        key = running.key if running is not None else 0
        if self._outbox.waiting(key) >= MAX_RECORDS:
            self._dropped += 1
            return
        if self._dropped:
            self._put_record(key, "Log", self._tell_dropped())
        self._put_record(key, method, message)

    def _put_record(self, key: Any, method: str, message: Any) -> None:
        """In the lane of its call, so that it precedes the result."""
        if message.ByteSize() > LONGEST_RECORD:
            message = _shortened(message)
        call = pb.HostCall(seq=next(self._numbers), **{FIELDS[method][0]: message})
        self._outbox.put(key, pb.PluginFrame(call=call).SerializeToString())


def _shortened(message: Any) -> Any:
    message.attributes.clear()
    field = "message" if isinstance(message, pb.LogRecord) else "name"
    setattr(message, field, getattr(message, field)[: LONGEST_RECORD // 4])
    return message
