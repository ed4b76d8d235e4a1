"""Microphone and speaker through PortAudio. Its threads never wait for the host's loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from audio_io_wav import MIC_RATE

from loom_sdk.errors import ActionFailed

MIC_BACKLOG = 100
"""Blocks waiting for the loop; with 20 ms blocks 2 s. The oldest goes first."""
SPEAKER_BACKLOG_S = 1.0
"""How far a writer may run ahead of the speaker, which bounds what an answer holds."""


def portaudio() -> Any:
    """The `sounddevice` module. Raises ActionFailed(AUDIO_DEVICE_MISSING) with the install line."""
    try:
        import sounddevice
    except ImportError as error:
        raise ActionFailed(
            "microphone and speaker need the Python package sounddevice: "
            "pip install 'loom-host[voice]'",
            code="AUDIO_DEVICE_MISSING",
        ) from error
    except OSError as error:
        raise ActionFailed(
            "microphone and speaker need PortAudio: apt install libportaudio2",
            code="AUDIO_DEVICE_MISSING",
        ) from error
    return sounddevice


def _refused(what: str, name: str, error: Exception, sd: Any) -> ActionFailed:
    key = f"max_{'input' if what == 'microphone' else 'output'}_channels"
    known = ", ".join(repr(item["name"]) for item in sd.query_devices() if item[key] > 0)
    return ActionFailed(
        f"{what} {name or '(default)'} cannot be opened: {error}; there are: {known or 'none'}",
        code="AUDIO_DEVICE_FAILED",
    )


async def open_in_thread(device: Microphone | Speaker) -> None:
    """Open it; when cancelled meanwhile, wait for the driver and close it again."""
    opening = asyncio.ensure_future(asyncio.to_thread(device.open))
    try:
        await asyncio.shield(opening)
    except asyncio.CancelledError:
        await asyncio.wait([opening])
        await asyncio.to_thread(device.close)
        raise


class Resampler:
    """A stream of pcm_s16le from one rate to another."""

    def __init__(self, rate_in: int, rate_out: int) -> None:
        self._stream: Any = None
        if rate_in != rate_out:
            import soxr

            self._stream = soxr.ResampleStream(rate_in, rate_out, 1, dtype="int16")

    def feed(self, pcm: bytes, last: bool = False) -> bytes:
        """The audio that is ready; the filter holds some back until `last`."""
        if self._stream is None:
            return pcm
        import numpy as np

        ready = self._stream.resample_chunk(np.frombuffer(pcm, "<i2"), last=last)
        out: bytes = ready.astype("<i2").tobytes()
        return out


class Microphone:
    """Blocks of pcm_s16le, 16 kHz, mono. `open` and `close` block: call them in a thread."""

    def __init__(self, name: str, block_ms: int) -> None:
        self._name, self._block_ms = name, block_ms
        self._loop = asyncio.get_running_loop()
        self._blocks: deque[bytes] = deque(maxlen=MIC_BACKLOG)
        self._ready = asyncio.Event()
        self._partial = bytearray()
        self._resampler = Resampler(MIC_RATE, MIC_RATE)
        self._stream: Any = None
        self.dropped = 0
        """Blocks lost because the loop was too slow."""

    def open(self) -> None:
        """Raises ActionFailed, naming the microphones that there are."""
        sd = portaudio()
        try:
            rate = self._rate(sd)
            self._resampler = Resampler(rate, MIC_RATE)
            self._stream = sd.RawInputStream(
                samplerate=rate,
                blocksize=rate * self._block_ms // 1000,
                device=self._name or None,
                channels=1,
                dtype="int16",
                latency="low",
                callback=self._heard,
            )
            self._stream.start()
        except (sd.PortAudioError, ValueError) as error:
            self.close()
            raise _refused("microphone", self._name, error, sd) from error

    def _rate(self, sd: Any) -> int:
        device = self._name or None
        try:
            sd.check_input_settings(device=device, channels=1, dtype="int16", samplerate=MIC_RATE)
        except sd.PortAudioError:
            return int(sd.query_devices(device, "input")["default_samplerate"])
        return MIC_RATE

    def _heard(self, data: Any, frames: int, clock: Any, status: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._arrived, bytes(data))

    def _arrived(self, pcm: bytes) -> None:
        self._partial += self._resampler.feed(pcm)
        size = 2 * MIC_RATE * self._block_ms // 1000
        while len(self._partial) >= size:
            self.dropped += len(self._blocks) == MIC_BACKLOG
            self._blocks.append(bytes(self._partial[:size]))
            del self._partial[:size]
        self._ready.set()

    async def read(self) -> bytes:
        """The next block."""
        while not self._blocks:
            self._ready.clear()
            await self._ready.wait()
        return self._blocks.popleft()

    @property
    def active(self) -> bool:
        """Whether blocks can still come."""
        return self._stream is not None and bool(self._stream.active)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.abort()
            self._stream.close()


class Speaker:
    """Plays one answer, mono 16 bit. `open` and `close` block: call them in a thread."""

    def __init__(self, name: str, rate: int, on_first: Callable[[float], None]) -> None:
        self._name, self._on_first = name, on_first
        self.rate = rate
        self._device_rate = rate
        self._loop = asyncio.get_running_loop()
        self._resampler = Resampler(rate, rate)
        self._blocks: deque[bytes] = deque()
        self._head = b""
        self._ending = self._begun = False
        self._done = asyncio.Event()
        self._stream: Any = None
        self._queued = self._played = 0

    def open(self) -> None:
        """Raises ActionFailed, naming the speakers that there are."""
        sd = portaudio()
        self._stop = sd.CallbackStop
        try:
            self._device_rate = self._supported(sd)
            self._resampler = Resampler(self.rate, self._device_rate)
            self._stream = sd.RawOutputStream(
                samplerate=self._device_rate,
                device=self._name or None,
                channels=1,
                dtype="int16",
                latency="low",
                callback=self._fill,
                finished_callback=self._finished,
            )
            self._stream.start()
        except (sd.PortAudioError, ValueError) as error:
            self.close()
            raise _refused("speaker", self._name, error, sd) from error

    def _supported(self, sd: Any) -> int:
        device = self._name or None
        try:
            sd.check_output_settings(device=device, channels=1, dtype="int16", samplerate=self.rate)
        except sd.PortAudioError:
            return int(sd.query_devices(device, "output")["default_samplerate"])
        return self.rate

    def _fill(self, out: Any, frames: int, clock: Any, status: Any) -> None:
        wanted, parts = 2 * frames, [self._head]
        have = len(self._head)
        ending = self._ending
        while have < wanted and self._blocks:
            parts.append(self._blocks.popleft())
            have += len(parts[-1])
        joined = b"".join(parts)
        now, self._head = joined[:wanted], joined[wanted:]
        out[:] = now.ljust(wanted, b"\0")
        self._played += len(now)
        if now and not self._begun:
            self._begun = True
            ahead = clock.outputBufferDacTime - clock.currentTime
            # Some drivers give no clock: an answer heard 2 s ahead is one of those.
            heard = time.time() + (ahead if 0 < ahead < 2 else 0.0)
            self._tell(self._on_first, heard * 1000)
        if ending and not self._head and not self._blocks:
            raise self._stop

    def _finished(self) -> None:
        self._tell(self._done.set)

    def _tell(self, work: Callable[..., object], *args: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(work, *args)

    async def write(self, pcm: bytes) -> None:
        """Queue audio; waits while the speaker is too far behind."""
        self._push(self._resampler.feed(pcm))
        ahead_s = (self._queued - self._played) / 2 / self._device_rate - SPEAKER_BACKLOG_S
        if ahead_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ahead_s):
                    await self._done.wait()

    def _push(self, pcm: bytes) -> None:
        if pcm:
            self._queued += len(pcm)
            self._blocks.append(pcm)

    async def drain(self) -> None:
        """Returns when the last sample has been heard."""
        self._push(self._resampler.feed(b"", last=True))
        self._ending = True
        left_s = (self._queued - self._played) / 2 / self._device_rate
        with contextlib.suppress(TimeoutError):
            # A device that was unplugged never finishes.
            async with asyncio.timeout(left_s + 3.0):
                await self._done.wait()

    def seconds(self) -> float:
        """How much has been played."""
        return self._played / 2 / self._device_rate

    def close(self) -> None:
        """Silent at once, whatever is still queued."""
        if self._stream is not None:
            self._stream.abort()
            self._stream.close()
