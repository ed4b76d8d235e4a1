"""One turn through a host: what is noted of it, what it is blamed for, where the time went."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from loom_host import turn as module
from loom_host.turn import Turn, ask_text, settle, speak_file
from loom_sdk import Event
from loom_sdk.errors import ActionFailed, DeadlineExceeded

from .hosting import native_host

STUDIO: dict[str, Any] = {
    "allow": {
        "provide": ["*"], "subscribe": ["query"],
        "publish": ["utterance", "wake", "transcript", "agent.voice", "audio.out"],
    }
}  # fmt: skip


@pytest.fixture(autouse=True)
def short_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.002)


async def test_a_recording_is_answered_and_told(tmp_path: Path) -> None:
    async with native_host(tmp_path, studio=STUDIO) as host:
        report = (await speak_file(host, Path("/x/answer.wav"), "fast")).report()
    assert report["wake"] == {"phrase": "hey loom", "score": 0.9}
    assert report["transcript"] == "hey loom what is 12 times 9"
    assert (report["route"]["route"], report["tool"]["tier"]) == ("Local", "wasm")
    assert report["answer"] == "12 times 9 is 108."
    assert report["audio_out"] == {"path": "a.wav", "seconds": 1.5}
    stages = report["stages"]
    assert stages["total_ms"] == 1000.0
    assert (stages["stt"], stages["llm"], stages["tts"]) == (300.0, 200.0, 50.0)
    assert stages["hangover"] + stages["host_ms"] == pytest.approx(450.0, abs=0.2)


@pytest.mark.parametrize(
    ("name", "code", "told"),
    [
        ("silence", "NO_SPEECH", "no speech was found"),
        ("mumble", "NO_SPEECH", "no words were understood"),
        ("nobody", "NO_WAKE", r"begin with 'hey loom'.*Heard: 'what is 12 times 9'"),
    ],
)
async def test_a_recording_without_an_answer_is_told_why(
    tmp_path: Path, name: str, code: str, told: str
) -> None:
    async with native_host(tmp_path, studio=STUDIO) as host:
        with pytest.raises(ActionFailed, match=told) as caught:
            await speak_file(host, Path(f"{name}.wav"), "fast")
    assert caught.value.code == code


async def test_a_typed_question(tmp_path: Path) -> None:
    async with native_host(tmp_path, studio=STUDIO) as host:
        turn = await ask_text(host, "what is it")
        assert turn.report()["answer"] == "what is it"
        assert (turn.status, turn.stages()) == ("ok", {})
        with pytest.raises(ActionFailed, match="no answer") as caught:
            await ask_text(host, "say nothing")
        assert caught.value.code == "NO_ANSWER"


async def test_settling_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with native_host(tmp_path, studio=STUDIO) as host:
        monkeypatch.setattr(host, "busy", lambda: True)
        with pytest.raises(DeadlineExceeded, match="did not come to an end"):
            await settle(host, time.monotonic() + 0.02)


def test_without_a_turn_the_events_themselves_are_told() -> None:
    turn = Turn()
    turn.take(Event("x", topic="wake", metadata={"phrase": "p", "score": "0.5"}))
    for text in ("one", "two"):
        turn.take(Event("transcript.final", topic="transcript", metadata={"text": text}))
    turn.take(Event("utterance", topic="utterance", timestamp_ms=5))
    turn.take(Event("audio.started", topic="audio.out"))
    report = turn.report()
    assert report["wake"] == {"phrase": "p", "score": 0.5}
    assert report["transcript"] == "one two"
    assert (turn.utterances, turn.answered().end_of_speech_ms, turn.stages()) == (1, 5.0, {})


def said(topic: str, kind: str, at_ms: int, utterance: str, **metadata: str) -> Event:
    labels = {"utterance_id": utterance} | metadata
    return Event(kind, topic=topic, timestamp_ms=at_ms, metadata=labels)


def answer_of(utterance: str, inside_us: int) -> Event:
    turn = {"utterance_id": utterance, "answer": utterance, "inside_us": {"stt": inside_us}}
    metadata = {"turn": json.dumps(turn), "status": "ok"}
    return Event("action_result", topic="agent.voice", metadata=metadata)


def two_utterances(**second: str) -> Turn:
    """The first ends at 1000 and is understood at 1900, the second ends at 1500."""
    turn = Turn()
    for event in (
        said("utterance", "utterance", 1200, "a", end_of_speech_unix_ms="1000"),
        said("utterance", "utterance", 1700, "b", end_of_speech_unix_ms="1500"),
        said("transcript", "transcript.final", 1900, "a", text="hey loom what is 12"),
        said("transcript", "transcript.final", 2300, "b", text="what is 12 times 9", **second),
    ):
        turn.take(event)
    return turn


def test_stages_are_those_of_the_utterance_that_was_answered() -> None:
    turn = two_utterances(continues="a")
    turn.take(said("audio.out", "audio.done", 2000, "a", path="", seconds="0"))
    turn.take(said("audio.out", "audio.first_sample", 2500, "b", unix_ms="2500"))
    turn.take(said("audio.out", "audio.done", 2600, "b", path="b.wav", seconds="2"))
    turn.take(answer_of("b", 400_000))
    assert turn.stages() == {
        "hangover": 200.0, "earlier_stt": 200.0, "stt": 400.0, "total_ms": 1000.0, "host_ms": 200.0,
    }  # fmt: skip
    assert turn.report()["audio_out"] == {"path": "b.wav", "seconds": 2.0}
    assert turn.transcripts == ["what is 12 times 9"]
    assert turn.utterances == 2


def test_speech_after_the_answered_utterance_does_not_shift_its_clock() -> None:
    turn = two_utterances()
    turn.take(said("audio.out", "audio.first_sample", 2100, "a", unix_ms="2100"))
    turn.take(answer_of("a", 700_000))
    assert turn.stages() == {
        "hangover": 200.0, "stt": 700.0, "total_ms": 1100.0, "host_ms": 200.0,
    }  # fmt: skip
    assert turn.transcripts == ["hey loom what is 12", "what is 12 times 9"]
