"""The algorithm: frames of one stream in, begun and ended utterances out.

A frame is voice when webrtcvad says so *and* it stands out of the tracked noise floor. webrtcvad
alone takes some steady noise for speech; the floor alone takes every slammed door for it.
"""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from loom_sdk.errors import ActionFailed
from loom_sdk.events import new_id

SAMPLE_RATE = 16_000
SILENCE_DBFS = -60.0
"""Nothing quieter is voice: a whisper at arm's length reaches a headset at about -50 dBFS."""
KEEP = 0.6
"""In speech this part of the gate is enough: weak syllables in noise must not cut a sentence."""
PEAK_RANGE_DB = 35.0
"""Frames this far below the utterance's loudest are its decay and echo, no longer its voice."""
FLOOR_BLOCK_MS = 250
FLOOR_BLOCKS = 8
"""The floor is the minimum of the last 2 s: longer than a phrase goes without a dip in level,
short enough that a fan switched on stops counting as speech soon."""
STEADY_DB = 3.5
"""Voice varies: an utterance whose frame levels spread less than this is a hum or a hiss."""


class NoiseFloor:
    """Minimum statistics over 2 s (after Martin 2001) of the level of three frames."""

    def __init__(self, frame_ms: int) -> None:
        self._recent: deque[float] = deque(maxlen=3)
        self._blocks: deque[float] = deque([math.inf], maxlen=FLOOR_BLOCKS)
        self._per_block = max(1, FLOOR_BLOCK_MS // frame_ms)
        self._count = 0

    def update(self, power: float) -> float:
        """Takes the mean square of a frame (full scale 1.0), returns the floor in dBFS."""
        self._recent.append(power)
        if self._count == self._per_block:
            self._blocks.append(math.inf)
            self._count = 0
        self._count += 1
        smooth = sum(self._recent) / len(self._recent)
        self._blocks[-1] = min(self._blocks[-1], smooth)
        return decibels(min(self._blocks))


class HighPass:
    """First-order high-pass: rumble and mains hum sway too much for their level to be tracked."""

    POLE = math.exp(-2 * math.pi * 200 / SAMPLE_RATE)

    def __init__(self) -> None:
        self._x = self._y = 0.0

    def power(self, frame: bytes) -> float:
        """Mean square of the filtered frame (pcm_s16le), full scale 1.0."""
        pole, x, y, total = self.POLE, self._x, self._y, 0.0
        for (sample,) in struct.iter_unpack("<h", frame):
            y = sample - x + pole * y
            x = sample
            total += y * y
        self._x, self._y = x, y
        return total / (len(frame) // 2) / 32768**2


def decibels(power: float) -> float:
    """Mean square, full scale 1.0, in dBFS; digital silence is -100."""
    return 10.0 * math.log10(power + 1e-10)


@dataclass(slots=True)
class Utterance:
    """Speech that is going on, or has just ended."""

    id: str
    first_voiced: int
    """Stream position in samples."""
    end_voiced: int = 0
    arrived_ms: int = 0
    """Unix ms at which the last voiced sample arrived."""
    frames: list[bytes] = field(default_factory=list)
    levels: list[float] = field(default_factory=list)
    """dBFS per frame since the first voiced one."""
    voiced_levels: int = 0
    """How many of `levels` lie before the last voiced sample."""
    peak: float = -100.0
    continued: bool = False
    """It goes on where a split cut the one before."""
    dropped: str = ""
    """Why it gives no `utterance` event."""

    def voice(self, level: float, end: int, arrived_ms: int) -> None:
        self.end_voiced, self.arrived_ms = end, arrived_ms
        self.voiced_levels = len(self.levels)
        self.peak = max(self.peak, level)

    def spread_db(self) -> float:
        """How far the 10th and the 90th percentile of the frame levels lie apart."""
        levels = sorted(self.levels[: self.voiced_levels])
        if not levels:
            return 0.0
        return levels[(len(levels) - 1) * 9 // 10] - levels[len(levels) // 10]


def missing() -> ActionFailed:
    return ActionFailed(
        "vad needs the Python package webrtcvad-wheels: pip install 'loom-host[voice]'",
        code="VAD_MISSING",
    )


class Segmenter:
    """One stream of 16 kHz mono PCM: frames in, `(started, utterance)` pairs out."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        try:
            import webrtcvad
        except ImportError as error:
            raise missing() from error
        frame_ms = config["frame_ms"]
        self._vad = webrtcvad.Vad(config["mode"])
        self._floor = NoiseFloor(frame_ms)
        self._gate_db = config["gate_db"]
        self.frame_samples = SAMPLE_RATE * frame_ms // 1000
        self._filter = HighPass()
        self._start_frames = max(1, config["min_start_ms"] // frame_ms)
        self._hangover = SAMPLE_RATE * config["hangover_ms"] // 1000
        self._min_samples = SAMPLE_RATE * config["min_utterance_ms"] // 1000
        self._max_frames = config["max_utterance_ms"] // frame_ms
        pre_roll = config["pre_roll_ms"] // frame_ms
        self._recent: deque[tuple[bytes, float]] = deque(maxlen=pre_roll + self._start_frames)
        self._partial = bytearray()
        self._run = 0
        self.position = 0
        """Samples decided on so far."""
        self.open: Utterance | None = None

    def feed(self, pcm: bytes, arrived_ms: int) -> Iterator[tuple[bool, Utterance]]:
        """Takes a chunk of any size; yields what began (True) and what ended (False)."""
        self._partial += pcm
        size = 2 * self.frame_samples
        while len(self._partial) >= size:
            frame = bytes(self._partial[:size])
            del self._partial[:size]
            self.position += self.frame_samples
            yield from self._decide(frame, arrived_ms)

    def skip(self, samples: int) -> Iterator[tuple[bool, Utterance]]:
        """Account for audio that never came: a gated microphone or a full queue."""
        self._partial.clear()
        self.position += samples
        self._recent.clear()
        self._run = 0
        if self.open and self.position - self.open.end_voiced >= self._hangover:
            yield False, self._close(self.open)

    def flush(self) -> Iterator[tuple[bool, Utterance]]:
        """The stream ended: an open utterance ends with it."""
        if self.open:
            self.open.frames.append(bytes(self._partial))
            yield False, self._close(self.open)
        self._partial.clear()

    def _decide(self, frame: bytes, arrived_ms: int) -> Iterator[tuple[bool, Utterance]]:
        voiced, level = self._voiced(frame)
        if self.open is None:
            self._recent.append((frame, level))
            self._run = self._run + 1 if voiced else 0
            if self._run >= self._start_frames:
                yield True, self._begin(arrived_ms)
            return
        speech = self.open
        speech.frames.append(frame)
        speech.levels.append(level)
        if voiced:
            speech.voice(level, self.position, arrived_ms)
        elif self.position - speech.end_voiced >= self._hangover:
            yield False, self._close(speech)
            return
        if len(speech.frames) >= self._max_frames:
            yield False, self._close(speech)
            self.open = Utterance(new_id(), self.position, self.position, continued=True)
            self.open.arrived_ms, self.open.peak = arrived_ms, speech.peak
            yield True, self.open

    def _voiced(self, frame: bytes) -> tuple[bool, float]:
        power = self._filter.power(frame)
        level, floor = decibels(power), self._floor.update(power)
        # Asked for every frame, loud or not: webrtcvad adapts to what it hears.
        speech = self._vad.is_speech(frame, SAMPLE_RATE)
        if not self._gate_db:
            return speech, level
        gate = self._gate_db * (KEEP if self.open else 1.0)
        least = max(SILENCE_DBFS, floor + gate)
        if self.open:
            least = max(least, self.open.peak - PEAK_RANGE_DB)
        return speech and level >= least, level

    def _begin(self, arrived_ms: int) -> Utterance:
        first = self.position - self._run * self.frame_samples
        self.open = Utterance(new_id(), first, frames=[frame for frame, _ in self._recent])
        for _, level in list(self._recent)[-self._run :]:
            self.open.levels.append(level)
            self.open.voice(level, self.position, arrived_ms)
        self._recent.clear()
        return self.open

    def _close(self, speech: Utterance) -> Utterance:
        voiced = speech.end_voiced - speech.first_voiced
        if voiced < (1 if speech.continued else self._min_samples):
            speech.dropped = "too_short"
        elif self._gate_db and not speech.continued and speech.spread_db() < STEADY_DB:
            speech.dropped = "steady_noise"
        self.open, self._run = None, 0
        return speech
