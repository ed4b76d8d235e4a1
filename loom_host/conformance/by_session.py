"""Speaks Session of plugin.proto with a child by hand, and takes nothing before it must."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from loom_host.runtimes.grpc.asks import Asks
from loom_host.runtimes.grpc.handshake import NO_SESSION
from loom_host.runtimes.grpc.init import init_request
from loom_sdk import Call, wire
from loom_sdk._proto import plugin_pb2 as pb
from loom_sdk.frames import MAX_MESSAGE, WINDOW, Assembly, key_of
from loom_sdk.outbox import Outbox
from loom_sdk.writer import Writer

from .by_hand import ANSWER_S, Hand
from .kit import Fault
from .plan import Example

QUIET_S = 0.2
"""A child that spent its credit and then sends nothing for so long waits for more."""


async def admitted_to_session(hand: Hand, metadata: Any) -> Any:
    """What a caller with this metadata is answered; None where there is no Session at all.

    Raises:
        grpc.aio.AioRpcError: the refusal.
    """
    rpc = hand.stub.Session(metadata=metadata, timeout=ANSWER_S)
    try:
        with suppress(asyncio.InvalidStateError):  # it is refused already: reading tells how
            await rpc.write(pb.HostFrame(init=init_request(hand.spec)))
        return await rpc.read()
    except grpc.aio.AioRpcError as error:
        if error.code() in NO_SESSION:
            return None
        raise
    finally:
        rpc.cancel()


@asynccontextmanager
async def session(hand: Hand) -> AsyncIterator[SlowTaker | None]:
    """A Session after Init; None where the child has none.

    Raises:
        Fault: it does not answer Init.
        grpc.aio.AioRpcError: it breaks off.
    """
    taker = SlowTaker(hand)
    try:
        try:
            await taker.init()
        except grpc.aio.AioRpcError as error:
            if error.code() not in NO_SESSION:
                raise
            yield None
            return
        yield taker
    finally:
        await asyncio.shield(taker.aclose())


class SlowTaker:
    """The host's side of one Session. Its consumers of answers give no credit before a child has
    spent all that it began with."""

    def __init__(self, hand: Hand) -> None:
        self._hand = hand
        self._rpc = hand.stub.Session(metadata=hand.metadata)
        self._outbox = Outbox(pb.HostFrame)
        self._asks = Asks(hand.spawned.client, self._outbox)
        self._assembly = Assembly(self._outbox.grant)
        """Of all but answers."""
        self._writer = Writer(self._outbox, self._write, lambda: False)
        self._came: asyncio.Queue[Any] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read())

    async def init(self) -> None:
        """Raises as `session`."""
        request = pb.HostFrame(init=init_request(self._hand.spec))
        self._outbox.end(0, request.SerializeToString())
        try:
            while (await self._next(ANSWER_S)).WhichOneof("frame") != "init":
                pass
        except TimeoutError as error:
            raise Fault("its Session does not answer Init") from error

    async def messages(self, example: Example) -> list[Any]:
        """All that the child sends for one call, until its end.

        Raises:
            Fault: it breaks a rule of Session.
            TimeoutError: the end does not come in time.
            grpc.aio.AioRpcError: the stream breaks off.
        """
        call = Call(
            example.spec.name, dict(example.arguments), example.payload, example.content_type
        )
        flights, frame = (
            self._hand.spawned.client.flights,
            pb.HostFrame(call=wire.call_to_proto(call)),
        )
        flights.enter(call.id)
        try:
            self._outbox.end(call.id, frame.SerializeToString())
            async with asyncio.timeout(ANSWER_S):
                return await self._answer(call.id)
        finally:
            flights.leave(call.id)

    async def _answer(self, call_id: str) -> list[Any]:
        found, parts, spent = list[Any](), bytearray(), 0
        while not found or found[-1].item:
            try:
                frame = await self._next(QUIET_S if spent >= WINDOW else None)
            except TimeoutError:  # it waits, as it must
                self._outbox.grant(call_id, spent)
                spent = 0
                continue
            kind = frame.WhichOneof("frame")
            if kind == "chunk" and frame.chunk.call_id == call_id:
                spent += 1
                parts += frame.chunk.data
                if frame.chunk.last:
                    found.append(_joined(bytes(parts)).result)
                    parts.clear()
            elif kind == "result" and frame.result.call_id == call_id:
                spent += frame.result.item
                found.append(frame.result)
            if spent > WINDOW:
                raise Fault(
                    f"in its Session it sends more than {WINDOW} items and chunks of one answer "
                    "that nobody took: no more may go out before `credit` comes"
                )
        return found

    async def aclose(self) -> None:
        self._rpc.cancel()
        self._writer.aclose()
        await self._asks.aclose()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _write(self, message: bytes) -> None:
        await self._rpc.write(pb.HostFrame.FromString(message))

    async def _next(self, limit_s: float | None) -> Any:
        async with asyncio.timeout(limit_s):
            came = await self._came.get()
        if isinstance(came, Exception):
            self._came.put_nowait(came)
            raise came
        return came

    async def _read(self) -> None:
        try:
            while (message := await self._rpc.read()) is not grpc.aio.EOF:
                self._take(message)
            self._came.put_nowait(Fault("it ends its Session by itself"))
        except (Fault, grpc.aio.AioRpcError) as end:
            self._came.put_nowait(end)

    def _take(self, message: Any) -> None:
        if (size := message.ByteSize()) > MAX_MESSAGE:
            raise Fault(
                f"in its Session it sends a message of {size} bytes: at most {MAX_MESSAGE} may be, "
                "what is larger goes in chunks"
            )
        for frame in (message, *message.batch):
            self._sort(frame)

    def _sort(self, frame: Any) -> None:
        kind = frame.WhichOneof("frame")
        if kind == "call":
            self._asks.take(frame.call)
        elif kind == "credit":
            self._outbox.credit(key_of(frame.credit), frame.credit.frames)
        elif kind == "cancel":
            self._asks.cancel(key_of(frame.cancel))
        elif kind == "chunk" and not frame.chunk.call_id:
            whole = self._assembly.add(frame.chunk, key_of(frame.chunk))
            if whole is not None:
                self._sort(_joined(whole))
        else:
            self._came.put_nowait(frame)


def _joined(data: bytes) -> Any:
    """The frame that was sent in chunks. Raises Fault where it is none."""
    try:
        frame = pb.PluginFrame.FromString(data)
    except DecodeError as error:
        raise Fault("in its Session it sends chunks that are no frame when joined") from error
    if frame.WhichOneof("frame") in ("chunk", None):
        raise Fault("in its Session it sends chunks that are no frame when joined")
    return frame
