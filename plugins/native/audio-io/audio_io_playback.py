"""Answers one after the other, from the topic `tts` to the configured sink."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from audio_io_device import Resampler
from audio_io_output import Output, open_output

from loom_sdk import AsyncContext, Event
from loom_sdk.errors import ActionFailed

CHUNKS_AHEAD = 1024
"""Chunks of one answer waiting for the sink, before the synthesiser is made to wait."""
CHUNK_TIMEOUT_S = 60.0
"""An answer that goes on after this was given up by its synthesiser; the microphone must reopen."""
ECHO_TAIL_S = 0.2
"""The room and the sound drivers give the last word back this much later."""
SILENCED_KEPT = 64
LABELS = ("session_id", "stream_id", "utterance_id")


@dataclass
class Answer:
    """One utterance of the assistant, as it comes in."""

    labels: Mapping[str, str]
    traceparent: str
    turn: int
    """How many interruptions came before it."""
    rate_hint: int = 0
    """Rate in Hz that tts.start announced; 0: unknown until the first chunk."""
    chunks: asyncio.Queue[tuple[bytes, int] | None] = field(
        default_factory=lambda: asyncio.Queue(CHUNKS_AHEAD)
    )
    first_ms: asyncio.Future[float] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def reached(self, unix_ms: float) -> None:
        if not self.first_ms.done():
            self.first_ms.set_result(unix_ms)


class Player:
    """Plays answers one after the other, in a task of its own."""

    def __init__(self, config: Mapping[str, Any], ctx: AsyncContext) -> None:
        self._config, self._ctx = config, ctx
        self._incoming: dict[str, Answer] = {}
        self._waiting: asyncio.Queue[Answer] = asyncio.Queue()
        self._silenced: deque[str] = deque(maxlen=SILENCED_KEPT)
        self._current: asyncio.Task[dict[str, str]] | None = None
        self._loop_task = asyncio.create_task(self._play_all())
        self._turn = 0
        self._quiet_from = 0.0

    @property
    def sounding(self) -> bool:
        """Whether the speaker is in use, so that the microphone would hear it."""
        return time.monotonic() < self._quiet_from

    async def hear(self, event: Event) -> None:
        """Take one event of the topic `tts`."""
        key = event.metadata.get("utterance_id", "")
        if key in self._silenced:
            return
        answer = self._incoming.get(key)
        if answer is None:
            if event.type not in ("tts.start", "tts.chunk"):
                return
            answer = self._begin(key, event)
        if event.type == "tts.chunk":
            await answer.chunks.put((event.payload, _rate(event)))
        elif event.type in ("tts.done", "tts.error"):
            self._incoming.pop(key, None)
            await answer.chunks.put(None)

    def _begin(self, key: str, event: Event) -> Answer:
        labels = {name: event.metadata[name] for name in LABELS if name in event.metadata}
        rate = _rate(event) if "sample_rate" in event.metadata else 0
        answer = self._incoming[key] = Answer(labels, event.traceparent, self._turn, rate)
        self._waiting.put_nowait(answer)
        return answer

    def interrupt(self) -> None:
        """Silence at once; what is still to come of these answers is ignored."""
        self._silenced.extend(key for key in self._incoming if key)
        for answer in self._incoming.values():
            _empty(answer.chunks)
        self._incoming.clear()
        self._turn += 1
        if self._current:
            self._current.cancel()

    async def aclose(self) -> None:
        self.interrupt()
        if self._current:
            await asyncio.wait([self._current])
        self._loop_task.cancel()
        await asyncio.wait([self._loop_task])

    async def _play_all(self) -> None:
        while True:
            answer = await self._waiting.get()
            telling = asyncio.create_task(self._tell_first(answer))
            self._current = asyncio.create_task(self._play(answer))
            if answer.turn != self._turn:
                self._current.cancel()
            await asyncio.wait([self._current])
            ended, self._current = _outcome(self._current), None
            if not answer.first_ms.done():
                telling.cancel()
            await asyncio.wait([telling])
            if "error" in ended:
                self._ctx.log(f"the answer was not played: {ended['error']}", "error")
                self._forget(answer)
            await self._tell(answer, "audio.done", ended)

    def _forget(self, answer: Answer) -> None:
        for key in [key for key, value in self._incoming.items() if value is answer]:
            del self._incoming[key]
            self._silenced.append(key)
        _empty(answer.chunks)

    async def _play(self, answer: Answer) -> dict[str, str]:
        """Returns the metadata of audio.done."""
        output: Output | None = None
        aloud = self._config["sink"] == "speaker"
        self._quiet_from = math.inf if aloud else 0.0
        try:
            if answer.rate_hint and aloud:
                # The device opens while the first sentence is still being synthesised.
                output = await open_output(self._config, answer.rate_hint, answer.reached)
            while (chunk := await _next(answer)) is not None:
                pcm, rate = chunk
                output = output or await open_output(self._config, rate, answer.reached)
                if pcm and rate != output.rate:
                    pcm = Resampler(rate, output.rate).feed(pcm, last=True)
                await output.write(pcm)
            return _done(output, await output.finish() if output else 0.0)
        except asyncio.CancelledError:
            seconds = await output.abort() if output else 0.0
            return _done(output, seconds) | {"interrupted": "true"}
        except Exception:
            if output:
                await output.discard()
            raise
        finally:
            self._quiet_from = time.monotonic() + ECHO_TAIL_S if aloud else 0.0

    async def _tell_first(self, answer: Answer) -> None:
        unix_ms = await answer.first_ms
        await self._tell(answer, "audio.first_sample", {"unix_ms": f"{unix_ms:.3f}"})

    async def _tell(self, answer: Answer, kind: str, metadata: Mapping[str, str]) -> None:
        both = {**answer.labels, **metadata}
        await self._ctx.publish("audio.out", kind, metadata=both, traceparent=answer.traceparent)


async def _next(answer: Answer) -> tuple[bytes, int] | None:
    try:
        async with asyncio.timeout(CHUNK_TIMEOUT_S):  # wait_for of 3.11 may swallow a cancellation
            return await answer.chunks.get()
    except TimeoutError:
        raise ActionFailed(
            f"the synthesiser sent neither tts.chunk nor tts.done for {CHUNK_TIMEOUT_S:.0f} s",
            code="TTS_TIMEOUT",
        ) from None


def _empty(queue: asyncio.Queue[Any]) -> None:
    while not queue.empty():
        queue.get_nowait()


def _done(output: Output | None, seconds: float) -> dict[str, str]:
    return {"path": output.path if output else "", "seconds": f"{seconds:.3f}"}


def _outcome(task: asyncio.Task[dict[str, str]]) -> dict[str, str]:
    if task.cancelled():
        return {"path": "", "seconds": "0.000", "interrupted": "true"}
    error = task.exception()
    if error is None:
        return task.result()
    return {"path": "", "seconds": "0.000", "error": str(error)}


def _rate(event: Event) -> int:
    text = event.metadata.get("sample_rate", "")
    if text.isdecimal() and 1000 <= int(text) <= 768_000:
        return int(text)
    raise ActionFailed(
        f"{event.type} has sample_rate {text!r}: the synthesiser must send its rate in Hz",
        code="AUDIO_FORMAT",
    )
