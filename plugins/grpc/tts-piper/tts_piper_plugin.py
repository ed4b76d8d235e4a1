"""Text to speech with Piper. Piper is GPL-3.0, so this runs as a child process only."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

from loom_sdk import Context, Plugin, Result, capability
from loom_sdk.engines import Factor, check_text
from loom_sdk.errors import (
    ActionFailed,
    DeadlineExceeded,
    LoomError,
    ModelMissing,
    PluginLoadError,
)
from loom_sdk.models import find

LOUDNESS = 0.5
"""Peak of full scale at volume 1, so that volume 2 just does not clip."""
PIECE_BYTES = 32_000
"""Bytes per emitted item: 0.7 s at 22.05 kHz, and one frame on the wire."""
MAX_VOICES = 2
"""Voices kept loaded; one takes about 100 MB."""


class Piper(Plugin):
    """The configured voice, loaded and warmed up before the first call."""

    def __init__(self) -> None:
        super().__init__()
        self._voices: OrderedDict[Path, Any] = OrderedDict()

    def start(self, ctx: Context) -> None:
        """Load the voice and speak one word, so that the first call is not the slow one.

        Raises:
            ModelMissing: the voice was not pulled.
            PluginLoadError: piper-tts is not installed.
        """
        voice = self._load(self.config["voice"])
        for _ in voice.synthesize("Ready."):
            pass

    def stop(self, ctx: Context) -> None:
        self._voices.clear()

    def _load(self, name: str) -> Any:
        model = voice_file(name)
        if model in self._voices:
            self._voices.move_to_end(model)
            return self._voices[model]
        try:
            from piper import PiperVoice
        except ImportError as error:
            raise PluginLoadError(
                f"piper-tts cannot be imported ({error}): run `pip install 'loom-host[voice]'`, "
                "or use the plugin tts-espeak"
            ) from error
        try:
            voice = PiperVoice.load(model)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelMissing(f"voice {name!r} at {model} cannot be loaded: {error}") from error
        self._voices[model] = voice
        if len(self._voices) > MAX_VOICES:
            self._voices.popitem(last=False)
        return voice

    @capability("tts.synthesize", effects="none")
    def synthesize(
        self,
        ctx: Context,
        text: str,
        rate: Factor = 1.0,
        volume: Factor = 1.0,
        voice: str = "",
    ) -> Result:
        """Speak a text: emits pcm_s16le mono, sentence by sentence.

        Args:
            text: What to say, at most 10000 letters.
            rate: Speed, 1 is the voice's own.
            volume: Loudness, 1 is half of full scale at the peak.
            voice: Name of a pulled voice; the configured one by default.
        """
        check_text(text)
        name = voice or self.config["voice"]
        speaker = self._named(voice) if voice else self._load(name)
        sample_rate: int = speaker.config.sample_rate
        samples = 0
        try:
            for index, piece in enumerate(self._pieces(speaker, text, rate, volume)):
                if ctx.remaining_ms() <= 0:
                    raise DeadlineExceeded(f"speech was cut after {samples // sample_rate} s")
                item = {"sample_rate": sample_rate, "index": index}
                ctx.emit(item, piece, f"audio/pcm;rate={sample_rate}")
                samples += len(piece) // 2
        except LoomError:
            raise
        except Exception as error:  # onnxruntime raises classes of its own without a base
            raise ActionFailed(
                f"Piper could not speak with {name}: {error}", code="TTS_SYNTH_ERROR"
            ) from error
        duration_ms = samples * 1000 // sample_rate
        output = {"sample_rate": sample_rate, "duration_ms": duration_ms}
        return Result(output | {"engine": "piper", "voice": name})

    def _named(self, name: str) -> Any:
        """The voice that a caller asked for, which may name a pulled one but no path."""
        try:
            if Path(name).name != name:
                raise ModelMissing(f"voice {name!r} is a path: give the name of a pulled voice")
            return self._load(name)
        except ModelMissing as error:
            raise ActionFailed(error.message, code="TTS_VOICE_MISSING") from error

    def _pieces(self, voice: Any, text: str, rate: float, volume: float) -> Any:
        from piper import SynthesisConfig

        own = voice.config.length_scale or 1.0
        settings = SynthesisConfig(length_scale=own / rate, volume=LOUDNESS * volume)
        pause_samples = self.config["sentence_pause_ms"] * voice.config.sample_rate // 1000
        pause = b""
        for sentence in voice.synthesize(text, syn_config=settings):
            pcm = pause + sentence.audio_int16_bytes
            for start in range(0, len(pcm), PIECE_BYTES):
                yield pcm[start : start + PIECE_BYTES]
            pause = bytes(2 * pause_samples)


def voice_file(name: str) -> Path:
    """The .onnx file of a voice, given the name of its model, with or without `piper-`.

    Raises:
        ModelMissing: there is none, or its settings are missing.
    """
    try:
        folder = find(name)
    except ModelMissing:
        if name.startswith("piper-") or Path(name).is_absolute():
            raise
        folder = find(f"piper-{name}")
    files = [folder] if folder.is_file() else sorted(folder.glob("*.onnx"))
    for file in files:
        if Path(f"{file}.json").is_file():
            return file
    raise ModelMissing(f"{folder} holds no Piper voice (an .onnx file and its .onnx.json)")
