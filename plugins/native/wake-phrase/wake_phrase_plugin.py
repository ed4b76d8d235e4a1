"""Wake on text: `transcript` in, `wake` and `query` out. Pure standard library, every tier."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypedDict

from wake_phrase_matcher import WORD, Match, Matcher, tokens_of

from loom_sdk import Context, Event, Plugin, capability, on_event

MAX_STREAMS = 64
"""Streams whose wake is remembered at once."""


class WakeMatch(TypedDict):
    """Answer of `wake.match`."""

    matched: bool
    phrase: str
    score: float
    remainder: str


class WakePhrase(Plugin):
    """Asleep until a phrase comes; then the rest of that text, or the next text, is the query."""

    _matcher: Matcher

    def __init__(self) -> None:
        super().__init__()
        self._awake: OrderedDict[str, tuple[float, Match]] = OrderedDict()

    def start(self, ctx: Context) -> None:
        self._matcher = Matcher(self.config)

    @capability("wake.match", effects="none")
    def match(self, ctx: Context, text: str) -> WakeMatch:
        """Whether a text holds a wake phrase, and what follows it.

        Args:
            text: What was said, as written by a recogniser.
        """
        found = self._matcher.find(text)
        if found is None:
            return {"matched": False, "phrase": "", "score": 0.0, "remainder": ""}
        rest = self._matcher.remainder(text, found)
        return {"matched": True, "phrase": found.phrase, "score": found.score, "remainder": rest}

    @on_event("transcript", types=("transcript.final",))
    def heard(self, ctx: Context, event: Event) -> None:
        """A phrase wakes; a long enough rest, or else the next transcript in time, is the query."""
        text = event.metadata.get("text", "")
        if not WORD.search(text):
            return
        clock, begin, end = time_of(event)
        found = self._matcher.find(text)
        if found is not None:
            labels = {"phrase": found.phrase, "score": f"{found.score:.3f}"}
            metadata = {**event.metadata, **labels}
            ctx.publish("wake", "wake_word_detected", metadata=metadata, priority=65)
            rest = self._matcher.remainder(text, found)
            if (
                len(" ".join(token.text for token in tokens_of(rest)))
                < self.config["min_query_chars"]
            ):
                self._wake(clock, end + self.config["awake_seconds"] * 1000, found)
                return
            self._awake.pop(clock, None)
            self._ask(ctx, event, rest, found)
            return
        until, waking = self._awake.pop(clock, (begin - 1, None))
        if waking is not None and begin <= until:
            self._ask(ctx, event, text.strip(), waking)

    def _wake(self, clock: str, until: float, match: Match) -> None:
        self._awake[clock] = (until, match)
        self._awake.move_to_end(clock)
        if len(self._awake) > MAX_STREAMS:
            self._awake.popitem(last=False)

    def _ask(self, ctx: Context, event: Event, text: str, match: Match) -> None:
        labels = {"text": text, "phrase": match.phrase, "score": f"{match.score:.3f}"}
        ctx.publish(
            "query",
            "user.query",
            metadata={**event.metadata, **labels},
            priority=60,
            confidence=event.confidence,
        )


def time_of(event: Event) -> tuple[str, float, float]:
    """Which clock an utterance is on, and its begin and end there in ms.

    The stream's own clock where the event carries it: a file may be fed faster than real time.
    """
    data = event.metadata
    length = _number(data.get("duration_ms"), 0.0)
    stream = data.get("stream_id", "") or data.get("session_id", "")
    if "end_of_speech_ms" in data:
        end = _number(data["end_of_speech_ms"], 0.0)
        return f"stream {stream}", end - length, end
    end = float(event.timestamp_ms)
    return f"wall {stream}", end - length, end


def _number(text: str | None, default: float) -> float:
    try:
        return float(text) if text is not None else default
    except ValueError:
        return default
