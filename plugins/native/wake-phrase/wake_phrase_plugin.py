"""Wake on text: `transcript` in, `wake` and `query` out. Pure standard library, every tier."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, TypedDict

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
        self._asked: OrderedDict[str, tuple[str, Match]] = OrderedDict()
        """The last utterance of each stream that was a query, and what had woken for it."""

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
        asked, woken = self._asked.get(clock, ("", None))
        if waking is not None and begin <= until:
            self._ask(ctx, event, text.strip(), waking)
        elif woken is not None and event.metadata.get("continues") == asked:
            # A query whose speaker went on: heard as a whole, its phrase was written otherwise.
            self._ask(ctx, event, text.strip(), woken)

    def _wake(self, clock: str, until: float, match: Match) -> None:
        self._awake[clock] = (until, match)
        _keep_newest(self._awake, clock)

    def _ask(self, ctx: Context, event: Event, text: str, match: Match) -> None:
        clock, _, _ = time_of(event)
        self._asked[clock] = (event.metadata.get("utterance_id") or event.id, match)
        _keep_newest(self._asked, clock)
        labels = {"text": text, "phrase": match.phrase, "score": f"{match.score:.3f}"}
        ctx.publish(
            "query",
            "user.query",
            metadata={**event.metadata, **labels},
            priority=60,
            confidence=event.confidence,
        )


def _keep_newest(streams: OrderedDict[str, Any], clock: str) -> None:
    streams.move_to_end(clock)
    if len(streams) > MAX_STREAMS:
        streams.popitem(last=False)


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
