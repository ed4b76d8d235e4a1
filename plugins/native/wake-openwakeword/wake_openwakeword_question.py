"""Which transcript goes with a wake, and what was asked in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from loom_sdk import Event

LAG_MS = 1000
"""The score rises up to so long after the phrase ended."""
BARE_MS = 100
"""Speech that ends no later than this after the wake held only the phrase."""
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


@dataclass(slots=True)
class Wake:
    """The phrase was heard and nothing has been asked since."""

    at: dict[str, float]
    """Clock (stream, wall) to when, in ms."""
    score: float
    until: dict[str, float]
    """Clock to the latest begin of the question, in ms."""


@dataclass(slots=True)
class Spoken:
    """A transcript and when it was spoken."""

    event: Event
    clock: str
    begin: float
    end: float


def spoken_of(event: Event) -> Spoken:
    data = event.metadata
    clock = "stream" if "end_of_speech_ms" in data else "wall"
    end = _number(data.get("end_of_speech_ms"), float(event.timestamp_ms))
    return Spoken(event, clock, end - _number(data.get("duration_ms"), 0.0), end)


def utterance_id(event: Event) -> str:
    return event.metadata.get("utterance_id") or event.id


def asked(wake: Wake, spoken: Spoken, config: Mapping[str, Any]) -> str | None:
    """What was asked; empty for the bare phrase; None where the wake has no part in it.

    Behind the bare phrase the wake waits on, from the end of that transcript.
    """
    at, text = wake.at[spoken.clock], spoken.event.metadata["text"].strip()
    if spoken.begin > wake.until[spoken.clock] or spoken.end + LAG_MS < at:
        return None
    if spoken.begin > at:
        return without_phrase(text, config["phrase"]) or text
    bare = spoken.clock == "stream" and spoken.end <= at + BARE_MS
    rest = "" if bare else without_phrase(text, config["phrase"])
    if len(rest) >= config["min_query_chars"]:
        return rest
    awake = config["awake_seconds"] * 1000
    wake.until[spoken.clock] = max(wake.until[spoken.clock], spoken.end + awake)
    return ""


def without_phrase(text: str, phrase: str) -> str:
    """`text` from behind the phrase, as written; all of it where none is there.

    The sound has already told that the phrase was said, so a rough resemblance is enough at the
    start; behind other words it must be a close one.
    """
    wanted = "".join(WORD.findall(phrase.lower()))
    words = list(WORD.finditer(text))
    best, end = 0.0, 0
    for first in range(len(words)):
        for last in range(first, min(first + 4, len(words))):
            joined = "".join(word.group().lower() for word in words[first : last + 1])
            alike = SequenceMatcher(None, joined, wanted, autojunk=False).ratio()
            if alike > best and alike >= (0.6 if first == 0 else 0.85):
                best, end = alike, words[last].end()
    rest = WORD.search(text, end)
    return text[rest.start() :].strip() if rest else ""


def _number(text: str | None, default: float) -> float:
    try:
        return float(text) if text is not None else default
    except ValueError:
        return default
