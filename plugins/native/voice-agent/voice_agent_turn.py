"""One question on its way to an answer: labels, clocks, and the report at its end."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from loom_sdk import AsyncContext, Event
from loom_sdk.engines import ToolCall
from loom_sdk.errors import LoomError, encode, mapping_of
from loom_sdk.toolloop import Outcome

AGENT_TOPIC = "agent.voice"
PRIORITY = 50
PAUSE = re.compile(r"[.?!,;:]+\s+(\w)")
STATUS = {"ACTION_TIMEOUT": "timeout", "ACTION_RETRYABLE": "retryable"}


def unix_ms() -> float:
    return time.time_ns() / 1e6


def labels_of(event: Event) -> dict[str, str]:
    """What every event of a turn carries."""
    labels = {key: event.metadata.get(key, "") for key in ("session_id", "stream_id")}
    return labels | {"utterance_id": event.metadata.get("utterance_id") or event.id}


def status_of(error: BaseException) -> dict[str, str]:
    """Metadata of an `action_result`: status, code and message of an error."""
    info = encode(error)
    status = STATUS.get(mapping_of(error).status, "error")
    return {"status": status, "code": info.code, "message": info.message}


@dataclass(slots=True)
class Stage:
    """The clock of one nested call on the way from end of speech to first audio."""

    began: int = field(default_factory=time.perf_counter_ns)
    wall_us: int = 0
    """Around the call, until what the next stage needs was there."""
    inside_us: int = 0
    """In the provider, as it reports."""

    def end(self, inside_us: int) -> None:
        self.wall_us = (time.perf_counter_ns() - self.began) // 1000
        self.inside_us = inside_us


async def at_once() -> None:
    """Nothing to wait for."""


@dataclass(slots=True)
class Turn:
    """All that is known of one question."""

    labels: dict[str, str]
    question: str = ""
    heard: Mapping[str, str] = field(default_factory=dict)
    """Metadata of the query, which holds those of its utterance and transcript."""
    received_unix_ms: float = field(default_factory=unix_ms)
    speak: bool = True
    stages: dict[str, Stage] = field(default_factory=dict)
    tool: dict[str, Any] | None = None
    """The last one that was called."""
    path: str = "model"
    """Who chose the tool: the `model`, or the `quick` path past it."""
    route: dict[str, Any] | None = None
    answer: str = ""
    first_audio_unix_ms: float | None = None
    outcome: dict[str, str] = field(default_factory=lambda: {"status": "ok"})
    sequence: int = 0
    go_ahead: Callable[[], Awaitable[None]] = at_once
    """Returns when the speaker is not going on with the question: then answer it aloud, and act."""

    @classmethod
    def of(cls, event: Event, speak: bool) -> Turn:
        given = event.metadata
        text = given.get("text", "").strip()
        if "continues" in given:
            # Recognisers end a sentence at every pause: "What is 12? Times 9."
            text = PAUSE.sub(lambda begin: f" {begin[1].lower()}", text)
        turn = cls(labels_of(event), text, given)
        turn.speak = speak and given.get("speak") != "false"
        stage = Stage()
        stage.wall_us, stage.inside_us = _integer(given, "stt_wall_us"), _integer(given, "stt_us")
        if stage.wall_us:
            turn.stages["stt"] = stage
        return turn

    @property
    def id(self) -> str:
        return self.labels["utterance_id"]

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Begin a stage; it is kept once `Stage.end` was called."""
        stage = Stage()
        yield stage
        if stage.wall_us:
            self.stages[name] = stage

    def called(self, call: ToolCall, outcome: Outcome | None = None) -> None:
        """A tool is called, or has been."""
        self.tool = {"name": call["name"], "arguments": call["arguments"]}
        if outcome is not None and outcome.error is None:
            self.tool |= {"result": outcome.output, "provider": outcome.provider}
        else:
            self.tool |= {"result": None, "provider": ""}

    def failed(self, error: BaseException) -> None:
        """The first failure is the turn's outcome."""
        if self.outcome["status"] == "ok":
            self.outcome = status_of(error)

    async def publish(
        self,
        ctx: AsyncContext,
        topic: str,
        kind: str,
        metadata: Mapping[str, str],
        *,
        payload: bytes = b"",
        priority: int = PRIORITY,
    ) -> None:
        """Publish an event with the turn's labels and its next sequence number."""
        texts = self.labels | {"seq": str(self.sequence)} | dict(metadata)
        self.sequence += 1
        await ctx.publish(topic, kind, payload, metadata=texts, priority=priority)

    def stages_ms(self) -> dict[str, float]:
        """Time from end of speech to first audio, part by part."""
        spans = {
            "utterance": _between(self.heard, "end_of_speech_unix_ms", "heard_unix_ms"),
            "stt": None,
            "wake": _since(self.received_unix_ms, self.heard.get("transcript_unix_ms")),
        }
        spans |= {name: stage.wall_us / 1000 for name, stage in self.stages.items()}
        if self.first_audio_unix_ms is not None:
            begin = self.heard.get("end_of_speech_unix_ms", str(self.received_unix_ms))
            spans["total"] = _since(self.first_audio_unix_ms, begin)
        return {name: round(ms, 3) for name, ms in spans.items() if ms is not None}

    def report(self) -> dict[str, Any]:
        """The turn as JSON values; `inside_us` and `wall_us` have the same keys."""
        wake = {"phrase": self.heard.get("phrase", ""), "score": _float(self.heard.get("score"))}
        return {
            "utterance_id": self.id,
            "wake": wake if wake["phrase"] else None,
            "transcript": self.heard.get("transcript") or self.question,
            "question": self.question,
            "route": self.route,
            "path": self.path,
            "tool": self.tool,
            "answer": self.answer,
            "stages_ms": self.stages_ms(),
            "end_of_speech_unix_ms": _float(self.heard.get("end_of_speech_unix_ms")),
            "heard_unix_ms": _float(self.heard.get("heard_unix_ms")),
            "first_audio_unix_ms": self.first_audio_unix_ms,
            "inside_us": {name: stage.inside_us for name, stage in self.stages.items()},
            "wall_us": {name: stage.wall_us for name, stage in self.stages.items()},
        }

    async def close(self, ctx: AsyncContext) -> None:
        """Publish how the turn ended."""
        metadata = self.outcome | {"action_type": "turn", "turn": json.dumps(self.report())}
        await self.publish(ctx, AGENT_TOPIC, "action_result", metadata)


def spoken_apology(error: LoomError, what: str) -> str:
    """A sentence for a person; code and message go into the `action_result`."""
    late = mapping_of(error).status == "ACTION_TIMEOUT"
    return f"Sorry, {what} did not answer{' in time' if late else ''}."


def _float(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _integer(metadata: Mapping[str, str], key: str) -> int:
    return int(_float(metadata.get(key)) or 0)


def _since(end: float | None, begin: str | None) -> float | None:
    start = _float(begin)
    return None if start is None or end is None else end - start


def _between(metadata: Mapping[str, str], begin: str, end: str) -> float | None:
    return _since(_float(metadata.get(end)), metadata.get(begin))
