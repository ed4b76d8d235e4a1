"""Questions with pauses in them, through real models: one question, one answer."""

from __future__ import annotations

import wave
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest

from loom_host.turn import speak_file
from loom_sdk import Event

from .test_voice_loop import RECORDINGS, voice_host

RATE = 16_000


def with_pauses(target: Path, name: str, pauses: Iterable[tuple[int, int]]) -> Path:
    """A recording, with room tone of `ms` put in at `at_ms`, for each pause."""
    with wave.open(str(RECORDINGS / name)) as file:
        pcm = file.readframes(file.getnframes())
    room = pcm[: 2 * RATE // 2]
    cuts = [(0, 0), *pauses, (len(pcm) * 1000 // 2 // RATE, 0)]
    parts = []
    for (begin, ms), (end, _) in pairwise(cuts):
        tone = room * (1 + 2 * RATE * ms // 1000 // len(room))
        parts.append(tone[: 2 * RATE * ms // 1000])
        parts.append(pcm[2 * RATE * begin // 1000 : 2 * RATE * end // 1000])
    with wave.open(str(target), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(b"".join(parts))
    return target


@pytest.mark.slow
async def test_a_pause_inside_a_question_does_not_end_it(tmp_path: Path) -> None:
    cases = [
        ("piper_joe_12x9_clean.wav", [(1610, 350)], "108"),
        ("piper_joe_45plus17_clean.wav", [(2210, 450)], "62"),
        ("piper_joe_100by8_clean.wav", [(1990, 600)], "12.5"),
        ("piper_joe_jarvis_12x9_clean.wav", [(1840, 500)], "108"),
    ]
    async with voice_host(tmp_path) as host:
        for name, pauses, expected in cases:
            turn = await speak_file(
                host, with_pauses(tmp_path / "paused.wav", name, pauses), "realtime"
            )
            report = turn.report()
            assert turn.utterances > len(pauses), "the pause did not part the question"
            assert expected in report["answer"], (name, pauses, report["transcript"])
            assert report["audio_out"]["seconds"] > 0.5
            assert 0 < report["stages"]["host_ms"] < report["stages"]["total_ms"]


@pytest.mark.soak
async def test_a_question_long_after_the_bare_phrase_is_answered(tmp_path: Path) -> None:
    async with voice_host(tmp_path) as host:
        for pause_ms in (500, 1500, 4000):
            wav = with_pauses(tmp_path / "late.wav", "piper_joe_12x9_clean.wav", [(985, pause_ms)])
            turn = await speak_file(host, wav, "realtime")
            assert turn.utterances == 2
            assert "108" in turn.report()["answer"], turn.transcripts


@pytest.mark.soak
async def test_a_question_in_two_parts_is_played_one_answer(tmp_path: Path) -> None:
    wav = with_pauses(tmp_path / "paused.wav", "piper_joe_45plus17_clean.wav", [(2210, 450)])
    async with voice_host(tmp_path) as host:
        spoken: list[Event] = []
        async with host.bus.subscribe("audio.out", name="test") as played:
            await speak_file(host, wav, "realtime")
            while played.depth:
                spoken.append(await anext(played))
    assert [event.type for event in spoken].count("audio.first_sample") == 1
