"""Wake on sound: real recordings through the real model, and every order of sound and text."""

from __future__ import annotations

import sys
import wave
from collections.abc import Iterator
from typing import Any

import pytest

from loom_sdk import Event, Plugin
from loom_sdk.errors import ModelMissing, PluginLoadError
from loom_sdk.models import models_dir

from .support import ROOT, FakePort, driver_of, load_plugin, send_event, start

RECORDINGS = ROOT / "tests" / "recordings"
JARVIS = "piper_joe_jarvis_12x9_clean.wav"
FOLDER = ROOT / "plugins" / "native" / "wake-openwakeword"
if str(FOLDER) not in sys.path:
    sys.path.append(str(FOLDER))

module: Any = __import__("wake_openwakeword_plugin")
question: Any = __import__("wake_openwakeword_question")
needs_model = pytest.mark.skipif(
    sys.version_info >= (3, 12) or not (models_dir() / "openwakeword").is_dir(),
    reason="needs Python 3.11 and `loom models pull openwakeword`",
)


@pytest.fixture(scope="module")
def started() -> Plugin:
    plugin = load_plugin("native", "wake-openwakeword")
    start(plugin)
    return plugin


@pytest.fixture
def plugin(started: Plugin) -> Iterator[Plugin]:
    """One plugin for all tests, its streams forgotten in between; loading takes a second."""
    yield started
    streams = vars(started)["_streams"]
    for stream_id in list(streams):
        send_event(started, sound_end(stream_id), FakePort())
    streams.clear()


def pcm_of(name: str) -> bytes:
    with wave.open(str(RECORDINGS / name)) as file:
        return bytes(file.readframes(file.getnframes()))


def chunks(pcm: bytes, stream_id: str = "mic", first_seq: int = 0) -> Iterator[Event]:
    for index in range(len(pcm) // 640):
        metadata = {"stream_id": stream_id, "session_id": "s", "seq": str(first_seq + index),
                    "frame_samples": "320", "sample_rate": "16000"}  # fmt: skip
        payload = pcm[640 * index : 640 * (index + 1)]
        yield Event("audio_chunk", payload, metadata, topic="audio.mic")


def sound_end(stream_id: str = "mic") -> Event:
    return Event("audio_end", b"", {"stream_id": stream_id}, topic="audio.mic")


def transcript(text: str, begin: int, end: int, **metadata: str) -> Event:
    data = {"text": text, "stream_id": "mic", "session_id": "s", "utterance_id": "u",
            "duration_ms": str(end - begin), "end_of_speech_ms": str(end)} | metadata  # fmt: skip
    return Event("transcript.final", b"", data, topic="transcript")


def play(plugin: Plugin, *parts: bytes | Event) -> list[Event]:
    """Feed sound and transcripts in the order given; what the plugin published."""
    port, driver, seq = FakePort(), None, 0
    for part in parts:
        events = list(chunks(part, first_seq=seq)) if isinstance(part, bytes) else [part]
        ended = isinstance(part, Event) and part.type == "audio_end"
        seq = 0 if ended else seq + len(events) * isinstance(part, bytes)
        driver = driver or driver_of(plugin, port)
        for event in events:
            bound = driver.handler(event)
            assert bound is not None
            driver.handle_event(bound, event)
    return port.published


def queries(events: list[Event]) -> list[str]:
    return [event.metadata["text"] for event in events if event.topic == "query"]


def silence(ms: int) -> bytes:
    return bytes(32 * ms)


@needs_model
@pytest.mark.parametrize("name", [JARVIS, "piper_joe_jarvis_12x9_noisy.wav"])
def test_the_spoken_phrase_wakes_once_and_its_question_is_asked(plugin: Plugin, name: str) -> None:
    said = transcript("Hey Jarvis, what is 12 times 9?", 300, 2900)
    wake, query = play(plugin, pcm_of(name), said)
    assert (wake.topic, wake.type, wake.priority) == ("wake", "wake_word_detected", 65)
    assert wake.metadata["phrase"] == "hey jarvis"
    assert float(wake.metadata["score"]) > 0.9
    assert 1000 <= int(wake.metadata["position_ms"]) <= 1700
    assert (query.topic, query.type, query.priority) == ("query", "user.query", 60)
    assert query.metadata["text"] == "what is 12 times 9?"
    assert (query.metadata["utterance_id"], query.metadata["phrase"]) == ("u", "hey jarvis")


@needs_model
@pytest.mark.parametrize(
    "name", ["piper_joe_12x9_clean.wav", "piper_joe_no_wake_noisy.wav", "noise.wav", "silence.wav",
             "espeak_us_f3_12x9_clean.wav"]
)  # fmt: skip
def test_other_speech_noise_and_silence_do_not_wake(plugin: Plugin, name: str) -> None:
    assert play(plugin, pcm_of(name), transcript("What is 12 times 9?", 300, 2900)) == []


@needs_model
def test_a_transcript_that_is_faster_than_the_sound_is_kept_until_the_wake(plugin: Plugin) -> None:
    said = transcript("Hey Jarvis, what is 12 times 9?", 300, 2900)
    assert queries(play(plugin, said, pcm_of(JARVIS))) == ["what is 12 times 9?"]


@needs_model
def test_after_the_bare_phrase_the_next_transcript_is_the_query(plugin: Plugin) -> None:
    bare = transcript("Hey, Daravist.", 300, 1300)
    question = transcript("What is 12 times 9?", 4000, 5500)
    other = transcript("Not for you.", 6000, 7000)
    sound = pcm_of(JARVIS)[: 32 * 1300] + silence(1000)
    assert queries(play(plugin, sound, bare, question, other)) == ["What is 12 times 9?"]


@needs_model
def test_a_bare_phrase_before_a_pause_inside_one_transcript_stays_awake(plugin: Plugin) -> None:
    bare, question = transcript("Hey Jarvis.", 300, 2900), transcript("Stop it.", 4000, 5000)
    assert queries(play(plugin, pcm_of(JARVIS), bare, question)) == ["Stop it."]


@needs_model
def test_a_query_that_goes_on_is_asked_as_a_whole(plugin: Plugin) -> None:
    first = transcript("Hey Jarvis, what is 12?", 300, 2900, utterance_id="a")
    both = "So. Hey Jarvis, what is 12 times 9?"
    whole = transcript(both, 300, 3900, utterance_id="b", continues="a")
    other = transcript("Not for you.", 4000, 5000, utterance_id="c", continues="?")
    asked = queries(play(plugin, pcm_of(JARVIS), first, whole, other))
    assert asked == ["what is 12?", "what is 12 times 9?"]


@needs_model
def test_the_awake_state_expires_in_stream_time(plugin: Plugin) -> None:
    sound = pcm_of(JARVIS)[: 32 * 1300] + silence(1000)
    assert queries(play(plugin, sound, transcript("Too late.", 9900, 11_000))) == []


@needs_model
def test_speech_before_the_wake_is_not_asked(plugin: Plugin) -> None:
    before = transcript("I was saying something.", 0, 200)
    said = transcript("Hey Jarvis, what is 12 times 9?", 300, 2900)
    assert queries(play(plugin, before, pcm_of(JARVIS), said)) == ["what is 12 times 9?"]


@needs_model
def test_without_stream_time_the_wall_clock_counts(plugin: Plugin) -> None:
    sound = pcm_of(JARVIS)
    wake = play(plugin, sound)[0]
    metadata = {"text": "Hey Jarvis, what time is it?", "duration_ms": "2000"}
    later = wake.timestamp_ms + 1000
    said = Event("transcript.final", b"", metadata, topic="transcript", timestamp_ms=later)
    assert queries(play(plugin, said)) == ["what time is it?"]
    assert queries(play(plugin, said)) == []


@needs_model
def test_a_second_stream_and_redelivered_chunks_are_kept_apart(plugin: Plugin) -> None:
    port = FakePort()
    for first, second in zip(chunks(pcm_of(JARVIS), "a"), chunks(pcm_of("noise.wav"), "b"),
                             strict=False):  # fmt: skip
        for event in (first, first, second):
            send_event(plugin, event, port)
    assert [event.metadata["stream_id"] for event in port.published] == ["a"]


@needs_model
def test_lost_chunks_do_not_shift_the_clock(plugin: Plugin) -> None:
    port = FakePort()
    for event in chunks(pcm_of(JARVIS), first_seq=1000):
        send_event(plugin, event, port)
    assert 21_000 <= int(port.published[0].metadata["position_ms"]) <= 21_700


@needs_model
def test_a_phrase_said_twice_within_the_refractory_time_wakes_once(plugin: Plugin) -> None:
    phrase = pcm_of(JARVIS)[: 32 * 1300] + silence(300)
    assert len(play(plugin, phrase + phrase)) == 1
    assert len(play(plugin, sound_end(), phrase + silence(2000) + phrase)) == 2


@needs_model
def test_importing_the_engine_leaves_no_placeholder_behind(started: Plugin) -> None:
    assert "openwakeword.custom_verifier_model" not in sys.modules


@needs_model
def test_missing_model_names_the_pull_command(tmp_path: Any) -> None:
    with pytest.raises(ModelMissing, match="loom models pull"):
        start(load_plugin("native", "wake-openwakeword", model=str(tmp_path / "none")))
    with pytest.raises(ModelMissing, match=r"no melspectrogram\.onnx"):
        start(load_plugin("native", "wake-openwakeword", model=str(tmp_path)))


@pytest.mark.parametrize("version", [(3, 12), (3, 13)])
def test_where_it_cannot_be_installed_the_message_names_the_other_plugin(
    version: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openwakeword.model", None)
    monkeypatch.setattr(module.sys, "version_info", version)
    with pytest.raises(PluginLoadError, match=r"3\.12.*wake-phrase"):
        module.load_model_class()


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openwakeword.model", None)
    monkeypatch.setattr(module.sys, "version_info", (3, 11))
    with pytest.raises(PluginLoadError, match=r"loom-host\[voice\]"):
        module.load_model_class()


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("Hey Jarvis, what is 12 times 9?", "what is 12 times 9?"),
        ("Hey, Jarvis. What's up?", "What's up?"),
        ("A Jarvis, what is 12 times 9?", "what is 12 times 9?"),
        ("Jarvis, stop!", "stop!"),
        ("the jarvis was twelve times nine", "was twelve times nine"),
        ("So, hey Jarvis, what is it?", "what is it?"),
        ("Hey, Jervis what now?", "what now?"),
        ("Hey Jarvis.", ""),
        ("What is 12 times 9?", "What is 12 times 9?"),
        ("Tell me a joke.", "Tell me a joke."),
        ("I was saying something else. Hey Jarvis, what is it?", "what is it?"),
        ("", ""),
        ("...", ""),
    ],
)
def test_the_phrase_is_taken_off_the_text_as_written(text: str, rest: str) -> None:
    assert question.without_phrase(text, "hey jarvis") == rest
