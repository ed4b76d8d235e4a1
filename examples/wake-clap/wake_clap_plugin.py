"""Wake on claps: `audio.mic` and `transcript` in, `wake` and `query` out."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

from wake_clap_detector import SAMPLE_RATE, Claps, Detector

from loom_sdk import Context, Event, Plugin, on_event

MAX_STREAMS = 8
"""Streams remembered at once; the one unheard for longest is forgotten first."""


@dataclass(slots=True)
class Wake:
    """Claps that no question has followed yet."""

    score: float
    at: dict[str, float]
    """Clock (`stream` or `wall`) to when, in ms."""


@dataclass(slots=True)
class Stream:
    """What is remembered of one microphone stream."""

    detector: Detector
    next_seq: int = 0
    missed_ms: float = 0
    """Of sound that never came: the detector counts what it hears."""
    wakes: int = 0
    wake: Wake | None = None
    answered: tuple[str, Wake] | None = None
    """The utterance that was the last query, and its wake."""
    unasked: deque[Event] = field(default_factory=lambda: deque(maxlen=8))
    """Transcripts that came before their wake was heard: a file may be faster than its sound."""


class WakeClap(Plugin):
    """Asleep until it hears the claps; then what is said next is the query."""

    def __init__(self) -> None:
        super().__init__()
        self._streams: OrderedDict[str, Stream] = OrderedDict()

    @on_event("audio.*", types=("audio_chunk", "audio_end"))
    def heard_sound(self, ctx: Context, event: Event) -> None:
        """A chunk of pcm_s16le, 16 kHz, mono, of any length; or the end of a stream."""
        stream = self._stream(event)
        if event.type == "audio_end":
            stream.detector, stream.next_seq, stream.missed_ms = self._detector(), 0, 0
            return
        data, whole = event.metadata, len(event.payload) // 2
        seq = int(number(data, "seq", stream.next_seq))
        if seq < stream.next_seq:
            return  # delivered again after a restart
        if seq > stream.next_seq:  # joined in the middle, or chunks were dropped
            samples = number(data, "frame_samples", whole)
            stream.missed_ms += (seq - stream.next_seq) * samples * 1000 / SAMPLE_RATE
        stream.next_seq = seq + 1
        for claps in stream.detector.feed(event.payload[: 2 * whole]):
            self._wake(ctx, stream, event, claps)

    def _wake(self, ctx: Context, stream: Stream, event: Event, claps: Claps) -> None:
        at = stream.missed_ms + claps.position_ms
        stream.wake = Wake(claps.score, {"stream": at, "wall": float(event.timestamp_ms)})
        labels = {name: event.metadata.get(name, "") for name in ("session_id", "stream_id")}
        metadata = labels | self._named(stream.wake) | {
            "seq": str(stream.wakes),
            "position_ms": f"{at:.0f}",
        }  # fmt: skip
        stream.wakes += 1
        ctx.publish("wake", "wake_word_detected", metadata=metadata, priority=65)
        waiting, stream.unasked = list(stream.unasked), deque(maxlen=stream.unasked.maxlen)
        for transcript in waiting:
            self._settle(ctx, stream, transcript)

    @on_event("transcript", types=("transcript.final",))
    def heard_text(self, ctx: Context, event: Event) -> None:
        """The question, once it is known to have been spoken after the claps."""
        if any(letter.isalnum() for letter in event.metadata.get("text", "")):
            self._settle(ctx, self._stream(event), event)

    def _settle(self, ctx: Context, stream: Stream, event: Event) -> None:
        wake = stream.wake
        if wake is None or not follows(wake, event, self.config["awake_seconds"] * 1000):
            asked, wake = stream.answered or ("", None)
            if wake is None or event.metadata.get("continues") != asked:
                stream.unasked.append(event)
                return
        stream.wake = None  # an answered question; or one whose speaker went on, now as a whole
        stream.answered = (event.metadata.get("utterance_id") or event.id, wake)
        ctx.publish(
            "query",
            "user.query",
            metadata={**event.metadata, **self._named(wake)},
            priority=60,
            confidence=event.confidence,
        )

    def _named(self, wake: Wake) -> dict[str, str]:
        return {"phrase": " ".join(["clap"] * self.config["claps"]), "score": f"{wake.score:.3f}"}

    def _detector(self) -> Detector:
        return Detector(self.config["claps"], self.config["contrast_db"])

    def _stream(self, event: Event) -> Stream:
        name = event.metadata.get("stream_id") or next(reversed(self._streams), "")
        stream = self._streams.setdefault(name, Stream(self._detector()))
        self._streams.move_to_end(name)
        if len(self._streams) > MAX_STREAMS:
            self._streams.popitem(last=False)
        return stream


def follows(wake: Wake, event: Event, awake_ms: float) -> bool:
    """Whether the speech of a transcript ended after the wake and began in time."""
    data = event.metadata
    clock = "stream" if "end_of_speech_ms" in data else "wall"
    end = number(data, "end_of_speech_ms", event.timestamp_ms)
    begin = end - number(data, "duration_ms", 0)
    return end > wake.at[clock] and begin <= wake.at[clock] + awake_ms


def number(data: Mapping[str, str], name: str, default: float) -> float:
    """A number of an event's metadata; the default where there is none that can be read."""
    try:
        value = float(data.get(name, default))
    except ValueError:
        return default
    return value if isfinite(value) else default
