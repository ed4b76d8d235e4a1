"""Makes `loom_host/data/five`: the five spoken questions of `loom demo --five`, and their index.

    python -m tools.five

Needs what `tools.recordings` needs. The same versions of the synthesisers give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.recordings import ROOT, Recording, rendered, write_wav

TARGET = ROOT / "loom_host" / "data" / "five"
FIRST_SEED = 500
"""Apart from those of tests/recordings."""
JOE = ("piper", "en_US-joe-medium", 0)
ESPEAK = ("espeak-ng", "en-us+f3", 130)


@dataclass(frozen=True, slots=True)
class Question:
    """One file, who says what, and what comes of it."""

    file: str
    speaker: tuple[str, str, int]
    """Synthesiser, voice and words a minute; 0 for the voice's own pace."""
    text: str
    tool: str
    answer: str
    """What the answer must contain."""


QUESTIONS = (
    Question("calculator.wav", JOE, "Hey loom, what is one hundred divided by eight?",
             "calculator.evaluate", "12.5"),
    Question("weather.wav", JOE, "Hey loom, what is the weather in Berlin?",
             "weather.get", "In Berlin it is 21 degrees"),
    Question("notes.wav", JOE, "Hey loom, make a note that the car needs new tires.",
             "notes.add", "Noted"),
    Question("timer.wav", JOE, "Hey loom, set a timer for five minutes.",
             "clock.timer", "5 minutes"),
    Question("units.wav", ESPEAK, "Hey loom, how many kilometers are in five miles?",
             "units.convert", "8.04672 kilometres"),
)  # fmt: skip


def make(target: Path) -> None:
    """Writes every file and the index into `target`."""
    target.mkdir(parents=True, exist_ok=True)
    for seed, question in enumerate(QUESTIONS, FIRST_SEED):
        synthesiser, voice, pace = question.speaker
        row = Recording(question.file, synthesiser, voice, question.text, pace, "hey loom")
        row, samples = rendered(row, seed)
        write_wav(target / question.file, samples, row.sample_rate, row.channels)
    rows = [{"file": q.file, "text": q.text, "tool": q.tool, "answer": q.answer} for q in QUESTIONS]
    (target / "index.json").write_text(json.dumps(rows, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--target", type=Path, default=TARGET, help="folder to write to")
    target = parser.parse_args(arguments).target
    make(target)
    for path in sorted(target.iterdir()):
        print(f"{path.stat().st_size:8} {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
