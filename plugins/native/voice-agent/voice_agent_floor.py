"""Who has the floor: a speaker who goes on after a pause has not finished the question.

The voice detector ends an utterance after a short silence, so a question with a pause in it comes
in parts. Nothing waits for a next part. But where speech begins again soon, nothing is said or
done about the part before until the next one is heard, and then both are understood as one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from loom_sdk import Event

MAX_JOINED_BYTES = 28 * 32_000
"""28 s of 16 kHz pcm_s16le: recognisers such as Whisper take 30 s at once."""
SPEECH_HOLDS_S = 5.0
"""Speech that lasts longer than this is a radio's, not the rest of a question."""
QUERY_HOLDS_S = 2.0
"""From the joined transcript to the query that the wake plugin makes of it."""
MAX_SPEECHES = 16

Labels = Mapping[str, str]


@dataclass(slots=True)
class Speech:
    """Speech that goes on, or whose text is not known yet."""

    stream_id: str
    begin_ms: int
    """Position in the stream, as all times here but `until`."""
    until: float
    """Monotonic time in s at which it no longer holds anything up."""


def milliseconds(labels: Labels, key: str) -> int | None:
    text = labels.get(key, "")
    return int(text) if text.isdecimal() else None


def goes_on(former: Labels, stream_id: str, begin_ms: int | None, join_ms: int) -> bool:
    """Whether speech that begins there is the next part of an utterance with these labels."""
    end_ms = milliseconds(former, "end_of_speech_ms")
    if end_ms is None or begin_ms is None or former.get("stream_id", "") != stream_id:
        return False
    return 0 <= begin_ms - end_ms <= join_ms


def joined(former: Event | None, event: Event, join_ms: int) -> Event:
    """An utterance together with the one that it continues, or alone.

    The sound between is left out beyond the detector's hangover and pre-roll. `continues` names
    the former, and all clocks are those of the whole.
    """
    if former is None:
        return event
    old, new = former.metadata, event.metadata
    if old.get("utterance_id", former.id) == new.get("utterance_id", event.id):
        return former  # delivered again
    begin_ms = milliseconds(new, "begin_of_speech_ms")
    length = len(former.payload) + len(event.payload)
    if length > MAX_JOINED_BYTES or not goes_on(old, new.get("stream_id", ""), begin_ms, join_ms):
        return event
    longer = int(new["end_of_speech_ms"]) - int(old["end_of_speech_ms"])
    labels = {
        "continues": old.get("utterance_id", former.id),
        "begin_of_speech_ms": old.get("begin_of_speech_ms", ""),
        "duration_ms": str((milliseconds(old, "duration_ms") or 0) + longer),
    }
    return replace(event, payload=former.payload + event.payload, metadata={**new, **labels})


class Floor:
    """Holds answers back while the one who asked goes on speaking."""

    def __init__(self, join_ms: int) -> None:
        self._join_ms = join_ms
        self._speeches: OrderedDict[str, Speech] = OrderedDict()
        self._changed = asyncio.Event()

    def begin(self, labels: Labels) -> None:
        """Speech has begun (`vad.speech_start`)."""
        begin_ms = milliseconds(labels, "position_ms")
        if begin_ms is None:
            return
        until = time.monotonic() + SPEECH_HOLDS_S
        speech = Speech(labels.get("stream_id", ""), begin_ms, until)
        self._speeches[labels.get("utterance_id", "")] = speech
        if len(self._speeches) > MAX_SPEECHES:
            self._speeches.popitem(last=False)

    def keep(self, utterance_id: str, seconds: float) -> None:
        """It is being understood, for which it has so long from now."""
        if speech := self._speeches.get(utterance_id):
            speech.until = time.monotonic() + seconds

    def end(self, utterance_id: str) -> None:
        """It continues nothing, or held no words."""
        if self._speeches.pop(utterance_id, None):
            self._changed.set()
            self._changed = asyncio.Event()

    def _held_until(self, asked: Labels) -> float:
        """Monotonic time in s until which an answer to what has these labels must wait."""
        held = [
            speech.until
            for speech in self._speeches.values()
            if goes_on(asked, speech.stream_id, speech.begin_ms, self._join_ms)
        ]
        return max(held, default=0.0)

    async def wait(self, asked: Labels) -> None:
        """Returns when nobody goes on with what has these labels. At once in the normal case."""
        while (left := self._held_until(asked) - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):  # wait_for of 3.11 may swallow a cancellation
                    await self._changed.wait()
