"""Sound in and out: microphone or WAV file to `audio.mic`, `tts` to speaker or WAV file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Literal, TypedDict

from audio_io_device import Microphone, open_in_thread, portaudio
from audio_io_playback import Player
from audio_io_wav import MIC_RATE, read_mic_pcm

from loom_sdk import AsyncContext, Event, Plugin, capability, on_event
from loom_sdk.errors import ConfigError
from loom_sdk.events import new_id


class Streamed(TypedDict):
    """What `audio.stream_file` did."""

    duration_ms: float
    """Of the file, without the silence after it."""
    chunks: int
    started_unix_ms: float
    """Wall clock when sample 0 was published."""
    session_id: str
    stream_id: str


class Captured(TypedDict):
    """State of the microphone."""

    capturing: bool
    stream_id: str
    chunks: int
    """Published so far."""
    dropped: int
    """Lost because the host was too slow."""


class MicStream:
    """One `audio.mic` stream: labels and numbers its chunks."""

    def __init__(self, ctx: AsyncContext, chunk_ms: int, session_id: str = "") -> None:
        self._ctx = ctx
        self._samples = MIC_RATE * chunk_ms // 1000
        self.session_id = session_id or new_id()
        self.stream_id = new_id()
        self.seq = 0
        self.chunks = 0
        """Published; `seq` also counts those that were kept back."""

    def _metadata(self) -> dict[str, str]:
        return {
            "sample_rate": str(MIC_RATE),
            "channels": "1",
            "encoding": "pcm_s16le",
            "frame_samples": str(self._samples),
            "session_id": self.session_id,
            "stream_id": self.stream_id,
            "seq": str(self.seq),
        }

    async def send(self, pcm: bytes) -> None:
        metadata = self._metadata()
        self.seq += 1
        self.chunks += 1
        await self._ctx.publish("audio.mic", "audio_chunk", pcm, metadata=metadata, priority=90)

    def keep_back(self) -> None:
        """A chunk that is not published still takes its place in the stream."""
        self.seq += 1

    async def end(self) -> None:
        metadata = self._metadata()
        await self._ctx.publish("audio.mic", "audio_end", metadata=metadata, priority=90)


class AudioIO(Plugin):
    """Source and sink of the voice loop. Everything runs on the host's loop and never blocks it."""

    def __init__(self) -> None:
        super().__init__()
        self._microphone: Microphone | None = None
        self._stream: MicStream | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._pump: asyncio.Task[None] | None = None

    async def start(self, ctx: AsyncContext) -> None:
        """Raises ConfigError, PermissionDenied or ActionFailed where the settings cannot work."""
        self._check()
        if self.config["sink"] == "speaker":
            ctx.require_grant("devices", "speaker")
        if self.config["source"] == "microphone":
            ctx.require_grant("devices", "microphone")
        if self.config["sink"] == "speaker" or self.config["source"] == "microphone":
            await asyncio.to_thread(portaudio)
        self._ctx = ctx
        self._changing = asyncio.Lock()
        self._player = Player(self.config, ctx)

    def _check(self) -> None:
        if self.config["source"] == "wav" and not self.config["source_path"]:
            raise ConfigError('audio-io: source = "wav" needs source_path, the file to play')
        if self.config["sink"] != "wav":
            return
        path = self.config["sink_path"]
        if not path:
            raise ConfigError('audio-io: sink = "wav" needs sink_path, the file to write')
        folder = Path(path).parent
        if Path(path).is_dir() or not folder.is_dir():
            raise ConfigError(
                f"audio-io: sink_path {path!r} must name a file in a folder that exists; "
                f"create {str(folder)!r} or change the path"
            )

    async def stop(self, ctx: AsyncContext) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._close_microphone()
        await self._player.aclose()

    def health(self) -> str:
        """Empty, or that the microphone has gone."""
        if self._microphone and not self._microphone.active:
            return "the microphone has stopped: is it still plugged in?"
        return ""

    @capability("audio.stream_file")
    async def stream_file(
        self,
        ctx: AsyncContext,
        path: str,
        pace: Literal["realtime", "fast"] | None = None,
        tail_silence_ms: int = 800,
        session_id: str = "",
    ) -> Streamed:
        """Play a WAV file into audio.mic, followed by silence and audio_end.

        Any rate, any number of channels, 8 to 32-bit PCM or float. Raises ActionFailed with code
        AUDIO_FILE_MISSING, AUDIO_FILE_EMPTY or AUDIO_FILE_INVALID.

        Args:
            path: the file, relative to the host's working folder
            pace: realtime as if it were spoken now, fast as quick as the host takes it
            tail_silence_ms: silence after the file, in which the end of speech is noticed
            session_id: conversation that it belongs to, a new one when empty
        """
        pcm = await asyncio.to_thread(read_mic_pcm, path)
        duration_ms = len(pcm) / 2 / MIC_RATE * 1000
        size = 2 * MIC_RATE * self.config["chunk_ms"] // 1000
        whole = pcm + bytes(2 * MIC_RATE * max(0, tail_silence_ms) // 1000)
        whole += bytes(-len(whole) % size)
        stream = MicStream(ctx, self.config["chunk_ms"], session_id)
        began, started = time.monotonic(), time.time() * 1000
        realtime = (pace or self.config["pace"]) == "realtime"
        for at in range(0, len(whole), size):
            # Each chunk is due by the clock, not by the one before: nothing adds up.
            due = began + at / 2 / MIC_RATE if realtime else 0.0
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await stream.send(whole[at : at + size])
        await stream.end()
        return Streamed(
            duration_ms=round(duration_ms, 3),
            chunks=stream.chunks,
            started_unix_ms=started,
            session_id=stream.session_id,
            stream_id=stream.stream_id,
        )

    @capability("audio.capture_start", effects="idempotent")
    async def capture_start(self, ctx: AsyncContext) -> Captured:
        """Begin to publish the microphone as audio.mic.

        Raises ActionFailed with code AUDIO_DEVICE_MISSING or AUDIO_DEVICE_FAILED.
        """
        async with self._changing:
            if self._microphone is None:
                ctx.require_grant("devices", "microphone")
                await self._open_microphone()
            return self._captured()

    @capability("audio.capture_stop", effects="idempotent")
    async def capture_stop(self, ctx: AsyncContext) -> Captured:
        """Close the microphone and publish audio_end."""
        async with self._changing:
            last = self._captured()
            await self._close_microphone()
            return Captured(**{**last, "capturing": False})

    async def _open_microphone(self) -> None:
        microphone = Microphone(self.config["device_name"], self.config["chunk_ms"])
        await open_in_thread(microphone)
        self._microphone = microphone
        self._stream = MicStream(self._ctx, self.config["chunk_ms"])
        self._pump = asyncio.create_task(self._publish_microphone(microphone, self._stream))

    async def _publish_microphone(self, microphone: Microphone, stream: MicStream) -> None:
        while True:
            pcm = await microphone.read()
            if self.config["half_duplex"] and self._player.sounding:
                stream.keep_back()
            else:
                await stream.send(pcm)

    async def _close_microphone(self) -> None:
        microphone, self._microphone = self._microphone, None
        if microphone is None or self._stream is None or self._pump is None:
            return
        await asyncio.to_thread(microphone.close)
        self._pump.cancel()
        await asyncio.wait([self._pump])
        await self._stream.end()

    def _captured(self) -> Captured:
        return Captured(
            capturing=self._microphone is not None,
            stream_id=self._stream.stream_id if self._stream else "",
            chunks=self._stream.chunks if self._stream else 0,
            dropped=self._microphone.dropped if self._microphone else 0,
        )

    @on_event("tts", types=("tts.start", "tts.chunk", "tts.done", "tts.error"))
    async def answered(self, ctx: AsyncContext, event: Event) -> None:
        """A part of the assistant's answer, for the sink."""
        await self._player.hear(event)

    @on_event("assistant", types=("assistant.interrupt",))
    async def interrupted(self, ctx: AsyncContext, event: Event) -> None:
        """Somebody spoke over the answer: be silent at once."""
        self._player.interrupt()

    @on_event("loom.host", types=("host.ready",))
    async def host_ready(self, ctx: AsyncContext, event: Event) -> None:
        """Begin with the configured source, if `autostart` says so."""
        if not self.config["autostart"]:
            return
        if self.config["source"] == "microphone":
            self._spawn(self.capture_start(self._ctx))
        elif self.config["source"] == "wav":
            self._spawn(self.stream_file(self._ctx, self.config["source_path"]))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        async def run() -> None:
            try:
                await work
            except Exception as error:
                self._ctx.log(f"autostart failed: {error}", "error")

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
