"""Speech to text and text to speech by Wyoming servers, in place of engines of one's own."""

from __future__ import annotations

import sys
from array import array
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal, TypedDict

from wyoming_protocol import Connection, Message, connected

from loom_sdk import AsyncContext, Plugin, Result, capability
from loom_sdk.engines import SHORTEST_SPEECH_MS, SPEECH_RATE, Factor, check_text, checked_pcm
from loom_sdk.errors import ActionFailed, InvalidArguments

FORMAT = {"rate": SPEECH_RATE, "width": 2, "channels": 1}
SILENCE = 33
"""Peak of the samples below which nobody speaks: -60 dBFS."""
CHUNK_BYTES = 3200
"""Of sound to the server: 100 ms."""
PIECE_BYTES = 32_000
"""Largest item of speech, one frame on the way to the host."""


class Offer(TypedDict):
    """One program of a server."""

    name: str
    models: list[str]
    """Models of a recogniser, or voices."""
    languages: list[str]


class Info(TypedDict):
    """Answer of `wyoming.info`."""

    uri: str
    programs: list[Offer]


class Wyoming(Plugin):
    """A client; it keeps nothing between calls."""

    @capability("stt.transcribe", effects="none")
    async def transcribe(self, ctx: AsyncContext, language: str = "") -> Result:
        """Text of a recording: pcm_s16le, 16 kHz, mono, as payload.

        Empty text where nobody speaks.

        Args:
            language: ISO 639-1 code of the language spoken; the configured one by default.
        """
        pcm = checked_pcm(ctx.payload, ctx.content_type)
        asked = {"language": language or self.config["language"]}
        duration_ms = len(pcm) * 500 // SPEECH_RATE
        answer: Mapping[str, Any] = {"text": ""}
        if duration_ms >= SHORTEST_SPEECH_MS and loudest(pcm) >= SILENCE:
            if self.config["model"]:
                asked["name"] = self.config["model"]
            async with self._connected("stt_uri") as server:
                answer = await transcript_of(server, asked, pcm)
        text = " ".join(str(answer.get("text", "")).split())
        heard = answer.get("language") or asked["language"]
        return Result({"text": text, "language": heard, "duration_ms": duration_ms})

    @capability("tts.synthesize", effects="none")
    async def synthesize(
        self,
        ctx: AsyncContext,
        text: str,
        rate: Factor = 1.0,
        volume: Factor = 1.0,
        voice: str = "",
    ) -> Result:
        """Speak a text: emits pcm_s16le mono as the server sends it.

        Args:
            text: What to say, at most 10000 letters.
            rate: Only 1: the protocol has no word for speed.
            volume: Loudness, 1 is the server's own.
            voice: Name of a voice of the server; the configured one by default.
        """
        check_text(text)
        if rate != 1:
            raise InvalidArguments(
                f"rate {rate}: the Wyoming protocol has no word for speed; leave it at 1 and set "
                "the server's own, such as wyoming-piper's --length-scale"
            )
        name = voice or self.config["voice"]
        samples, heard_rate = 0, SPEECH_RATE
        if text.strip():
            async with self._connected("tts_uri") as server:
                index = 0
                async for heard_rate, piece in speech(server, text, name):
                    item = {"sample_rate": heard_rate, "index": index}
                    await ctx.emit(item, louder(piece, volume), f"audio/pcm;rate={heard_rate}")
                    samples, index = samples + len(piece) // 2, index + 1
        output = {"sample_rate": heard_rate, "duration_ms": samples * 1000 // heard_rate}
        return Result(output | {"engine": "wyoming", "voice": name})

    @capability("wyoming.info", effects="none")
    async def info(self, ctx: AsyncContext, server: Literal["stt", "tts"]) -> Info:
        """What a Wyoming server offers: its programs, models and voices.

        Args:
            server: Which one of the settings.
        """
        async with self._connected(f"{server}_uri") as connection:
            await connection.send("describe", {})
            told = await connection.answer("info")
        kind, parts = ("asr", "models") if server == "stt" else ("tts", "voices")
        programs = [offer_of(program, parts) for program in told.get(kind) or ()]
        return {"uri": self.config[f"{server}_uri"], "programs": programs}

    def _connected(self, uri: str) -> Any:
        return connected(self.config[uri], self.config["connect_timeout_s"])


async def transcript_of(
    server: Connection, asked: Mapping[str, Any], pcm: bytes
) -> Mapping[str, Any]:
    """What the server wrote: `text`, and `language` where it tells."""
    await server.send("transcribe", asked)
    await server.send("audio-start", FORMAT)
    for start in range(0, len(pcm), CHUNK_BYTES):
        await server.send("audio-chunk", FORMAT, pcm[start : start + CHUNK_BYTES])
    await server.send("audio-stop", {})
    return await server.answer("transcript")


async def speech(server: Connection, text: str, voice: str) -> AsyncIterator[tuple[int, bytes]]:
    """Sample rate and sound, in pieces of at most PIECE_BYTES."""
    await server.send("synthesize", {"text": text} | ({"voice": {"name": voice}} if voice else {}))
    while (message := await _sound(server, voice)).type != "audio-stop":
        if message.type != "audio-chunk":
            continue
        given = {name: message.data.get(name) for name in ("width", "channels")}
        rate = message.data.get("rate")
        if given != {"width": 2, "channels": 1} or not isinstance(rate, int) or rate < 1:
            raise ActionFailed(
                f"the server speaks {given}, rate {rate}; Loom takes 16 bit mono: set it there",
                code="WYOMING_FORMAT",
            )
        for start in range(0, len(message.payload), PIECE_BYTES):
            yield rate, message.payload[start : start + PIECE_BYTES]


async def _sound(server: Connection, voice: str) -> Message:
    try:
        return await server.receive()
    except ActionFailed as error:
        if voice and "voice" in error.message.lower():
            raise ActionFailed(error.message, code="TTS_VOICE_MISSING") from error
        raise


def offer_of(program: Mapping[str, Any], parts: str) -> Offer:
    found = program.get(parts) or ()
    languages = {language for part in found for language in part.get("languages") or ()}
    names = [str(part.get("name")) for part in found]
    return {"name": str(program.get("name")), "models": names, "languages": sorted(languages)}


def samples_of(pcm: bytes) -> array[int]:
    samples = array("h", pcm)
    if sys.byteorder == "big":
        samples.byteswap()
    return samples


def loudest(pcm: bytes) -> int:
    """Peak of 16 bit samples."""
    samples = samples_of(pcm)
    return max(max(samples), -min(samples))


def louder(pcm: bytes, volume: float) -> bytes:
    """Each sample times `volume`, as far as 16 bits go."""
    if volume == 1:
        return pcm
    scaled = (round(sample * volume) for sample in samples_of(pcm))
    made = array("h", (max(-32768, min(32767, sample)) for sample in scaled))
    if sys.byteorder == "big":
        made.byteswap()
    return made.tobytes()
