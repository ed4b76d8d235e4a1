"""A child's side of a Session: one stream with the calls, events and host calls of a plugin."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from google.protobuf.message import DecodeError

from . import wire
from ._proto import plugin_pb2 as pb
from .errors import DeadlineExceeded, PluginError
from .frames import Assembly, Key, key_of, owner, split
from .outbox import Outbox
from .running import Running
from .session_port import SessionPort
from .work import Work
from .writer import Writer


class PluginSession:
    """Serves one stream until it ends.

    Args:
        stop: runs the plugin's end for that many seconds; the answer is the failure or None.
        stopped: called once the answer to `shutdown` is written.
    """

    def __init__(
        self,
        work: Work,
        stop: Callable[[float], Awaitable[Exception | None]],
        stopped: Callable[[], None],
    ) -> None:
        self._work, self._stop, self._stopped = work, stop, stopped
        self._outbox = Outbox(pb.PluginFrame)
        self._assembly = Assembly(self._outbox.grant)
        self._port = SessionPort(self._outbox, work.running)
        self._serving: dict[Key, Running] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._kinds: dict[str | None, Callable[[Any], None]] = {
            "init": lambda frame: self._spawn(self._init(frame.init)),
            "event": lambda frame: self._event(frame.event),
            "call": lambda frame: self._call(frame.call),
            "cancel": lambda frame: self._cancel(frame.cancel),
            "reply": lambda frame: self._port.take(frame.reply),
            "health": lambda frame: self._health(),
            "shutdown": lambda frame: self._spawn(self._shutdown(frame.shutdown)),
            "chunk": lambda frame: self._chunk(frame.chunk),
            "credit": lambda frame: self._outbox.credit(key_of(frame.credit), frame.credit.frames),
        }

    async def serve(
        self,
        read: Callable[[], Awaitable[Any]],
        write: Callable[[bytes], Coroutine[Any, Any, None]],
        end: object,
    ) -> None:
        """Read messages until `end` comes, or until `aclose`."""
        writer = Writer(self._outbox, write, lambda: bool(self._serving))
        self._reader = asyncio.create_task(self._read(read, end))
        try:
            await asyncio.wait({self._reader})
            if not self._reader.cancelled():
                self._reader.result()
        except asyncio.CancelledError:  # the stream is over; gRPC would print it as an error
            self._reader.cancel()
        finally:
            self._port.lose()
            for running in tuple(self._serving.values()):
                running.cancel()
            writer.aclose()

    def aclose(self) -> None:
        """Let `serve` return."""
        if self._reader is not None:
            self._reader.cancel()

    async def _read(self, read: Callable[[], Awaitable[Any]], end: object) -> None:
        while (message := await read()) is not end:
            try:
                for frame in split(pb.HostFrame, message):
                    self._take(frame)
            except DecodeError:  # what it belongs to meets its deadline
                continue

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take(self, frame: Any) -> None:
        serve = self._kinds.get(frame.WhichOneof("frame"))
        if serve is not None:  # else a newer host's
            serve(frame)

    def _chunk(self, chunk: Any) -> None:
        key = key_of(chunk)
        whole = self._assembly.add(chunk, key)
        if whole is not None:
            frame = pb.HostFrame.FromString(whole)
            if owner(frame) == key:
                self._take(frame)

    async def _init(self, request: Any) -> None:
        response = await self._work.start(request, self._port)
        self._outbox.end(0, pb.PluginFrame(init=response).SerializeToString())

    def _call(self, request: Any) -> None:
        key, limit = request.id, self._work.quotas.get("output_bytes", 0)

        async def write(message: Any) -> None:
            await self._outbox.room(key)
            if not running.cancelled:
                frame = pb.PluginFrame(result=message)
                self._outbox.put(key, frame.SerializeToString(), counted=True)

        running = Running(key, limit, write, self._work.plugin_id, key)
        if self._work.driver is None:
            early = wire.failure_to_proto(key, PluginError("call Init first"))
            self._outbox.end(key, pb.PluginFrame(result=early).SerializeToString())
            return
        self._serving[key] = running
        self._work.call(request, running, partial(self._answer, key, "result"))

    def _event(self, frame: Any) -> None:
        key = -frame.seq
        running = Running(frame.event.id, key=key)
        if self._work.driver is not None:
            self._serving[key] = running
            self._work.event(frame.event, running, partial(self._answer, key, "ack"))

    def _answer(self, key: Key, kind: str, message: Any) -> None:
        running = self._serving.pop(key, None)
        if running is not None and running.cancelled:  # small: chunks of it may lie there
            message = _cancelled(key, kind)
        if kind == "ack":
            frame = pb.PluginFrame(ack=pb.AckFrame(seq=-int(key), response=message))
        else:
            frame = pb.PluginFrame(result=message)
        self._outbox.end(key, frame.SerializeToString())

    def _cancel(self, cancel: Any) -> None:
        key = key_of(cancel)
        running = self._serving.get(key)
        if running is not None:
            running.cancel()
            self._outbox.drop(key)
        elif self._assembly.drop(key):  # it had not come in whole: that was its end
            kind = "result" if isinstance(key, str) else "ack"
            self._answer(key, kind, _cancelled(key, kind))

    def _health(self) -> None:
        if self._work.driver is not None:
            self._outbox.control(pb.PluginFrame(health=self._work.health()).SerializeToString())

    async def _shutdown(self, request: Any) -> None:
        failure = await self._stop(request.grace_ms / 1000)
        response = wire.response_to_proto(failure, 0)
        self._outbox.control(pb.PluginFrame(shutdown=response).SerializeToString())
        await self._outbox.written()
        self._stopped()


def _cancelled(key: Key, kind: str) -> Any:
    error = DeadlineExceeded("the host cancelled this call")
    if kind == "ack":
        return wire.response_to_proto(error, 0)
    return wire.failure_to_proto(str(key), error)
