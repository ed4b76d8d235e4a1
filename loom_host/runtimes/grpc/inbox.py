"""What a child says over its Session: sorted by what it belongs to, held to the rules."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from loom_sdk import wire
from loom_sdk._proto import plugin_pb2 as pb
from loom_sdk.errors import PluginError, QuotaExceeded
from loom_sdk.frames import MAX_MESSAGE, WINDOW, Assembly, Key, key_of, owner, split
from loom_sdk.outbox import Outbox

from .asks import Asks
from .host_calls import Client
from .pending import LinkLost, Pending
from .translate import output_exceeded

FRAME_SLACK = 65_536
"""What an answer may hold beside the output that the quota counts, in bytes."""
ASKS_HELD = 64 * 1024**2
"""Bytes of host calls of one child that may wait for their rest."""


class Inbox:
    """Takes the messages of one stream. What makes no sense is counted and changes nothing.

    Args:
        output_bytes: the quota that bounds one answer.
    """

    def __init__(self, client: Client, outbox: Outbox, asks: Asks, output_bytes: int) -> None:
        self._client, self._outbox, self._asks = client, outbox, asks
        self._limit = output_bytes
        self._assembly = Assembly(outbox.grant)
        self.pending: dict[Key, Pending] = {}
        self._answers: dict[str, asyncio.Future[Any]] = {}
        self._lost: LinkLost | None = None
        self.ignored = 0
        """Frames for what is not in flight."""
        self.malformed = 0
        """Frames and messages against the rules."""
        self._kinds: dict[str | None, Callable[[Any], None]] = {
            "result": self._on_result,
            "ack": self._on_ack,
            "call": self._on_call,
            "chunk": self._on_chunk,
            "cancel": self._on_cancel,
            "credit": lambda frame: outbox.credit(key_of(frame.credit), frame.credit.frames),
            "init": lambda frame: self._on_answer("init", frame.init),
            "health": lambda frame: self._on_answer("health", frame.health),
            "shutdown": lambda frame: self._on_answer("shutdown", frame.shutdown),
            None: self._on_nothing,
        }

    def begin(self, key: Key) -> Pending:
        """Expect the answer to a call or event. Raises LinkLost."""
        if self._lost is not None:
            raise self._lost
        pending = self.pending[key] = Pending(key)
        return pending

    def expect(self, kind: str) -> tuple[asyncio.Future[Any], bool]:
        """The future answer to `init`, `health` or `shutdown`, and whether it is to be asked.

        One that was asked before and is not answered is not asked again.
        """
        answer = self._answers.get(kind)
        if answer is not None:
            return answer, False
        answer = asyncio.get_running_loop().create_future()
        if self._lost is not None:
            _spoil(answer, self._lost)
        else:
            self._answers[kind] = answer
        return answer, True

    def lose(self, lost: LinkLost) -> None:
        """Nothing more will come."""
        self._lost = lost
        for pending in self.pending.values():
            pending.fail(lost)
            pending.end()
        for answer in self._answers.values():
            _spoil(answer, lost)
        self._answers.clear()

    def message(self, message: bytes) -> None:
        try:
            frames = list(split(pb.PluginFrame, message))
        except DecodeError:
            self._unreadable()
            return
        if len(message) > MAX_MESSAGE:
            what = f"sent a message of {len(message)} bytes, at most {MAX_MESSAGE} are allowed"
            for frame in frames:
                self._wrong(owner(frame), what)
            return
        for frame in frames:
            self._kinds.get(frame.WhichOneof("frame"), self._on_nothing)(frame)

    # -- by kind of frame

    def _on_result(self, frame: Any) -> None:
        message = frame.result
        pending = self.pending.get(message.call_id)
        if pending is None:
            self.ignored += 1
            return
        pending.size += wire.size_of(message)
        if pending.size > self._limit:
            pending.fail(output_exceeded(self._client.plugin_id, self._limit, pending.size))
        if not message.item:
            self._settle(pending, message)
        elif pending.given_up:
            self._outbox.grant(pending.key, 1)
        elif not pending.window.received():
            self._wrong(pending.key, f"sent more than {WINDOW} items that nobody had taken yet")
        elif pending.size <= self._limit:
            pending.push(message)

    def _on_ack(self, frame: Any) -> None:
        pending = self.pending.get(-frame.ack.seq)
        if pending is None:
            self.ignored += 1
        else:
            self._settle(pending, frame.ack.response)

    def _settle(self, pending: Pending, message: Any) -> None:
        """The child's last word on it."""
        del self.pending[pending.key]
        self._assembly.drop(pending.key)
        if pending.size <= self._limit:
            pending.push(message)
        pending.end()

    def _on_call(self, frame: Any) -> None:
        if not self._asks.take(frame.call):
            self.malformed += 1

    def _on_cancel(self, frame: Any) -> None:
        key = key_of(frame.cancel)
        self._assembly.drop(key)
        self._asks.cancel(key)

    def _on_answer(self, kind: str, message: Any) -> None:
        answer = self._answers.pop(kind, None)
        if answer is None:
            self.ignored += 1
        elif not answer.done():
            answer.set_result(message)

    def _on_nothing(self, frame: Any) -> None:
        self.malformed += 1

    def _on_chunk(self, frame: Any) -> None:
        key = key_of(frame.chunk)
        if not self._may_hold(key, len(frame.chunk.data)):
            return
        whole = self._assembly.add(frame.chunk, key)
        if whole is None:
            return
        try:
            inner = pb.PluginFrame.FromString(whole)
        except DecodeError:
            self._wrong(key, "sent chunks that are no frame")
            return
        kind = inner.WhichOneof("frame")
        if owner(inner) != key or kind == "chunk":
            self._wrong(key, "sent chunks of a frame that belongs to something else")
        else:
            self._kinds.get(kind, self._on_nothing)(inner)

    def _may_hold(self, key: Key, more: int) -> bool:
        """Whether a chunk belongs to something in flight and is within its limit."""
        held = self._assembly.size(key) + more
        if isinstance(key, int) and key > 0:  # a host call
            if self._assembly.held + more <= ASKS_HELD:
                return True
            self._asks.refuse(key, self._held_too_much(self._assembly.held + more))
            self._assembly.drop(key)
            return False
        pending = self.pending.get(key)
        size = pending.size if pending is not None else 0
        if pending is None and not (key == 0 and "init" in self._answers):
            self.ignored += 1
            return False
        if size + held <= self._limit + FRAME_SLACK:
            return True
        if pending is not None:
            pending.fail(output_exceeded(self._client.plugin_id, self._limit, size + held))
        return False

    # -- what the child does wrong

    def _unreadable(self) -> None:
        """It belongs to nothing that can be read, so to the one thing in flight, if it is one."""
        self.malformed += 1
        what = "sent a message that cannot be read"
        self._client.services.log("warning", f"the plugin {what}", {}, "")
        waiting = [pending for pending in self.pending.values() if not pending.given_up]
        if len(waiting) == 1:
            waiting[0].fail(self._against(what))

    def _wrong(self, key: Key, what: str) -> None:
        """Ends what the frame belongs to, and nothing else."""
        self.malformed += 1
        if (pending := self.pending.get(key)) is not None:
            pending.fail(self._against(what))
        elif isinstance(key, int) and key > 0:
            self._asks.refuse(key, self._against(what))

    def _against(self, what: str) -> PluginError:
        plugin_id = self._client.plugin_id
        return PluginError(
            f"{plugin_id} {what}: correct how it speaks Session, see plugin.proto",
            plugin_id=plugin_id,
        )

    def _held_too_much(self, size: int) -> QuotaExceeded:
        plugin_id = self._client.plugin_id
        return QuotaExceeded(
            f"{plugin_id}: host calls of {size} bytes wait for their rest, {ASKS_HELD} may",
            plugin_id=plugin_id,
            quota="host_calls",
            limit=ASKS_HELD,
            used=size,
        )


def _spoil(answer: asyncio.Future[Any], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # nobody may be waiting
