"""One spoken turn through a running host: feeds a recording or a text, collects what came of it."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loom_sdk import Event
from loom_sdk.errors import ActionFailed, DeadlineExceeded
from loom_sdk.events import new_id

from .host import Host

QUIET_LOOKS, LOOK_EVERY_S = 20, 0.01
"""So often in a row nothing may be queued or running before the host counts as idle."""
TURN_TIMEOUT_S = 120.0


@dataclass
class Heard:
    """One utterance on its way. Unix times in ms; 0 where that has not come."""

    end_of_speech_ms: float = 0.0
    """Arrival of the last voiced sample."""
    published_ms: float = 0.0
    """When the whole utterance was published."""
    transcript_ms: float = 0.0
    text: str = ""
    first_audio_ms: float = 0.0
    """When the first sample of its answer reached the sink."""
    audio_out: dict[str, Any] | None = None


@dataclass
class Turn:
    """What was heard, decided, answered and played; of several questions, the last one answered."""

    wake: dict[str, Any] | None = None
    heard: dict[str, Heard] = field(default_factory=dict)
    """Utterances by id, as they came."""
    continued: set[str] = field(default_factory=set)
    """Those that are part of a later one's text."""
    result: dict[str, Any] = field(default_factory=dict)
    status: str = ""
    message: str = ""

    def take(self, event: Event) -> None:
        """Note one event of the turn."""
        data = event.metadata
        if event.topic == "wake":
            self.wake = {"phrase": data.get("phrase"), "score": float(data.get("score", 0))}
        elif event.topic == "agent.voice" and event.type == "action_result" and "turn" in data:
            self.result = json.loads(data["turn"])
            self.status, self.message = data.get("status", ""), data.get("message", "")
        elif event.topic in ("utterance", "transcript", "audio.out"):
            unnamed = event.id if event.topic == "transcript" else ""
            key = data.get("utterance_id", unnamed)
            self._hear(event, self.heard.setdefault(key, Heard()))

    def _hear(self, event: Event, heard: Heard) -> None:
        data = event.metadata
        if event.topic == "utterance":
            heard.published_ms = event.timestamp_ms
            heard.end_of_speech_ms = float(data.get("end_of_speech_unix_ms", event.timestamp_ms))
        elif event.topic == "transcript":
            heard.text, heard.transcript_ms = data.get("text", ""), event.timestamp_ms
            if "continues" in data:
                self.continued.add(data["continues"])
        elif event.type == "audio.first_sample" and not heard.first_audio_ms:
            heard.first_audio_ms = float(data["unix_ms"])
        elif event.type == "audio.done":
            seconds = round(float(data.get("seconds", 0)), 3)
            heard.audio_out = {"path": data.get("path"), "seconds": seconds}

    @property
    def utterances(self) -> int:
        return sum(1 for heard in self.heard.values() if heard.published_ms)

    @property
    def transcripts(self) -> list[str]:
        """What was understood, each word once: not the parts of what was joined later."""
        return [
            heard.text
            for key, heard in self.heard.items()
            if heard.text and key not in self.continued
        ]

    def answered(self) -> Heard:
        """The utterance that was answered; an empty one for a typed question."""
        return self.heard.get(self.result.get("utterance_id", ""), Heard())

    @property
    def first_audio_ms(self) -> float:
        """Unix ms at which the first sample of the answer reached the sink; 0 without one."""
        return self.answered().first_audio_ms

    def _waited_ms(self, answered: Heard) -> float:
        """For the recogniser, which was still at an earlier utterance."""
        before = [
            heard.transcript_ms
            for heard in self.heard.values()
            if 0 < heard.published_ms < answered.published_ms
        ]
        return max(0.0, max(before, default=0.0) - answered.published_ms)

    def stages(self) -> dict[str, float]:
        """ms per stage, the total from end of speech to first answer audio, and the host's part.

        `host_ms` is the total less the wait of the VAD's hangover, less that for the recogniser
        where it was at an earlier utterance (`earlier_stt`), and less the time that the plugins on
        the critical path measured inside themselves. All are those of the utterance answered.
        """
        stages = {
            k.removesuffix("_us"): v / 1000 for k, v in self.result.get("inside_us", {}).items()
        }
        stages = {name: round(value, 1) for name, value in stages.items()}
        heard = self.answered()
        if not (heard.first_audio_ms and heard.end_of_speech_ms):
            return stages
        total = heard.first_audio_ms - heard.end_of_speech_ms
        hangover = max(0.0, heard.published_ms - heard.end_of_speech_ms)
        waited = self._waited_ms(heard)
        inside = sum(self.result.get("inside_us", {}).values()) / 1000
        return {
            "hangover": round(hangover, 1),
            **({"earlier_stt": round(waited, 1)} if waited else {}),
            **stages,
            "total_ms": round(total, 1),
            "host_ms": round(total - hangover - waited - inside, 1),
        }

    def report(self) -> dict[str, Any]:
        """The JSON of `loom demo --json`, less the plugins."""
        return {
            "wake": self.result.get("wake") or self.wake,
            "transcript": self.result.get("transcript") or " ".join(self.transcripts),
            "route": self.result.get("route"),
            "tool": self.result.get("tool"),
            "answer": self.result.get("answer", ""),
            "audio_out": self.answered().audio_out,
            "stages": self.stages(),
        }


TOPICS = ("vad", "utterance", "wake", "transcript", "agent.voice", "audio.out")


class Listener:
    """Follows a turn's topics into a `Turn` for as long as it is open."""

    def __init__(self, host: Host) -> None:
        self.turn = Turn()
        self._host = host
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Listener:
        for topic in TOPICS:
            self._tasks.append(asyncio.create_task(self._follow(topic)))
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, topic: str) -> None:
        async with self._host.bus.subscribe(topic, name=f"turn:{topic}") as events:
            async for event in events:
                self.turn.take(event)


async def settle(host: Host, deadline: float) -> None:
    """Wait until nothing is queued or running. Raises DeadlineExceeded."""
    idle = 0
    while idle < QUIET_LOOKS:  # looks, not time: a stalled loop must not count as quiet
        idle = 0 if host.busy() else idle + 1
        if time.monotonic() > deadline:
            raise DeadlineExceeded("the turn did not come to an end in time")
        await asyncio.sleep(LOOK_EVERY_S)


async def speak_file(host: Host, path: Path, pace: str) -> Turn:
    """Play a recording into the host as if it were the microphone.

    Raises:
        ActionFailed: with code AUDIO_* where it is no readable recording, NO_SPEECH, NO_WAKE,
            NO_QUESTION, or the turn's own failure.
    """
    async with Listener(host) as listener:
        await host.invoke(
            "audio.stream_file", {"path": str(path), "pace": pace}, timeout_ms=600_000
        )
        await settle(host, time.monotonic() + TURN_TIMEOUT_S)
        turn = listener.turn
    _judge(turn, path)
    return turn


async def ask_text(host: Host, question: str) -> Turn:
    """Put a typed question to the voice agent; nothing is spoken."""
    async with Listener(host) as listener:
        span = host.telemetry.tracer.start("user.query")
        span.end()
        event = Event(
            "user.query",
            metadata={"text": question, "utterance_id": new_id(), "speak": "false"},
            priority=60,
            traceparent=span.traceparent,
        )
        await host.bus.publish("query", event)
        await settle(host, time.monotonic() + TURN_TIMEOUT_S)
        turn = listener.turn
    if not turn.result:
        raise ActionFailed("the agent gave no answer: see the log", code="NO_ANSWER")
    return turn


def _judge(turn: Turn, path: Path) -> None:
    if not turn.utterances:
        raise ActionFailed(f"{path}: no speech was found in it", code="NO_SPEECH")
    if not turn.transcripts:
        raise ActionFailed(f"{path}: no words were understood in it", code="NO_SPEECH")
    if not turn.result and turn.wake:
        raise ActionFailed(
            f"{path}: the wake phrase {turn.wake['phrase']!r} was heard, but no question after it",
            code="NO_QUESTION",
        )
    if not turn.result:
        heard = " ".join(turn.transcripts)
        raise ActionFailed(
            f"{path}: no wake phrase was heard; begin with 'hey loom' or 'hey jarvis'. "
            f"Heard: {heard!r}",
            code="NO_WAKE",
        )
