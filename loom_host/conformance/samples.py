"""Events for what a plugin hears: its own samples, else made up for its topics."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from loom_sdk import Event
from loom_sdk.plugin import SubscriptionSpec
from loom_sdk.topics import matches

from .plan import Plan

_TURN = {"session_id": "conformance", "stream_id": "conformance", "seq": "1"}
_FRAME = {"sample_rate": "16000", "channels": "1", "encoding": "pcm_s16le", "frame_samples": "320"}
_SPEECH = {"sample_rate": "16000", "duration_ms": "500", "end_of_speech_ms": "480"}
_WORDS = {"text": "what time is it", "language": "en", "duration_ms": "500", "provider": "stt"}
STANDARD: Mapping[str, tuple[tuple[str, Mapping[str, str], bytes], ...]] = {
    "audio.mic": (("audio_chunk", _FRAME, bytes(640)),),
    "audio.gated": (("audio_chunk", _FRAME, bytes(640)),),
    "vad": (
        ("vad.speech_start", {"frame_ms": "20", "sample_rate": "16000"}, b""),
        ("vad.speech_end", {"frame_ms": "20", "sample_rate": "16000"}, b""),
    ),
    "utterance": (("utterance", _SPEECH, bytes(16_000)),),
    "wake": (("wake_word_detected", {"phrase": "hey loom", "score": "0.9"}, b""),),
    "transcript": (("transcript.final", _WORDS, b""),),
    "query": (("user.query", {"text": "what time is it"}, b"what time is it"),),
    "assistant": (
        ("assistant.message", {"text": "It is noon."}, b"It is noon."),
        ("assistant.interrupt", {}, b""),
    ),
    "tts": (
        ("tts.start", {"engine": "none", "sample_rate": "16000"}, b""),
        ("tts.chunk", _FRAME, bytes(640)),
        ("tts.done", {"engine": "none", "sample_rate": "16000"}, b""),
    ),
    "loom.host": (("host.ready", {"plugins": ""}, b""),),
}
"""The topics of docs/CONTRACT.md: type, metadata and payload of well-made events."""
_ODD = (
    "", "\0", "\n", "-1", "0", "nan", "1e999", "99999999999999999999", "true", "\u2028",
    "\U0001f600", "../../etc/passwd", "{}", "' OR 1=1", "x" * 5000,
)  # fmt: skip
_SIZES = (0, 1, 2, 3, 7, 639, 640, 1000, 70_000)


class Sample(NamedTuple):
    """One event to publish."""

    spec: SubscriptionSpec
    """Of the plugin, that hears it."""
    topic: str
    event: Event


def samples_of(plan: Plan) -> list[Sample]:
    """At least one for each subscription, in the manifest's order; empty where it hears nothing."""
    return [sample for spec in plan.manifest.subscribes for sample in _of(plan, spec)]


def _of(plan: Plan, spec: SubscriptionSpec) -> list[Sample]:
    told = list(_told(plan, spec)) or list(_standard(spec))
    return told or [Sample(spec, topic_of(spec.topic), _plain(kind)) for kind in _types(spec)]


def _types(spec: SubscriptionSpec) -> tuple[str, ...]:
    return spec.types or ("sample",)


def _plain(kind: str) -> Event:
    return Event(kind, b"conformance", dict(_TURN))


def _told(plan: Plan, spec: SubscriptionSpec) -> Iterator[Sample]:
    for one in plan.stand_ins.events:
        topic = str(one.get("topic", topic_of(spec.topic)))
        kind = str(one.get("type", _types(spec)[0]))
        if matches(spec.topic, topic) and (not spec.types or kind in spec.types):
            metadata = {str(key): str(value) for key, value in one.get("metadata", {}).items()}
            text = str(one.get("text", "")).encode()
            payload = (plan.folder / one["file"]).read_bytes() if "file" in one else text
            yield Sample(spec, topic, Event(kind, payload, metadata))


def _standard(spec: SubscriptionSpec) -> Iterator[Sample]:
    for topic, events in STANDARD.items():
        for kind, metadata, payload in events if matches(spec.topic, topic) else ():
            if not spec.types or kind in spec.types:
                yield Sample(spec, topic, Event(kind, payload, {**_TURN, **metadata}))


def topic_of(pattern: str, token: str = "conformance") -> str:
    """A topic that the pattern matches."""
    return ".".join(token if part in ("*", ">") else part for part in pattern.split("."))


def garbage(plan: Plan, count: int) -> Iterator[Sample]:
    """Nothing that anybody would send, though of types that the plugin hears, if it names any."""
    dice = random.Random(plan.seed)
    for number in range(count):
        spec = plan.manifest.subscribes[number % len(plan.manifest.subscribes)]
        known = [sample for sample in _of(plan, spec) if sample.event.metadata]
        keys = [*dice.choice(known).event.metadata, *_ODD[1:4]] if known else list(_ODD[1:4])
        metadata = {key: dice.choice(_ODD) for key in dice.sample(keys, dice.randint(0, len(keys)))}
        kind = dice.choice(spec.types) if spec.types else dice.choice(("sample", *_ODD[:4]))
        payload = dice.randbytes(dice.choice(_SIZES))
        topic = topic_of(spec.topic, dice.choice(("conformance", "x", "0", "mic")))
        yield Sample(spec, topic, Event(kind, payload, metadata))


def again(event: Event) -> Event:
    """The same, published anew."""
    return Event(event.type, event.payload, event.metadata)
