"""Text to speech by the program espeak-ng: one process per call, killed with it.

espeak-ng is GPL-3.0; it is run as a separate program and nothing of it is linked or imported.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import struct
from asyncio.subprocess import PIPE, Process

from loom_sdk import AsyncContext, Plugin, Result, capability
from loom_sdk.engines import Factor, check_text
from loom_sdk.errors import ActionFailed, PluginLoadError

AMPLITUDE = 100
"""espeak-ng's `-a` at volume 1, its default; 200 is its maximum."""
SAMPLE_RATE = 22_050
"""What espeak-ng says when it says nothing."""
PIECE_BYTES = 16_384
HEADER_LIMIT = 4096
"""A WAV header that did not end by here is none."""
VOICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")
"""A voice's name with variant, such as en-us+f3; neither an option nor a path."""


class Espeak(Plugin):
    """Holds nothing but where the program is."""

    _program = ""

    async def start(self, ctx: AsyncContext) -> None:
        """Find the program. Raises PluginLoadError with the install line."""
        found = shutil.which(self.config["program"])
        if found is None:
            raise PluginLoadError(
                f"the program {self.config['program']!r} is not installed: run "
                "`apt install espeak-ng` (or your system's equivalent), or use tts-piper"
            )
        self._program = found

    @capability("tts.synthesize", effects="none")
    async def synthesize(
        self,
        ctx: AsyncContext,
        text: str,
        rate: Factor = 1.0,
        volume: Factor = 1.0,
        voice: str = "",
    ) -> Result:
        """Speak a text: emits pcm_s16le mono as it is made.

        Args:
            text: What to say, at most 10000 letters.
            rate: Speed, 1 is the configured one.
            volume: Loudness, 1 is espeak-ng's own.
            voice: Name as in `espeak-ng --voices`; the configured one by default.
        """
        check_text(text)
        name = voice or self.config["voice"]
        if not VOICE.fullmatch(name):
            raise ActionFailed(
                f"{name!r} is no name of a voice: see `espeak-ng --voices`",
                code="TTS_VOICE_MISSING",
            )
        if not text.strip():
            return _result(SAMPLE_RATE, 0, name)
        limit = self.config["timeout_seconds"]
        process = await self._spawn(rate, volume, name)
        try:
            async with asyncio.timeout(limit):
                return await self._speak(ctx, process, text, name)
        except TimeoutError:
            raise ActionFailed(
                f"espeak-ng was killed after {limit} s: shorten the text or raise "
                "`timeout_seconds` of tts-espeak",
                code="TTS_TIMEOUT",
            ) from None
        finally:
            await _reap(process)

    async def _spawn(self, rate: float, volume: float, voice: str) -> Process:
        speed = round(self.config["words_per_minute"] * rate)
        command = [self._program, "-v", voice, "-s", str(speed)]
        command += ["-a", str(round(AMPLITUDE * volume)), "--stdin", "--stdout"]
        try:
            return await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, stderr=PIPE
            )
        except OSError as error:
            raise ActionFailed(
                f"{self._program} could not be run: {error.strerror}", code="TTS_SYNTH_ERROR"
            ) from error

    async def _speak(self, ctx: AsyncContext, process: Process, text: str, voice: str) -> Result:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        # All three pipes at once: a full one would stop the program for good.
        feeding = asyncio.ensure_future(_feed(process.stdin, text))
        complaining = asyncio.ensure_future(process.stderr.read())
        try:
            sample_rate, samples = await _emit_wav(ctx, process.stdout)
            complaint = (await complaining).decode(errors="replace").strip()
            await feeding
            status = await process.wait()
        finally:
            feeding.cancel()
            complaining.cancel()
        if status != 0 or not sample_rate:
            raise _failure(status, complaint, voice)
        return _result(sample_rate, samples, voice)


def _result(sample_rate: int, samples: int, voice: str) -> Result:
    output = {
        "sample_rate": sample_rate,
        "duration_ms": samples * 1000 // sample_rate,
        "engine": "espeak-ng",
        "voice": voice,
    }
    return Result(output)


async def _feed(stdin: asyncio.StreamWriter, text: str) -> None:
    try:
        stdin.write(text.encode())
        await stdin.drain()
        stdin.close()
        await stdin.wait_closed()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the program ended early; its status tells why


async def _emit_wav(ctx: AsyncContext, stdout: asyncio.StreamReader) -> tuple[int, int]:
    """Emit what is in the WAV stream; returns its sample rate and how many samples it had."""
    data, header = b"", None
    while header is None:
        more = await stdout.read(PIECE_BYTES)
        if not more or len(data) > HEADER_LIMIT:
            return 0, 0
        data += more
        header = wav_header(data)
    sample_rate, start = header
    data, samples, index = data[start:], 0, 0
    while data or not stdout.at_eof():
        piece, data = data[: len(data) // 2 * 2], data[len(data) // 2 * 2 :]
        if piece:
            item = {"sample_rate": sample_rate, "index": index}
            await ctx.emit(item, piece, f"audio/pcm;rate={sample_rate}")
            samples += len(piece) // 2
            index += 1
        more = await stdout.read(PIECE_BYTES)
        if not more:
            break
        data += more
    return sample_rate, samples


def wav_header(data: bytes) -> tuple[int, int] | None:
    """Sample rate and index of the first sample, or None while the header is incomplete.

    The sizes in a stream's header are unknown to its writer and not looked at.

    Raises:
        ActionFailed: this is no WAV of 16 bit mono.
    """
    if len(data) < 12:
        return None
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise ActionFailed("espeak-ng did not write a WAV stream", code="TTS_SYNTH_ERROR")
    position, sample_rate = 12, 0
    while position + 8 <= len(data):
        kind, size = (
            data[position : position + 4],
            int.from_bytes(data[position + 4 : position + 8], "little"),
        )
        position += 8
        if kind == b"data":
            return sample_rate, position
        if position + size > len(data):
            return None
        if kind == b"fmt ":
            _, channels, sample_rate, _, _, bits = struct.unpack_from("<HHIIHH", data, position)
            if (channels, bits) != (1, 16):
                raise ActionFailed(
                    f"espeak-ng wrote {channels} channels of {bits} bits, not 1 of 16",
                    code="TTS_SYNTH_ERROR",
                )
        position += size + size % 2
    return None


def _failure(status: int, complaint: str, voice: str) -> ActionFailed:
    last = complaint.splitlines()[-1] if complaint else f"exit code {status}"
    if "voice does not exist" in complaint:
        return ActionFailed(
            f"espeak-ng has no voice {voice!r}: see `espeak-ng --voices`", code="TTS_VOICE_MISSING"
        )
    return ActionFailed(f"espeak-ng failed: {last}", code="TTS_SYNTH_ERROR")


async def _reap(process: Process) -> None:
    """No child is left, whatever ended the call."""
    if process.returncode is None:
        process.kill()
    await asyncio.shield(process.wait())
