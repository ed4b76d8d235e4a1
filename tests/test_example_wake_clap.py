"""examples/wake-clap: claps in rooms and noise wake, recorded speech does not, in any tier."""

from __future__ import annotations

import asyncio
import json
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from loom_host import Host
from loom_host.testing import real_host
from loom_host.turn import speak_file
from loom_sdk import Event

from .support import ROOT
from .test_voice_loop import voice_host

EXAMPLE = ROOT / "examples" / "wake-clap"
RECORDINGS = ROOT / "tests" / "recordings"
INDEX: list[dict[str, Any]] = json.loads((RECORDINGS / "index.json").read_text())
RATE = 16_000
Sound = npt.NDArray[np.float64]
"""Samples at RATE, full scale 1."""

if str(EXAMPLE) not in sys.path:
    sys.path.append(str(EXAMPLE))
detector: Any = __import__("wake_clap_detector")


def quiet(ms: int) -> Sound:
    return np.zeros(ms * RATE // 1000)


def clap(seed: int, echo: float, peak: float = 0.5) -> Sound:
    """400 ms: a burst about 1.2 to 2.8 kHz, and the echo of a room whose RT60 is `echo` s."""
    rng, t = np.random.default_rng(seed), np.arange(RATE * 2 // 5) / RATE
    centre = rng.uniform(1200, 2800)
    ring = np.sin(2 * np.pi * centre * t) * np.exp(-t / 0.0015)
    burst = np.convolve(rng.normal(0, 1, t.size) * np.exp(-t / 0.003), ring)[: t.size]
    room = rng.normal(0, 1, t.size) * 10 ** (-3 * t / echo) * np.std(burst) * 0.5
    sound = burst + np.convolve(room, ring)[: t.size] * 0.5
    return np.asarray(sound / np.abs(sound).max() * peak)


def row(
    *gaps_ms: int, seed: int = 0, echo: float = 0.4, before: int = 800, behind: int = 1200
) -> Sound:
    """One clap more than there are gaps, and quiet around them."""
    starts = np.cumsum([before, *gaps_ms]) * RATE // 1000
    sound = np.zeros(starts[-1] + RATE * 2 // 5 + behind * RATE // 1000)
    for index, start in enumerate(starts):
        one = clap(seed + index, echo)
        sound[start : start + one.size] += one
    return sound


def recorded(name: str) -> Sound:
    """A recording at RATE, its first channel."""
    with wave.open(str(RECORDINGS / name)) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        sound = pcm.reshape(-1, file.getnchannels())[:, 0] / 32768
        rate = file.getframerate()
    if rate == RATE:
        return np.asarray(sound)
    soxr = pytest.importorskip("soxr", reason="needs loom-host[voice]")
    return np.asarray(soxr.resample(sound, rate, RATE))


def pcm_of(sound: Sound) -> bytes:
    return bytes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())


def wakes(sound: Sound, count: int = 2, contrast: float = 12.0) -> int:
    """How often a detector that hears it in chunks of 20 ms wakes."""
    pcm, ears = pcm_of(sound), detector.Detector(count, contrast)
    chunks = (pcm[start : start + 640] for start in range(0, len(pcm), 640))
    return sum(len(list(ears.feed(chunk))) for chunk in chunks)


@pytest.mark.parametrize("echo", [0.1, 0.4, 0.6])
@pytest.mark.parametrize("gap", [150, 250, 400])
def test_two_claps_wake_in_rooms_dry_and_live(gap: int, echo: float) -> None:
    heard = [wakes(row(gap, seed=100 * seed, echo=echo)) for seed in range(8)]
    assert heard == [1] * 8


def test_two_claps_wake_in_the_noise_of_a_room() -> None:
    noise = recorded("noise.wav")
    sounds = [row(250, seed=100 * seed) for seed in range(16)]
    heard = [wakes(sound + np.resize(noise, sound.size)) for sound in sounds]
    assert heard.count(1) >= 15
    assert max(heard) == 1


def test_no_recording_wakes_it() -> None:
    valid = [entry["file"] for entry in INDEX if entry["expectation"] != "invalid"]
    alarms = {name: wakes(recorded(name)) for name in valid}
    assert len(alarms) == 22
    assert {name: count for name, count in alarms.items() if count} == {}


def test_recordings_one_after_another_do_not_wake_it_even_when_it_listens_closely() -> None:
    """Joined without a pause, thrice as loud, and with little contrast asked for."""
    valid = [entry["file"] for entry in INDEX if entry["expectation"] != "invalid"]
    assert wakes(np.concatenate([3 * recorded(name) for name in valid]), contrast=9.0) == 0


def knock(gap: int) -> Sound:
    t = np.arange(RATE * 2 // 5) / RATE
    one = 0.5 * np.sin(2 * np.pi * 180 * t) * np.exp(-t / 0.02)
    return np.concatenate([quiet(800), one[: gap * RATE // 1000], one, quiet(1200)])


OTHERS = {
    "one clap": row(),
    "three claps": row(250, 250),
    "applause": row(*[130] * 20),
    "a slow clapper": row(800, 800, 800),
    "claps too near": row(60),
    "knocks": knock(250),
    "silence": quiet(3000),
    "claps in speech": np.concatenate([recorded("piper_joe_no_wake_clean.wav")] * 2)[: 5 * RATE]
    + np.resize(row(250), 5 * RATE) * 0.2,
    "beeps": np.tile(np.concatenate([np.sin(np.arange(RATE // 10)) * 0.3, quiet(150)]), 8),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_two_claps_does_not_wake(name: str) -> None:
    assert wakes(OTHERS[name]) == 0


def test_as_many_claps_as_are_asked_for() -> None:
    rows = [row(*[250] * more) for more in range(5)]
    for count in (2, 3, 4):
        assert [wakes(sound, count) for sound in rows] == [
            int(claps == count) for claps in range(1, 6)
        ]


# -- in a host

ALLOW = {"subscribe": ["audio.mic", "transcript"], "publish": ["wake", "query"]}


async def woken(host: Host, sound: Sound) -> list[tuple[str, str, str]]:
    """Topic, phrase and time of the wakes of a microphone that hears `sound`."""
    pcm = pcm_of(sound)
    async with host.bus.subscribe("wake") as wakes:
        for seq in range(len(pcm) // 640):
            metadata = {"session_id": "s", "stream_id": "mic", "seq": str(seq),
                        "frame_samples": "320", "sample_rate": "16000"}  # fmt: skip
            chunk = Event("audio_chunk", pcm[640 * seq : 640 * (seq + 1)], metadata)
            await host.bus.publish("audio.mic", chunk)
        async with asyncio.timeout(20):
            event = await anext(wakes)
        data = event.metadata
    return [(event.type, data["phrase"], data["position_ms"])]


@pytest.mark.soak
async def test_it_hears_the_same_in_every_tier() -> None:
    heard = {}
    for tier in ("native", "grpc", "wasm"):
        async with real_host(EXAMPLE, tier=tier, allow=ALLOW) as host:
            heard[tier] = await woken(host, row(250))
    assert heard["native"] == heard["grpc"] == heard["wasm"]
    assert heard["native"][0][:2] == ("wake_word_detected", "clap clap")


@pytest.mark.slow
async def test_one_line_puts_it_in_place_of_the_wake_phrase(tmp_path: Path) -> None:
    from loom_host.discovery import code_hash

    table = {"role": "wake", "trusted": True, "code": code_hash(EXAMPLE),
             "allow": ALLOW | {"labels": ["local-only"]}}  # fmt: skip
    question = recorded("piper_joe_no_wake_clean.wav")
    sound = np.concatenate([row(250, behind=300), question, quiet(500)])
    path = tmp_path / "claps.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(pcm_of(sound))
    changes = {"host": {"plugin_paths": [str(EXAMPLE)]}, "roles": {"wake": ["wake-clap"]}}
    async with voice_host(tmp_path, **changes, plugins={"wake-clap": table}) as host:
        assert not {"wake-phrase", "wake-openwakeword"} & set(host.plugins)
        report = (await speak_file(host, path, "realtime")).report()
    assert report["wake"]["phrase"] == "clap clap"
    assert "12 times 9" in report["transcript"]
    assert "108" in report["answer"]
