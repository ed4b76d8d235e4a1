"""Wake on sound: `audio.mic` and `transcript` in, `wake` and `query` out, by openWakeWord.

The phrase is heard in the sound, the question is read in the transcript. Either may be first here,
and a file may be fed faster than real time, so both are placed on the stream's own clock.
"""

from __future__ import annotations

import sys
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from wake_openwakeword_question import WORD, Spoken, Wake, asked, spoken_of, utterance_id

from loom_sdk import Context, Event, Plugin, on_event
from loom_sdk.errors import ModelMissing, PluginLoadError
from loom_sdk.models import find

SAMPLE_RATE = 16_000
FRAME = 1280
"""Samples per decision, 80 ms: what openWakeWord's models were trained on."""
MAX_STREAMS = 8
"""Streams remembered at once; the one unheard for longest is forgotten first."""


@dataclass(slots=True)
class Stream:
    """What is remembered of one microphone stream."""

    labels: dict[str, str]
    model: Any = None
    pcm: bytearray = field(default_factory=bytearray)
    position: int = 0
    """Samples decided on."""
    next_seq: int = 0
    streak: int = 0
    quiet_until: float = 0.0
    wakes: int = 0
    ended: bool = False
    """Its sound is over; transcripts may still come."""
    wake: Wake | None = None
    answered: tuple[str, Wake] | None = None
    """The last utterance that was a query, and its wake."""
    unasked: deque[Spoken] = field(default_factory=lambda: deque(maxlen=8))
    """Transcripts that no wake claimed yet."""


def load_model_class() -> Any:
    """openWakeWord's `Model`. Raises PluginLoadError saying what to do instead."""
    # The package imports scikit-learn for training verifiers, 90% of its import time, which this
    # plugin never does. Checked against openwakeword 0.6.0; unused names are all it takes from it.
    name = "openwakeword.custom_verifier_model"
    placeholder = ModuleType(name)
    placeholder.train_custom_verifier = None  # type: ignore[attr-defined]  # a name to import
    added = sys.modules.setdefault(name, placeholder) is placeholder
    try:
        from openwakeword.model import Model
    except ImportError as error:
        if sys.version_info >= (3, 12):
            raise PluginLoadError(
                "openwakeword 0.6.0 cannot be installed on Python 3.12 or newer (its "
                "tflite-runtime has no wheel there): use the plugin wake-phrase, or Python 3.11"
            ) from error
        raise PluginLoadError(
            f"openwakeword cannot be imported ({error}): run `pip install 'loom-host[voice]'`, "
            "or use the plugin wake-phrase"
        ) from error
    finally:
        if added:
            sys.modules.pop(name, None)
    return Model


class WakeOpenWakeWord(Plugin):
    """One detector per stream, for the stream's whole life."""

    def __init__(self) -> None:
        super().__init__()
        self._streams: OrderedDict[str, Stream] = OrderedDict()
        self._spare: list[Any] = []
        self._model_class: Any = None
        self._paths: dict[str, str] = {}

    def start(self, ctx: Context) -> None:
        """Load one detector, ready for the first stream.

        Raises:
            PluginLoadError: openwakeword is not installed, as on Python 3.12 and newer.
            ModelMissing: the models were not pulled.
        """
        folder = find(self.config["model"])
        for part in ("melspectrogram.onnx", "embedding_model.onnx", self.config["wake_model"]):
            if not (folder / part).is_file():
                raise ModelMissing(f"{folder} has no {part}: run `loom models pull openwakeword`")
            self._paths[part] = str(folder / part)
        self._model_class = load_model_class()
        self._spare.append(self._new_model())

    def stop(self, ctx: Context) -> None:
        self._streams.clear()
        self._spare.clear()

    def _new_model(self) -> Any:
        import numpy as np

        model = self._model_class(
            wakeword_models=[self._paths[self.config["wake_model"]]],
            inference_framework="onnx",
            melspec_model_path=self._paths["melspectrogram.onnx"],
            embedding_model_path=self._paths["embedding_model.onnx"],
        )
        model.predict(np.zeros(FRAME, np.int16))
        model.reset()
        return model

    @on_event("audio.*", types=("audio_chunk", "audio_end"))
    def heard_sound(self, ctx: Context, event: Event) -> None:
        """One chunk of pcm_s16le, 16 kHz, mono, of any length; or the end of a stream."""
        stream = self._stream(event)
        if event.type == "audio_end":
            model, stream.model, stream.ended = stream.model, None, True
            if model is not None and not self._spare:
                model.reset()
                self._spare.append(model)
            return
        seq = _integer(event.metadata.get("seq"), stream.next_seq)
        if seq < stream.next_seq:
            return  # delivered again after a restart
        if seq > stream.next_seq:
            missing = (seq - stream.next_seq) * _integer(event.metadata.get("frame_samples"), 0)
            stream.position += missing
        stream.next_seq = seq + 1
        stream.pcm += event.payload
        for score in self._scores(stream):
            self._judge(ctx, stream, event, score)

    def _scores(self, stream: Stream) -> Iterator[float]:
        import numpy as np

        while len(stream.pcm) >= 2 * FRAME:
            if stream.model is None:
                stream.model = self._spare.pop() if self._spare else self._new_model()
            frame = np.frombuffer(bytes(stream.pcm[: 2 * FRAME]), "<i2")
            del stream.pcm[: 2 * FRAME]
            stream.position += FRAME
            yield float(next(iter(stream.model.predict(frame).values())))

    def _judge(self, ctx: Context, stream: Stream, event: Event, score: float) -> None:
        stream.streak = stream.streak + 1 if score >= self.config["threshold"] else 0
        at = stream.position * 1000 / SAMPLE_RATE
        if stream.streak != self.config["patience"] or at < stream.quiet_until:
            return
        stream.quiet_until = at + self.config["refractory_ms"]
        metadata = stream.labels | {
            "seq": str(stream.wakes),
            "phrase": self.config["phrase"],
            "score": f"{score:.3f}",
            "position_ms": f"{at:.0f}",
        }
        stream.wakes += 1
        ctx.publish("wake", "wake_word_detected", metadata=metadata, priority=65)
        moment = {"stream": at, "wall": float(event.timestamp_ms)}
        awake = self.config["awake_seconds"] * 1000
        stream.wake = Wake(moment, score, {clock: t + awake for clock, t in moment.items()})
        self._settle(ctx, stream)

    @on_event("transcript", types=("transcript.final",))
    def heard_text(self, ctx: Context, event: Event) -> None:
        """The question, once it is known to have been spoken after or with the phrase."""
        if WORD.search(event.metadata.get("text", "")):
            stream = self._stream(event)
            stream.unasked.append(spoken_of(event))
            self._settle(ctx, stream)

    def _settle(self, ctx: Context, stream: Stream) -> None:
        """Let the wake claim a transcript; those it cannot claim wait for the next wake."""
        waiting, stream.unasked = list(stream.unasked), deque(maxlen=stream.unasked.maxlen)
        for spoken in waiting:
            wake = stream.wake or _continued(stream, spoken.event)
            if wake is None:
                stream.unasked.append(spoken)
                continue
            question = asked(wake, spoken, self.config)
            if question is None:
                stream.unasked.append(spoken)
            elif question:
                stream.wake = None
                stream.answered = (utterance_id(spoken.event), wake)
                self._ask(ctx, spoken.event, question, wake)

    def _ask(self, ctx: Context, event: Event, text: str, wake: Wake) -> None:
        labels = {"text": text, "phrase": self.config["phrase"], "score": f"{wake.score:.3f}"}
        ctx.publish(
            "query",
            "user.query",
            metadata={**event.metadata, **labels},
            priority=60,
            confidence=event.confidence,
        )

    def _stream(self, event: Event) -> Stream:
        given = event.metadata
        stream_id = given.get("stream_id") or next(reversed(self._streams), "")
        known = self._streams.get(stream_id)
        if known is None or (known.ended and event.type == "audio_chunk"):
            labels = {"session_id": given.get("session_id", ""), "stream_id": stream_id}
            stream = Stream(labels)
            if event.type == "audio_chunk":
                # Joined in the middle: positions are counted from the stream's begin all the same.
                stream.next_seq = _integer(given.get("seq"), 0)
                samples = _integer(given.get("frame_samples"), 0)
                stream.position = stream.next_seq * samples
            self._streams[stream_id] = stream
        self._streams.move_to_end(stream_id)
        if len(self._streams) > MAX_STREAMS:
            self._streams.popitem(last=False)
        return self._streams[stream_id]


def _continued(stream: Stream, event: Event) -> Wake | None:
    """The wake of the query that this transcript goes on with."""
    answered, wake = stream.answered or ("", None)
    return wake if event.metadata.get("continues") == answered else None


def _integer(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isdecimal() else default
