"""Speaks an answer while it is still being written: sentences in, `tts` events out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

from voice_agent_split import Splitter, speakable
from voice_agent_turn import Stage, Turn, unix_ms

from loom_sdk import AsyncContext, Item
from loom_sdk.errors import ActionFailed, LoomError, encode

TOPIC = "tts"


@asynccontextmanager
async def closing(stream: AsyncIterator[Item]) -> AsyncIterator[AsyncIterator[Item]]:
    """End the call when its consumer leaves early, not when memory is tidied."""
    try:
        yield stream
    finally:
        if aclose := getattr(stream, "aclose", None):
            await aclose()


async def stopped(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end; its failure is for whoever awaits it."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()


class Speaker:
    """One answer's speech. Synthesis runs beside the writing, one piece after the other."""

    def __init__(self, ctx: AsyncContext, turn: Turn, config: Mapping[str, Any]) -> None:
        self._ctx, self._turn, self._config = ctx, turn, config
        self._splitter = Splitter()
        self._pieces: asyncio.Queue[tuple[str, Stage] | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._chunks = self._bytes = self._sample_rate = self._spoken = self._inside_us = 0

    async def __aenter__(self) -> Speaker:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            await stopped(self._task)

    def feed(self, text: str) -> bool:
        """Takes a portion of the answer; True once the first piece is on its way."""
        for piece in self._splitter.feed(text):
            self._say(piece)
        return self._task is not None

    async def finish(self) -> None:
        """Returns when all is spoken. A failure is the turn's, and a `tts.error` event."""
        for piece in self._splitter.finish():
            self._say(piece)
        if self._task is None:
            return
        self._pieces.put_nowait(None)
        try:
            await self._task
            if not self._chunks:
                raise ActionFailed("tts.synthesize gave no audio", code="TTS_NO_AUDIO")
        except LoomError as error:
            self._turn.failed(error)
            info = encode(error)
            await self._publish("tts.error", {"code": info.code, "message": info.message})
            return
        totals = {
            "duration_ms": self._bytes // 2 * 1000 // max(1, self._sample_rate),
            "chunks": self._chunks,
            "pieces": self._spoken,
            "synthesis_ms": self._inside_us // 1000,
        }
        await self._publish("tts.done", {key: str(value) for key, value in totals.items()})

    @property
    def duration_ms(self) -> float:
        """Of the audio so far."""
        return self._bytes / 2 * 1000 / max(1, self._sample_rate)

    def _say(self, piece: str) -> None:
        if not self._turn.speak or not speakable(piece):
            return
        self._pieces.put_nowait((piece.strip(), Stage()))
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while (next_piece := await self._pieces.get()) is not None:
            await self._synthesise(*next_piece)
            self._spoken += 1

    def _arguments(self, text: str) -> dict[str, Any]:
        arguments = {"text": text, "rate": self._config["rate"], "volume": self._config["volume"]}
        return arguments | ({"voice": voice} if (voice := self._config["voice"]) else {})

    async def _synthesise(self, text: str, stage: Stage) -> None:
        limit = self._config["tts_timeout_ms"]
        arguments = self._arguments(text)
        stream = self._ctx.stream("tts.synthesize", arguments, timeout_ms=limit)
        last_us = 0
        async with closing(stream) as items:
            async for item in items:
                last_us = item.elapsed_us
                if item.payload:
                    await self._chunk(item, stage)
        self._inside_us += last_us

    async def _chunk(self, item: Item, stage: Stage) -> None:
        output = item.output if isinstance(item.output, dict) else {}
        self._sample_rate = int(output.get("sample_rate") or self._sample_rate)
        if not self._chunks:
            stage.end(item.elapsed_us)
            self._turn.stages["tts_first"] = stage
            await self._turn.go_ahead()
            self._turn.first_audio_unix_ms = unix_ms()
            first = {"first_audio_unix_ms": f"{self._turn.first_audio_unix_ms:.3f}"}
            await self._publish("tts.start", first)
        index = {"index": str(self._chunks)}
        self._chunks += 1
        self._bytes += len(item.payload)
        await self._publish("tts.chunk", index, item.payload)

    async def _publish(self, kind: str, metadata: dict[str, str], payload: bytes = b"") -> None:
        metadata = {"sample_rate": str(self._sample_rate)} | metadata
        await self._turn.publish(self._ctx, TOPIC, kind, metadata, payload=payload)
