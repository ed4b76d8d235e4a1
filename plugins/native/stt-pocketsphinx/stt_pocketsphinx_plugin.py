"""Speech to text with PocketSphinx: a second engine with nothing in common with Whisper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loom_sdk import Context, Plugin, Result, capability
from loom_sdk.engines import SHORTEST_SPEECH_MS, SPEECH_RATE, checked_pcm
from loom_sdk.errors import ActionFailed, InvalidArguments, ModelMissing, PluginLoadError

BEAM = {"maxhmmpf": 3000, "maxwpf": 20}
"""States and words kept per frame (unlimited by default): same text on clean speech, and noise
takes a quarter of the time."""
SILENCE = 33
"""Peak in 16 bit steps below which a recording is silence: -60 dBFS."""


class PocketSphinx(Plugin):
    """One decoder; it keeps its noise estimate from call to call."""

    _decoder: Any = None

    def start(self, ctx: Context) -> None:
        """Load acoustic model, dictionary and language model.

        Raises:
            PluginLoadError: the package is not installed.
            ModelMissing: the configured folder lacks a part.
        """
        try:
            from pocketsphinx import Decoder
        except ImportError as error:
            raise PluginLoadError(
                "pocketsphinx is not installed: run `pip install 'loom-host[voice]'`"
            ) from error
        paths = self._paths()
        try:
            self._decoder = Decoder(samprate=SPEECH_RATE, loglevel="FATAL", **BEAM, **paths)
        except RuntimeError as error:
            raise PluginLoadError(f"PocketSphinx refused its model: {error}") from error

    def stop(self, ctx: Context) -> None:
        self._decoder = None

    def _paths(self) -> dict[str, str]:
        if not self.config["model"]:
            return {}
        folder = Path(self.config["model"])
        found = {
            "hmm": [folder / "en-us"] if (folder / "en-us").is_dir() else [],
            "dict": sorted(folder.glob("*.dict")),
            "lm": [p for p in sorted(folder.glob("*.lm.bin")) if "phone" not in p.name],
        }
        if missing := [part for part, paths in found.items() if not paths]:
            raise ModelMissing(
                f"{folder} lacks {', '.join(missing)}: set `model` of stt-pocketsphinx to a "
                'folder with en-us/, a .dict and a .lm.bin, or to "" for the built-in model'
            )
        return {part: str(paths[0]) for part, paths in found.items()}

    @capability("stt.transcribe", effects="none")
    def transcribe(self, ctx: Context, language: str = "") -> Result:
        """Text of a recording: pcm_s16le, 16 kHz, mono, as payload.

        Lower case without punctuation; empty where nobody speaks.

        Args:
            language: ISO 639-1 code of the language spoken; the configured one by default.
        """
        chosen = language or self.config["language"]
        if chosen != self.config["language"]:
            raise InvalidArguments(
                f"this model knows only {self.config['language']!r}, not {chosen!r}: "
                "set `model` and `language` of stt-pocketsphinx"
            )
        pcm = checked_pcm(ctx.payload, ctx.content_type)
        duration_ms = len(pcm) * 500 // SPEECH_RATE
        text = ""
        if duration_ms >= SHORTEST_SPEECH_MS and peak(pcm) >= SILENCE:
            text = self._decode(pcm)
        return Result({"text": text, "language": chosen, "duration_ms": duration_ms})

    def _decode(self, pcm: bytes) -> str:
        try:
            self._decoder.start_utt()
            try:
                self._decoder.process_raw(pcm, full_utt=True)
            finally:
                self._decoder.end_utt()
            best = self._decoder.hyp()
        except RuntimeError as error:
            raise ActionFailed(f"PocketSphinx failed: {error}", code="STT_ERROR") from error
        return best.hypstr if best else ""


def peak(pcm: bytes) -> int:
    """Largest distance from zero, in 16 bit steps."""
    import sys
    from array import array

    samples = array("h", pcm)
    if sys.byteorder == "big":
        samples.byteswap()
    return max(max(samples), -min(samples))
