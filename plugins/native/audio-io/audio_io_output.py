"""Where an answer can go: a speaker, a WAV file, or nowhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from audio_io_device import Speaker, open_in_thread
from audio_io_wav import WavWriter


class Output(Protocol):
    """Where one answer goes: mono pcm_s16le at `rate` Hz."""

    rate: int
    path: str

    async def open(self) -> None: ...
    async def write(self, pcm: bytes) -> None: ...
    async def finish(self) -> float:
        """Seconds of audio, after the last sample is out."""
        ...

    async def abort(self) -> float:
        """Interrupted: stop at once; seconds of audio that were out."""
        ...

    async def discard(self) -> None:
        """Failed: release what was opened."""
        ...


OnFirst = Callable[[float], None]
"""Told once, with the Unix ms at which the first sample reached the sink."""


class Nowhere:
    """Counts. Also the base of the file, which differs in what it does with the audio."""

    path = ""

    def __init__(self, rate: int, on_first: OnFirst) -> None:
        self.rate = rate
        self._on_first: OnFirst | None = on_first
        self._bytes = 0

    async def open(self) -> None:
        """Nothing to open."""

    async def write(self, pcm: bytes) -> None:
        self._bytes += len(pcm)
        if self._on_first:
            self._on_first(time.time() * 1000)
            self._on_first = None

    async def finish(self) -> float:
        return self._bytes / 2 / self.rate

    async def abort(self) -> float:
        return await self.finish()

    async def discard(self) -> None:
        """Nothing to release."""


class ToFile(Nowhere):
    """The answer as a WAV file; an interrupted one keeps what there was of it."""

    def __init__(self, path: str, rate: int, on_first: OnFirst) -> None:
        super().__init__(rate, on_first)
        self.path = path

    async def open(self) -> None:
        self._writer = WavWriter(self.path, self.rate)

    async def write(self, pcm: bytes) -> None:
        self._writer.write(pcm)
        await super().write(pcm)

    async def finish(self) -> float:
        return self._writer.commit()

    async def discard(self) -> None:
        self._writer.discard()


class ToSpeaker:
    """The answer through PortAudio, whose calls block and so run in a thread."""

    path = ""

    def __init__(self, name: str, rate: int, on_first: OnFirst) -> None:
        self.rate = rate
        self._speaker = Speaker(name, rate, on_first)

    async def open(self) -> None:
        await open_in_thread(self._speaker)

    async def write(self, pcm: bytes) -> None:
        await self._speaker.write(pcm)

    async def finish(self) -> float:
        await self._speaker.drain()
        return await self.abort()

    async def abort(self) -> float:
        await asyncio.to_thread(self._speaker.close)
        return self._speaker.seconds()

    async def discard(self) -> None:
        await self.abort()


async def open_output(config: Mapping[str, Any], rate: int, on_first: OnFirst) -> Output:
    """The configured sink, open. Raises ActionFailed or OSError."""
    output: Output
    if config["sink"] == "speaker":
        output = ToSpeaker(config["output_device_name"], rate, on_first)
    elif config["sink"] == "wav":
        output = ToFile(config["sink_path"], rate, on_first)
    else:
        output = Nowhere(rate, on_first)
    await output.open()
    return output
