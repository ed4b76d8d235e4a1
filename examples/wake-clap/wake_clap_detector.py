"""Finds claps in sound. Pure functions and one class, standard library alone.

A clap is a burst: in 5 ms far above what was before, bright (a knock and a vowel are not), and gone
150 ms later but for the room's echo. Speech has bursts, too, its "t" and "k"; but what follows
there is loud. So claps count only by themselves, with quiet before, between and behind.
"""

from __future__ import annotations

import sys
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import log10
from operator import mul

SAMPLE_RATE = 16_000
HOP = 80
"""Samples that are measured together, 5 ms."""
HOP_MS = HOP * 1000 // SAMPLE_RATE
ATTACK = 4
"""Hops in which a burst reaches its peak."""
ECHO = 150 // HOP_MS
"""Hops after which a clap is over. A living room takes about 500 ms for 60 dB, so 18 dB."""
NEAREST, FARTHEST = 120 // HOP_MS, 450 // HOP_MS
"""Hops from one clap to the next."""
BEFORE = 300 // HOP_MS
"""Hops of quiet before the first."""
BRIGHT = 0.12
"""Energy of the first difference over that of the samples, 2 - 2 cos(2 pi f / SAMPLE_RATE) for a
tone: 0.6 for 2 kHz and 0.15 for 1 kHz, where claps are, and 0.01 for a knock of 200 Hz."""
FAINTEST = -50.0
"""Peak of a clap in dB of full scale."""
ALIKE = 10.0
"""Decibels between the loudest clap and the faintest."""


@dataclass(slots=True)
class Burst:
    """A sudden sound."""

    hop: int
    level: float
    """At its peak, in dB of full scale."""
    brightness: float


@dataclass(frozen=True, slots=True)
class Claps:
    """A row of claps was heard."""

    position_ms: float
    """Of the moment, in the stream's time, at which it was known that no more follow."""
    score: float
    """0 to 1; 1 where they stand out by 40 dB."""


class Detector:
    """Listens to one stream.

    Args:
        count: how many claps in a row.
        contrast_db: how far above what is around them they must be.
    """

    def __init__(self, count: int, contrast_db: float) -> None:
        self._count, self._contrast = count, contrast_db
        self._pcm = b""
        self._last = 0
        self._hop = 0
        keep = BEFORE + (count + 1) * FARTHEST + 1
        self._levels: deque[float] = deque([0.0] * keep, keep)
        """Of the last hops; before the first one is no quiet."""
        self._bursts: list[Burst] = []

    def feed(self, pcm: bytes) -> Iterator[Claps]:
        """Take pcm_s16le, 16 kHz, mono, of any length."""
        self._pcm += pcm
        whole = len(self._pcm) // (2 * HOP) * 2 * HOP
        samples, self._pcm = array("h", self._pcm[:whole]), self._pcm[whole:]
        if sys.byteorder == "big":
            samples.byteswap()
        for start in range(0, len(samples), HOP):
            self._measure(samples[start : start + HOP])
            waited = self._hop - self._bursts[-1].hop if self._bursts else 0
            if waited > FARTHEST:
                contrast = self._row()
                self._bursts.clear()
                if contrast >= self._contrast:
                    score = round(min(1.0, contrast / 40), 3)
                    yield Claps(self._hop * HOP_MS, score)

    def _measure(self, samples: array[int]) -> None:
        """Level and brightness of a hop, and whether a burst begins or grows with it."""
        before = [self._last, *samples[:-1]]
        self._last = samples[-1]
        edges = [now - last for now, last in zip(samples, before, strict=True)]
        energy, bright = sum(map(mul, samples, samples)), sum(map(mul, edges, edges))
        level = 10 * log10(energy / (HOP * 32768**2) + 1e-12)
        brightness = bright / energy if energy else 0.0
        newest = self._bursts[-1] if self._bursts else None
        age = self._hop - newest.hop if newest else NEAREST
        if newest and age < ATTACK:
            if level > newest.level:
                newest.level, newest.brightness = level, brightness
        elif age >= ATTACK and level >= max(FAINTEST, self._recent() + self._contrast):
            self._bursts.append(Burst(self._hop, level, brightness))
            del self._bursts[: -self._count - 1]  # of too many it is enough to know that
        self._levels.append(level)
        self._hop += 1

    def _recent(self) -> float:
        """The loudest of the hops from which a burst rises."""
        return max(self._levels[-back] for back in range(2, 8))

    def _row(self) -> float:
        """By how many dB the bursts stand out as claps; 0 where they are none."""
        bursts = self._bursts
        gaps = [later.hop - burst.hop for burst, later in pairwise(bursts)]
        levels = [burst.level for burst in bursts]
        if (
            len(bursts) != self._count
            or min(gaps) < NEAREST
            or max(levels) - min(levels) > ALIKE
            or any(burst.brightness < BRIGHT for burst in bursts)
        ):
            return 0.0
        around = self._loudest(bursts[0].hop - BEFORE, bursts[0].hop - 1)
        ends = [burst.hop - 1 for burst in bursts[1:]] + [self._hop]
        for burst, end in zip(bursts, ends, strict=True):
            start = min(burst.hop + ECHO, end - 1)
            around = max(around, self._loudest(start, end))
        return max(0.0, min(levels) - around)

    def _loudest(self, start: int, end: int) -> float:
        """Level of the loudest hop from `start` to before `end`, by the stream's count."""
        newest = self._hop
        return max(self._levels[hop - newest] for hop in range(start, end))
