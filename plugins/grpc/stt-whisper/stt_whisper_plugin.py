"""Speech to text with Whisper, by faster-whisper on the CPU."""

from __future__ import annotations

from typing import Any

from loom_sdk import Context, Plugin, Result, capability
from loom_sdk.engines import SHORTEST_SPEECH_MS, SPEECH_RATE, checked_pcm
from loom_sdk.errors import ActionFailed, InvalidArguments
from loom_sdk.models import find

SILENCE = 1e-3
"""Peak of full scale below which a recording is silence: -60 dBFS."""
WINDOW_FRAMES = 3000
"""Whisper's window, 30 s in frames of 10 ms."""
MAX_COMPRESSION = 2.4
"""Whisper's own mark for a text that repeats itself (Radford et al. 2022, section 4.5)."""


class Whisper(Plugin):
    """One model, loaded and warmed up before the first call."""

    _model: Any = None

    def start(self, ctx: Context) -> None:
        """Load the model and run it once, so that the first call takes as long as the second.

        Raises:
            ModelMissing: the model was not pulled.
        """
        folder = find(self.config["model"])
        import numpy as np
        from faster_whisper import WhisperModel

        class Windowed(WhisperModel):  # type: ignore[misc]  # its types are not read
            """Encodes no more than `frames` of 10 ms; faster-whisper always pads to 3000."""

            frames = WINDOW_FRAMES

            def encode(self, features: Any) -> Any:
                return super().encode(features[..., : self.frames])

        self._model = Windowed(
            str(folder),
            device="cpu",
            compute_type=self.config["compute_type"],
            cpu_threads=self.config["cpu_threads"],
            local_files_only=True,
        )
        noise = np.random.default_rng(0).normal(0.0, 0.01, SPEECH_RATE)
        self._segments(noise.astype(np.float32), self._language(self.config["language"]))

    def stop(self, ctx: Context) -> None:
        self._model = None

    @capability("stt.transcribe", effects="none")
    def transcribe(self, ctx: Context, language: str = "") -> Result:
        """Text of a recording: pcm_s16le, 16 kHz, mono, as payload.

        Empty text where nobody speaks.

        Args:
            language: ISO 639-1 code of the language spoken; the configured one by default.
        """
        import numpy as np

        chosen = self._language(language or self.config["language"])
        pcm = checked_pcm(ctx.payload, ctx.content_type)
        duration_ms = len(pcm) * 500 // SPEECH_RATE
        audio = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
        text = ""
        if duration_ms >= SHORTEST_SPEECH_MS and float(np.abs(audio).max()) >= SILENCE:
            try:
                text = self._text(self._segments(audio, chosen))
            except (RuntimeError, ValueError) as error:  # what CTranslate2 raises
                raise ActionFailed(f"Whisper failed: {error}", code="STT_ERROR") from error
        return Result({"text": text, "language": chosen, "duration_ms": duration_ms})

    def _language(self, code: str) -> str:
        if self._model is not None and not self._model.model.is_multilingual and code != "en":
            raise InvalidArguments(
                f"model {self.config['model']} knows only English, not {code!r}: "
                "set another `model` of stt-whisper, one without .en"
            )
        return code

    def _segments(self, audio: Any, language: str) -> list[Any]:
        padding = self.config["padding_seconds"]
        frames = min(WINDOW_FRAMES, len(audio) // 160 + round(padding * 100))
        found = self._run(audio, language, frames)
        if frames < WINDOW_FRAMES and any(self._doubtful(segment) for segment in found):
            found = self._run(audio, language, WINDOW_FRAMES)
        return found

    def _run(self, audio: Any, language: str, frames: int) -> list[Any]:
        self._model.frames = frames if len(audio) <= WINDOW_FRAMES * 160 else WINDOW_FRAMES
        segments, _ = self._model.transcribe(
            audio,
            language=language,
            beam_size=self.config["beam_size"],
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
            no_speech_threshold=None,
            initial_prompt=self.config["prompt"] or None,
        )
        return list(segments)

    def _doubtful(self, segment: Any) -> bool:
        unsure = segment.avg_logprob < self.config["min_avg_logprob"]
        return bool(unsure or segment.compression_ratio > MAX_COMPRESSION)

    def _text(self, segments: list[Any]) -> str:
        return " ".join(" ".join(s.text.strip() for s in segments if self._spoken(s)).split())

    def _spoken(self, segment: Any) -> bool:
        """Whisper invents text for silence and noise; it also says how sure it is."""
        if segment.compression_ratio > MAX_COMPRESSION:
            return False
        if not any(letter.isalnum() for letter in segment.text):
            return False
        empty = segment.no_speech_prob > self.config["no_speech_threshold"]
        return not (empty and self._doubtful(segment))
