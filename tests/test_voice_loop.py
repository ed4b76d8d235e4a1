"""The main job, whole: a recording in, a spoken answer out, through real models and all tiers."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loom_host import Host, load_settings, status
from loom_host.config import merge
from loom_host.turn import Turn, settle, speak_file
from loom_sdk.errors import ActionFailed

from .support import ROOT

RECORDINGS = ROOT / "tests" / "recordings"
QUESTION = ROOT / "loom_host" / "data" / "question.wav"
JARVIS = RECORDINGS / "piper_joe_jarvis_12x9_clean.wav"


@asynccontextmanager
async def voice_host(folder: Path, **changes: Any) -> AsyncIterator[Host]:
    """The voice profile, warm, that writes its answers to `folder/answer.wav`."""
    sink = {"sink": "wav", "sink_path": str(folder / "answer.wav")}
    base = {"extends": "voice", "plugins": {"audio-io": {"config": sink}}}
    async with Host(load_settings(None, merge(base, changes))) as host:
        await host.settled()
        await settle(host, time.monotonic() + 60)
        yield host


async def transcribed(host: Host, path: Path) -> str:
    """What the recogniser hears in a WAV of any rate."""
    import numpy as np
    import soxr

    with wave.open(str(path)) as file:
        sound = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        rate = file.getframerate()
    pcm = soxr.resample(sound.astype("float32"), rate, 16000).astype("<i2").tobytes()
    result = await host.invoke(
        "stt.transcribe", {}, payload=pcm, content_type="audio/pcm;rate=16000"
    )
    return str(result.output["text"])


async def test_a_spoken_question_is_answered_aloud_through_all_three_tiers(tmp_path: Path) -> None:
    async with voice_host(tmp_path) as host:
        turn = await speak_file(host, QUESTION, "realtime")
        report = turn.report()
        assert report["wake"]["phrase"] == "hey loom"
        assert "12 times 9" in report["transcript"]
        assert report["tool"]["name"] == "calculator.evaluate"
        assert report["tool"]["result"]["result"] == "108"
        assert "108" in report["answer"]
        assert report["route"]["route"] == "Local"
        assert report["audio_out"]["seconds"] > 0.5
        assert report["stages"]["total_ms"] > report["stages"]["host_ms"] > 0
        assert {h.spec.tier for h in host.plugins.values()} == {"native", "wasm", "grpc"}
        assert "108" in await transcribed(host, tmp_path / "answer.wav")
        recorded = host.telemetry.tracer.finished()
    (root,) = [span for span in recorded if span.name == "utterance"]
    spans = {span.span_id: span for span in recorded if span.trace_id == root.trace_id}
    assert [s.name for s in spans.values() if s.parent_id not in spans] == ["utterance"]
    above = {s.name: spans[s.parent_id].name for s in spans.values() if s is not root}
    assert above["handle utterance"] == "publish utterance"
    assert above["publish utterance"] == "utterance"
    assert above["llm.generate"] == "invoke llm.chat"  # the child's own
    assert {"invoke stt.transcribe", "invoke calculator.evaluate", "invoke tts.synthesize"} <= set(
        above
    )


async def test_recordings_without_a_question_say_why(tmp_path: Path) -> None:
    async with voice_host(tmp_path) as host:
        for name, code in (
            ("silence.wav", "NO_SPEECH"),
            ("noise.wav", "NO_SPEECH"),
            ("empty.wav", "AUDIO_FILE_EMPTY"),
            ("text.wav", "AUDIO_FILE_INVALID"),
            ("piper_joe_no_wake_clean.wav", "NO_WAKE"),
        ):
            with pytest.raises(ActionFailed) as caught:
                await speak_file(host, RECORDINGS / name, "fast")
            assert caught.value.code == code, caught.value.message


async def _right(host: Host, path: Path) -> Turn:
    turn = await speak_file(host, path, "realtime")
    assert "108" in turn.report()["answer"]
    return turn


SWAPS: dict[str, tuple[dict[str, Any], Path]] = {
    "pocketsphinx": ({"providers": {"stt.transcribe": ["stt-pocketsphinx"]}}, JARVIS),
    "espeak": ({"providers": {"tts.synthesize": ["tts-espeak"]}}, QUESTION),
    "native whisper": ({"plugins": {"stt-whisper": {"tier": "native"}}}, QUESTION),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SWAPS)
async def test_an_engine_is_swapped_by_one_line(name: str, tmp_path: Path) -> None:
    change, recording = SWAPS[name]
    async with voice_host(tmp_path, **change) as host:
        await _right(host, recording)
        running = set(host.plugins)
        assert ("stt-pocketsphinx" in running) == (name == "pocketsphinx")
        assert ("tts-piper" in running) == (name != "espeak")


@pytest.mark.slow
async def test_the_same_utterance_is_answered_when_the_recogniser_is_killed(tmp_path: Path) -> None:
    async with voice_host(tmp_path) as host:
        whisper = host.plugins["stt-whisper"]
        assert whisper.instance is not None
        first = whisper.instance.usage().pid

        async def kill_in_mid_call() -> None:
            while not whisper.slots.active:  # noqa: ASYNC110  # the host's own state
                await asyncio.sleep(0.005)
            os.kill(first, signal.SIGKILL)

        killer = asyncio.create_task(kill_in_mid_call())
        turn = await _right(host, QUESTION)
        await killer
        assert turn.utterances == 1
        row = status.plugin_row(host, whisper)
        assert row["restarts"] == 1
        assert row["pid"] not in (0, first)
