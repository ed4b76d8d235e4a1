"""The noise gate, built from Zig: microphone frames through the sandbox, and the voice loop too."""

from __future__ import annotations

import array
import math
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loom_host import Host
from loom_host.turn import speak_file
from loom_sdk import Event

from .hosting import next_of
from .test_voice_loop import QUESTION, voice_host
from .wasm_plugins import wasm_host

RATE, SAMPLES = 16_000, 320
ALLOW = {
    "subscribe": ["audio.mic"],
    "publish": ["audio.gated"],
    "provide": ["noise-gate.state"],
}


def tone(level_db: float, samples: int = SAMPLES) -> bytes:
    """A sine of 1 kHz whose root mean square is `level_db` below full scale."""
    top = 32768 * 10 ** (level_db / 20) * math.sqrt(2)
    wave = (top * math.sin(2 * math.pi * 1000 * n / RATE) for n in range(samples))
    return array.array("h", (round(value) for value in wave)).tobytes()


def level(pcm: bytes) -> float:
    samples = array.array("h", pcm)
    mean = sum(sample * sample for sample in samples) / len(samples)
    return 10 * math.log10(max(mean / 32768**2, 1e-12))


def chunk(
    pcm: bytes, seq: int = 0, stream: str = "s1", changes: Mapping[str, str] | None = None
) -> Event:
    labels = {
        "session_id": "a", "stream_id": stream, "seq": str(seq), "sample_rate": str(RATE),
        "channels": "1", "encoding": "pcm_s16le", "frame_samples": str(SAMPLES),
    }  # fmt: skip
    return Event("audio_chunk", pcm, labels | dict(changes or {}))


@asynccontextmanager
async def gate(folder: Path, **config: Any) -> AsyncIterator[Host]:
    async with wasm_host(folder, "noise-gate", allow=ALLOW, config=config) as host:
        yield host


async def passed(host: Host, frames: Iterable[bytes], stream: str = "s1") -> list[bytes]:
    """What comes out for each frame that goes in."""
    out = []
    async with host.bus.subscribe("audio.gated") as gated:
        for seq, frame in enumerate(frames):
            await host.bus.publish("audio.mic", chunk(frame, seq, stream))
            out.append((await next_of(gated)).payload)
    return out


async def test_speech_passes_unchanged_and_quiet_is_turned_down(tmp_path: Path) -> None:
    async with gate(tmp_path, range_db=20) as host:
        loud = await passed(host, [tone(-20)] * 5)
        assert loud[1:] == [tone(-20)] * 4
        quiet = await passed(host, [tone(-55)] * 40)
    assert quiet[0] == tone(-55), "held open"
    assert level(quiet[-1]) == pytest.approx(-75, abs=1)


async def test_nothing_clicks_at_the_edges(tmp_path: Path) -> None:
    async with gate(tmp_path, attack_ms=10, release_ms=40, hold_ms=40) as host:
        frames = await passed(host, [tone(-25)] * 2 + [tone(-51)] * 8)
    opening = array.array("h", frames[0])
    limit = 32768 * 10 ** (-25 / 20) * math.sqrt(2)
    early, late = max(opening[:16]), max(opening[200:])
    assert early < limit * 0.2 < limit * 0.99 < late
    fall = [level(frame) for frame in frames[4:]]
    assert fall == sorted(fall, reverse=True)
    assert fall[-1] < fall[0] - 30


async def test_between_the_thresholds_the_gate_stays_as_it_is(tmp_path: Path) -> None:
    async with gate(tmp_path, open_db=-40, close_db=-50, hold_ms=0) as host:
        assert level((await passed(host, [tone(-45)] * 3))[-1]) < -80
        assert (await passed(host, [tone(-35)] * 2 + [tone(-45)] * 9))[-1] == tone(-45)
        assert level((await passed(host, [tone(-55)] * 9 + [tone(-45)]))[-1]) < -80


async def test_short_pauses_are_held_open(tmp_path: Path) -> None:
    async with gate(tmp_path, hold_ms=100) as host:
        frames = await passed(host, [tone(-20)] * 2 + [tone(-60)] * 5 + [tone(-20)])
        assert frames[2:7] == [tone(-60)] * 5
        later = await passed(host, [tone(-60)] * 12)
    assert level(later[-1]) < -90


async def test_labels_pass_and_the_source_is_the_gates(tmp_path: Path) -> None:
    async with gate(tmp_path) as host, host.bus.subscribe("audio.gated") as gated:
        sent = chunk(tone(-20), 7)
        await host.bus.publish("audio.mic", sent)
        event = await next_of(gated)
        assert (event.type, event.metadata) == ("audio_chunk", sent.metadata)
        assert event.source == "noise-gate"
        end = Event("audio_end", b"", {"stream_id": "s1", "session_id": "a"})
        await host.bus.publish("audio.mic", end)
        event = await next_of(gated)
        assert (event.type, event.metadata) == ("audio_end", end.metadata)
        assert (await host.invoke("noise-gate.state")).output == {"streams": []}


async def test_streams_are_gated_apart_and_the_oldest_is_forgotten(tmp_path: Path) -> None:
    async with gate(tmp_path) as host:
        await passed(host, [tone(-20)] * 2, "loud")
        await passed(host, [tone(-70)] * 2, "quiet")
        states = (await host.invoke("noise-gate.state")).output["streams"]
        assert [(s["stream_id"], s["open"], s["frames"]) for s in states] == [
            ("loud", True, 2), ("quiet", False, 2),
        ]  # fmt: skip
        assert states[0]["level_db"] == pytest.approx(-20, abs=0.2)
        for number in range(15):
            await passed(host, [tone(-70)], f"more{number}")
        states = (await host.invoke("noise-gate.state")).output["streams"]
        assert len(states) == 16
        assert "loud" not in [state["stream_id"] for state in states]


@pytest.mark.parametrize(
    ("pcm", "changes"),
    [(b"\x01" * 641, {}), (tone(-70), {"channels": "2"}), (tone(-70), {"encoding": "opus"})],
)
async def test_what_is_not_mono_pcm_passes_as_it_is(
    tmp_path: Path, pcm: bytes, changes: dict[str, str]
) -> None:
    async with gate(tmp_path) as host, host.bus.subscribe("audio.gated") as gated:
        await host.bus.publish("audio.mic", chunk(pcm, changes=changes))
        assert (await next_of(gated)).payload == pcm


@pytest.mark.parametrize("pcm", [b"", b"\x00\x80" * 320, b"\xff\x7f" * 320, b"\x00\x80" * 48_000])
async def test_extreme_frames(tmp_path: Path, pcm: bytes) -> None:
    async with gate(tmp_path) as host:
        frames = await passed(host, [pcm] * 3)
    assert [len(frame) for frame in frames] == [len(pcm)] * 3
    assert frames[-1] == pcm


async def test_thresholds_the_wrong_way_round_refuse_the_start(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="close_db must not be above open_db"):
        async with gate(tmp_path, open_db=-60, close_db=-50):
            pass


@pytest.mark.slow
async def test_the_voice_loop_is_right_through_the_gate(tmp_path: Path) -> None:
    """Sound goes through the sandbox: `vad` hears what the gate lets through, and nothing else."""
    wake = ["audio.gated", "transcript"]
    plugins = {
        "noise-gate": {"allow": ALLOW},
        "vad": {"allow": {"subscribe": ["audio.gated"]}},
        "wake-openwakeword": {"allow": {"subscribe": wake}},
    }
    async with voice_host(tmp_path, plugins=plugins) as host:
        turn = await speak_file(host, QUESTION, "realtime")
        assert "108" in turn.report()["answer"]
        heard = {s.pattern for pump in host._pumps for s in pump.subscriptions}
        handled = host.plugins["noise-gate"].counters.events
    assert "audio.gated" in heard
    assert handled > 100
