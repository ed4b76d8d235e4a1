"""Voice activity detection: microphone in, `vad` and whole `utterance` events out.

Which topic it hears is what `loom.toml` grants of `audio.*`: `audio.mic`, or `audio.gated` where a
noise gate stands before it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

from vad_segmenter import SAMPLE_RATE, Segmenter, Utterance, missing

from loom_sdk import Context, Event, Plugin, on_event

MAX_STREAMS = 16
"""Streams remembered at once; the one unheard for longest is forgotten first."""


@dataclass(slots=True)
class Stream:
    """What is remembered of one microphone stream."""

    segmenter: Segmenter
    labels: dict[str, str]
    """session_id and stream_id."""
    next_seq: int = 0
    edges: int = 0
    """`vad` events published so far."""
    utterances: int = 0
    refused: bool = False
    """It has sent audio of another format, and that was logged."""


class Vad(Plugin):
    """One `Segmenter` per stream, for the stream's whole life."""

    def __init__(self) -> None:
        super().__init__()
        self._streams: OrderedDict[str, Stream] = OrderedDict()

    def start(self, ctx: Context) -> None:
        """Raises ActionFailed without the detector; the first chunk loads it (20 ms)."""
        if find_spec("webrtcvad") is None:
            raise missing()

    @on_event("audio.*", types=("audio_chunk", "audio_end"))
    def heard(self, ctx: Context, event: Event) -> None:
        """One chunk of pcm_s16le, 16 kHz, mono, of any length; or the end of a stream."""
        stream = self._stream(ctx, event)
        seq = _integer(event.metadata.get("seq"), stream.next_seq)
        if seq < stream.next_seq:
            return  # delivered again after a restart
        if event.type == "audio_end":
            self._publish(ctx, stream, stream.segmenter.flush())
            del self._streams[event.metadata.get("stream_id", "")]
            return
        missing = seq - stream.next_seq
        stream.next_seq = seq + 1
        if _format(event) != (SAMPLE_RATE, 1, "pcm_s16le"):
            if not stream.refused:
                ctx.log(f"{_format(event)} is not 16 kHz mono pcm_s16le: ignored", "error")
            stream.refused = True
            return
        if missing:
            samples = missing * _integer(event.metadata.get("frame_samples"), 0)
            self._publish(ctx, stream, stream.segmenter.skip(samples))
        self._publish(ctx, stream, stream.segmenter.feed(event.payload, event.timestamp_ms))

    def _stream(self, ctx: Context, event: Event) -> Stream:
        stream_id = event.metadata.get("stream_id", "")
        if stream_id not in self._streams:
            labels = {"session_id": event.metadata.get("session_id", ""), "stream_id": stream_id}
            # A stream joined in the middle begins where it is: its positions keep their meaning.
            first = _integer(event.metadata.get("seq"), 0)
            stream = Stream(Segmenter(self.config), labels, next_seq=first)
            samples = _integer(event.metadata.get("frame_samples"), 0)
            stream.segmenter.position = first * samples
            self._streams[stream_id] = stream
        self._streams.move_to_end(stream_id)
        if len(self._streams) > MAX_STREAMS:
            forgotten, _ = self._streams.popitem(last=False)
            ctx.log(f"stream {forgotten} forgotten: more than {MAX_STREAMS} at once", "warning")
        return self._streams[stream_id]

    def _publish(
        self, ctx: Context, stream: Stream, changes: Iterator[tuple[bool, Utterance]]
    ) -> None:
        for started, speech in changes:
            position = speech.first_voiced if started else speech.end_voiced
            metadata = stream.labels | {
                "seq": str(stream.edges),
                "utterance_id": speech.id,
                "position_ms": _ms(position),
                "frame_ms": str(self.config["frame_ms"]),
                "mode": str(self.config["mode"]),
                "sample_rate": str(SAMPLE_RATE),
            }
            if speech.dropped:
                metadata["dropped"] = speech.dropped
            stream.edges += 1
            kind = "vad.speech_start" if started else "vad.speech_end"
            ctx.publish("vad", kind, metadata=metadata, priority=70)
            if not started and not speech.dropped:
                self._publish_utterance(ctx, stream, speech)

    def _publish_utterance(self, ctx: Context, stream: Stream, speech: Utterance) -> None:
        pcm = b"".join(speech.frames)
        metadata = stream.labels | {
            "seq": str(stream.utterances),
            "utterance_id": speech.id,
            "sample_rate": str(SAMPLE_RATE),
            "duration_ms": _ms(len(pcm) // 2),
            "begin_of_speech_ms": _ms(speech.first_voiced),
            "end_of_speech_ms": _ms(speech.end_voiced),
            "end_of_speech_unix_ms": f"{speech.arrived_ms:.1f}",
        }
        stream.utterances += 1
        ctx.publish(
            "utterance", "utterance", pcm, metadata=metadata, priority=70, traceparent="new"
        )


def _ms(samples: int) -> str:
    return str(samples * 1000 // SAMPLE_RATE)


def _integer(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isdecimal() else default


def _format(event: Event) -> tuple[int, int, str]:
    given = event.metadata
    rate, channels = given.get("sample_rate"), given.get("channels")
    encoding = given.get("encoding", "pcm_s16le")
    return _integer(rate, SAMPLE_RATE), _integer(channels, 1), encoding
