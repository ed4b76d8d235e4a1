"""The audio-io plugin: files in, files out, pacing, refusals; and sound through PulseAudio."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import shutil
import struct
import subprocess
import sys
import time
import wave
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loom_sdk import Call, Event, Result
from loom_sdk.driver import Driver
from loom_sdk.errors import ActionFailed, ConfigError, PermissionDenied

from .support import ROOT, FakePort, driver_of, load_plugin

pytest.importorskip("soxr", reason="needs soxr: pip install 'loom-host[voice]'")

RATE = 16_000
FOLDER = ROOT / "plugins" / "native" / "audio-io"
if str(FOLDER) not in sys.path:
    sys.path.append(str(FOLDER))
wav_module: Any = importlib.import_module("audio_io_wav")
playback_module: Any = importlib.import_module("audio_io_playback")


@dataclass
class TimedPort(FakePort):
    """Also notes when each event was published."""

    times: list[float] = field(default_factory=list)
    stall_s: dict[int, float] = field(default_factory=dict)
    """How long the publishing of event n blocks the loop."""

    def publish(self, event: Event, call_id: str) -> int:
        self.times.append(time.monotonic())
        time.sleep(self.stall_s.get(len(self.published), 0.0))
        return super().publish(event, call_id)

    def of(self, topic: str) -> list[Event]:
        return [event for event in self.published if event.topic == topic]

    async def until(self, topic: str, kind: str, count: int = 1, seconds: float = 10.0) -> Event:
        """The nth event of a type, when it has been published."""
        async with asyncio.timeout(seconds):
            while True:
                found = [event for event in self.of(topic) if event.type == kind]
                if len(found) >= count:
                    return found[count - 1]
                await asyncio.sleep(0.005)


GRANTED = ("devices:microphone", "devices:speaker")


@contextlib.asynccontextmanager
async def running(
    port: Any = None, grants: tuple[str, ...] = GRANTED, **config: Any
) -> AsyncIterator[Any]:
    """A started plugin: its driver and port; stopped at the end."""
    port = port or TimedPort()
    driver = driver_of(load_plugin("native", "audio-io", **config), port, grants)
    method, context, _ = driver.lifecycle("start")
    await method(context)
    try:
        yield driver, port
    finally:
        method, context, _ = driver.lifecycle("stop")
        await method(context)


async def call(driver: Driver, capability: str, **arguments: Any) -> Result:
    return await driver.ainvoke(driver.capability(capability), Call(capability, arguments))


async def send(driver: Driver, topic: str, kind: str, payload: Any = b"", **meta: Any) -> None:
    event = Event(kind, payload, meta, topic=topic, traceparent="00-trace-span-01")
    bound = driver.handler(event)
    assert bound is not None
    await driver.ahandle_event(bound, event)


async def say(driver: Driver, chunks: list[bytes], rate: int = 22_050, key: str = "u1") -> None:
    meta = {"utterance_id": key, "sample_rate": str(rate)}
    await send(driver, "tts", "tts.start", **meta)
    for index, pcm in enumerate(chunks):
        await send(driver, "tts", "tts.chunk", pcm, **meta, index=str(index))
    await send(driver, "tts", "tts.done", **meta)


def tone(seconds: float, rate: int, hz: float = 440.0) -> Any:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)


def pcm16(samples: Any) -> bytes:
    return bytes(np.rint(samples * 32767).astype("<i2").tobytes())


def encoded(samples: Any, kind: str) -> tuple[int, int, bytes]:
    """Format tag, bits and bytes of float samples."""
    if kind in ("f4", "f8"):
        return 3, int(kind[1]) * 8, samples.astype(f"<{kind}").tobytes()
    bits = int(kind)
    if bits == 8:
        return 1, 8, (np.rint(samples * 127) + 128).astype(np.uint8).tobytes()
    wide = np.rint(samples * (2 ** (bits - 1) - 1)).astype("<i4")
    if bits == 24:
        return 1, 24, wide.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    return 1, bits, wide.astype(f"<i{bits // 8}").tobytes()


def wav_bytes(
    samples: Any, rate: int, *, channels: int = 1, kind: str = "16", extensible: bool = False
) -> bytes:
    """A WAV file with the same samples in every channel, and a LIST chunk of odd length."""
    tag, bits, data = encoded(np.repeat(samples, channels), kind)
    align = bits // 8 * channels
    layout = struct.pack(
        "<HHIIHH", 0xFFFE if extensible else tag, channels, rate, rate * align, align, bits
    )
    if extensible:
        layout += struct.pack("<HHIH", 22, bits, 0, tag) + bytes(14)
    body = b"WAVE" + b"LIST" + struct.pack("<I", 5) + b"INFOx\0"
    body += b"fmt " + struct.pack("<I", len(layout)) + layout
    body += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.fixture
def question(tmp_path: Path) -> Path:
    path = tmp_path / "question.wav"
    path.write_bytes(wav_bytes(tone(0.5, RATE), RATE))
    return path


# Files in


@pytest.mark.parametrize("kind", ["8", "16", "24", "32", "f4", "f8"])
@pytest.mark.parametrize(("rate", "channels"), [(44_100, 2), (8_000, 1), (16_000, 1), (48_000, 6)])
def test_any_wav_becomes_16_khz_mono(tmp_path: Path, kind: str, rate: int, channels: int) -> None:
    path = tmp_path / "in.wav"
    path.write_bytes(wav_bytes(tone(0.5, rate), rate, channels=channels, kind=kind))
    heard = np.frombuffer(wav_module.read_mic_pcm(str(path)), "<i2") / 32768
    assert abs(len(heard) - RATE // 2) <= 2
    middle = heard[1000:7000]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) * RATE / len(middle) == pytest.approx(440, abs=RATE / len(middle))


def test_16_khz_mono_16_bit_passes_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "in.wav"
    data = np.random.default_rng(1).integers(-32768, 32767, 1000).astype("<i2").tobytes()
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, RATE, 0, "NONE", ""))
        out.writeframes(data)
    assert wav_module.read_mic_pcm(str(path)) == data


def test_extensible_headers_and_unknown_lengths_are_read() -> None:
    data = wav_bytes(tone(0.1, RATE), RATE, kind="24", extensible=True)
    samples, rate = wav_module.decode(data, "x.wav")
    assert (rate, samples.shape) == (RATE, (1600, 1))
    at = data.index(b"data") + 4
    piped = data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :]
    assert wav_module.decode(piped, "x.wav")[0].shape == (1600, 1)


def test_the_aliases_of_a_high_tone_are_filtered_out(tmp_path: Path) -> None:
    path = tmp_path / "in.wav"
    path.write_bytes(wav_bytes(tone(0.5, 48_000, hz=11_000), 48_000))
    heard = np.frombuffer(wav_module.read_mic_pcm(str(path)), "<i2") / 32768
    assert np.sqrt(np.mean(heard[1000:7000] ** 2)) < 0.001


GOOD = wav_bytes(tone(0.1, RATE), RATE)


@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        (b"", "AUDIO_FILE_EMPTY", "0 bytes"),
        (b"Dear diary, this is not a recording.\n", "AUDIO_FILE_INVALID", "not a WAV file"),
        (GOOD[:4], "AUDIO_FILE_INVALID", "not a WAV file"),
        (GOOD[:30], "AUDIO_FILE_INVALID", "cut off"),
        (GOOD[:40], "AUDIO_FILE_INVALID", "cut off"),
        (wav_bytes(tone(0, RATE), RATE), "AUDIO_FILE_EMPTY", "no samples"),
        (
            GOOD.replace(b"\x01\x00\x01\x00\x80\x3e", b"\x07\x00\x01\x00\x80\x3e"),
            "INVALID",
            "tag 7",
        ),
        (GOOD.replace(b"\x01\x00\x01\x00\x80\x3e", b"\x01\x00\x00\x00\x80\x3e"), "INVALID", "0 ch"),
        (GOOD.replace(b"\x80\x3e\0\0", b"\0\0\0\0"), "AUDIO_FILE_INVALID", "0 Hz"),
        (b"RF64" + GOOD[4:], "AUDIO_FILE_INVALID", "not a WAV file"),
    ],
)
async def test_a_bad_file_is_refused_with_a_clear_message(
    tmp_path: Path, data: bytes, code: str, said: str
) -> None:
    path = tmp_path / "bad.wav"
    path.write_bytes(data)
    async with running() as (driver, port):
        with pytest.raises(ActionFailed) as refused:
            await call(driver, "audio.stream_file", path=str(path))
    assert refused.value.code.endswith(code)
    assert said in refused.value.message
    assert "bad.wav" in refused.value.message
    assert port.published == []


async def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    async with running() as (driver, _):
        with pytest.raises(ActionFailed, match="does not exist") as missing:
            await call(driver, "audio.stream_file", path=str(tmp_path / "no.wav"))
        with pytest.raises(ActionFailed, match="cannot be read") as folder:
            await call(driver, "audio.stream_file", path=str(tmp_path))
        with pytest.raises(ActionFailed, match="cannot be read"):
            await call(driver, "audio.stream_file", path="a\0b.wav")
    assert missing.value.code == "AUDIO_FILE_MISSING"
    assert folder.value.code == "AUDIO_FILE_INVALID"


@given(at=st.integers(0, 60), junk=st.binary(min_size=1, max_size=12), cut=st.integers(0, 300))
@settings(max_examples=300, deadline=None)
def test_a_damaged_file_is_decoded_or_refused_but_never_raises_otherwise(
    at: int, junk: bytes, cut: int
) -> None:
    damaged = (GOOD[:at] + junk + GOOD[at + len(junk) :])[: len(GOOD) - cut]
    refused = ""
    try:
        samples, rate = wav_module.decode(damaged, "x.wav")
    except ActionFailed as error:
        refused = error.code
    if refused:
        assert refused in ("AUDIO_FILE_INVALID", "AUDIO_FILE_EMPTY")
    else:
        assert samples.shape[0] > 0
        assert np.isfinite(samples).all()
        assert 1000 <= rate <= 768_000


@given(st.binary(max_size=200))
def test_bytes_that_are_no_wav_are_refused(data: bytes) -> None:
    with pytest.raises(ActionFailed):
        wav_module.decode(data, "x.wav")


# Streaming


async def test_a_file_becomes_numbered_20_ms_chunks_and_an_end(question: Path) -> None:
    async with running() as (driver, port):
        before = time.time() * 1000
        answer = await call(driver, "audio.stream_file", path=str(question), pace="fast")
    *chunks, end = port.of("audio.mic")
    # 0.5 s of file and 0.8 s of silence.
    assert len(chunks) == 65 == answer.output["chunks"]
    assert answer.output["duration_ms"] == 500.0
    assert before <= answer.output["started_unix_ms"] <= time.time() * 1000
    assert (end.type, end.payload) == ("audio_end", b"")
    assert [event.metadata["seq"] for event in [*chunks, end]] == [str(n) for n in range(66)]
    assert b"".join(event.payload for event in chunks) == (
        wav_module.read_mic_pcm(str(question)) + bytes(2 * 12_800)
    )
    for event in chunks:
        assert (event.type, event.priority, len(event.payload)) == ("audio_chunk", 90, 640)
        assert event.metadata == event.metadata | {
            "sample_rate": "16000",
            "channels": "1",
            "encoding": "pcm_s16le",
            "frame_samples": "320",
            "session_id": answer.output["session_id"],
            "stream_id": answer.output["stream_id"],
        }


async def test_two_files_are_two_streams(question: Path) -> None:
    async with running() as (driver, port):
        for _ in range(2):
            await call(driver, "audio.stream_file", path=str(question), pace="fast", session_id="s")
    assert len({event.metadata["stream_id"] for event in port.published}) == 2
    assert {event.metadata["session_id"] for event in port.published} == {"s"}


async def test_real_time_pacing_does_not_drift_even_past_a_stall(question: Path) -> None:
    port = TimedPort(stall_s={10: 0.07, 30: 0.05})
    async with running(port) as (driver, _):
        answer = await call(driver, "audio.stream_file", path=str(question), tail_silence_ms=500)
    assert answer.output["chunks"] == 50
    late = [at - port.times[0] - n * 0.02 for n, at in enumerate(port.times[:50])]
    assert min(late) > -0.002, "a chunk came before its time"
    # Two cores shared with others: the median tells drift from a busy moment.
    assert abs(float(np.median(late[15:29]))) < 0.01
    assert abs(float(np.median(late[36:]))) < 0.01
    assert min(late[11:13]) > 0.02, "the stall was real"


async def test_the_loop_stays_free_while_a_file_plays(question: Path) -> None:
    async with running() as (driver, port):
        playing = asyncio.create_task(call(driver, "audio.stream_file", path=str(question)))
        await say(driver, [pcm16(tone(0.1, 22_050))])
        await port.until("audio.out", "audio.done", seconds=1.0)
        assert not playing.done()
        await playing


async def test_autostart_plays_the_source_when_the_host_is_ready(question: Path) -> None:
    config: dict[str, Any] = {"source": "wav", "source_path": str(question), "pace": "fast"}
    async with running(**config) as (driver, port):
        await send(driver, "loom.host", "host.ready")
        await asyncio.sleep(0.05)
        assert port.published == []
    async with running(**config, autostart=True) as (driver, port):
        await send(driver, "loom.host", "host.ready")
        await port.until("audio.mic", "audio_end")


async def test_a_failed_autostart_is_logged_not_raised(tmp_path: Path) -> None:
    path = str(tmp_path / "no.wav")
    async with running(source="wav", source_path=path, autostart=True) as (driver, port):
        await send(driver, "loom.host", "host.ready")
        async with asyncio.timeout(5):
            while True:
                if port.logs:
                    break
                await asyncio.sleep(0.005)
    assert "does not exist" in port.logs[0]


# Answers out


async def test_an_answer_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "answer.wav"
    first, second = pcm16(tone(0.3, 22_050)), pcm16(tone(0.2, 22_050, hz=880))
    async with running(sink="wav", sink_path=str(path)) as (driver, port):
        meta = {"utterance_id": "u1", "sample_rate": "22050", "session_id": "s"}
        await send(driver, "tts", "tts.start", **meta)
        await send(driver, "tts", "tts.chunk", first, **meta)
        begun = await port.until("audio.out", "audio.first_sample")
        assert not path.exists()
        await send(driver, "tts", "tts.chunk", second, **meta)
        await send(driver, "tts", "tts.done", **meta)
        done = await port.until("audio.out", "audio.done")
    with wave.open(str(path)) as written:
        assert written.getparams()[:3] == (1, 2, 22_050)
        assert written.readframes(written.getnframes()) == first + second
    assert begun.metadata["utterance_id"] == done.metadata["utterance_id"] == "u1"
    assert abs(float(begun.metadata["unix_ms"]) - time.time() * 1000) < 5000
    assert done.metadata["path"] == str(path)
    assert float(done.metadata["seconds"]) == pytest.approx(0.5, abs=0.001)
    assert done.metadata["session_id"] == "s"
    assert done.traceparent == "00-trace-span-01"
    assert [event.type for event in port.of("audio.out")] == ["audio.first_sample", "audio.done"]
    assert os.listdir(tmp_path) == [path.name], "no part file is left"


async def test_a_new_answer_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "answer.wav"
    async with running(sink="wav", sink_path=str(path)) as (driver, port):
        await say(driver, [pcm16(tone(0.3, 22_050))], key="u1")
        await say(driver, [pcm16(tone(0.1, 16_000))], rate=16_000, key="u2")
        await port.until("audio.out", "audio.done", count=2)
    with wave.open(str(path)) as written:
        assert (written.getframerate(), written.getnframes()) == (16_000, 1600)


async def test_a_chunk_of_another_rate_is_resampled_into_the_answer(tmp_path: Path) -> None:
    path = tmp_path / "answer.wav"
    async with running(sink="wav", sink_path=str(path)) as (driver, port):
        for rate in (22_050, 16_000):
            pcm = pcm16(tone(0.5, rate))
            await send(driver, "tts", "tts.chunk", pcm, utterance_id="u", sample_rate=str(rate))
        await send(driver, "tts", "tts.done", utterance_id="u")
        done = await port.until("audio.out", "audio.done")
    assert float(done.metadata["seconds"]) == pytest.approx(1.0, abs=0.01)
    with wave.open(str(path)) as written:
        assert written.getframerate() == 22_050


async def test_an_interrupt_keeps_what_was_written_and_ignores_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "answer.wav"
    meta = {"utterance_id": "u1", "sample_rate": "16000"}
    async with running(sink="wav", sink_path=str(path)) as (driver, port):
        await send(driver, "tts", "tts.start", **meta)
        await send(driver, "tts", "tts.chunk", pcm16(tone(0.1, RATE)), **meta)
        await port.until("audio.out", "audio.first_sample")
        await send(driver, "assistant", "assistant.interrupt")
        done = await port.until("audio.out", "audio.done")
        assert done.metadata["interrupted"] == "true"
        await send(driver, "tts", "tts.chunk", pcm16(tone(0.1, RATE)), **meta)
        await send(driver, "tts", "tts.done", **meta)
        await say(driver, [pcm16(tone(0.2, RATE))], rate=RATE, key="u2")
        second = await port.until("audio.out", "audio.done", count=2)
    assert second.metadata["utterance_id"] == "u2"
    assert float(done.metadata["seconds"]) == pytest.approx(0.1)
    assert float(second.metadata["seconds"]) == pytest.approx(0.2)


async def test_every_answer_that_began_ends_even_if_it_was_still_waiting() -> None:
    async with running() as (driver, port):
        for key in ("u1", "u2"):
            meta = {"utterance_id": key, "sample_rate": "16000"}
            await send(driver, "tts", "tts.start", **meta)
        await send(driver, "assistant", "assistant.interrupt")
        await port.until("audio.out", "audio.done", count=2)
    assert all(event.metadata["interrupted"] == "true" for event in port.of("audio.out"))


async def test_without_a_sink_the_answer_is_counted(tmp_path: Path) -> None:
    async with running() as (driver, port):
        await say(driver, [pcm16(tone(0.25, RATE))], rate=RATE)
        done = await port.until("audio.out", "audio.done")
    assert (done.metadata["path"], done.metadata["seconds"]) == ("", "0.250")


async def test_an_answer_without_audio_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "answer.wav"
    path.write_bytes(b"old")
    async with running(sink="wav", sink_path=str(path)) as (driver, port):
        await say(driver, [])
        done = await port.until("audio.out", "audio.done")
    assert (path.read_bytes(), done.metadata["seconds"]) == (b"old", "0.000")


async def test_a_sink_that_fails_is_reported_and_the_next_answer_tried(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    async with running(sink="wav", sink_path=str(folder / "answer.wav")) as (driver, port):
        folder.rmdir()
        await say(driver, [pcm16(tone(0.1, RATE))], key="u1")
        failed = await port.until("audio.out", "audio.done")
        assert "out" in failed.metadata["error"]
        folder.mkdir()
        await say(driver, [pcm16(tone(0.1, RATE))], key="u2")
        done = await port.until("audio.out", "audio.done", count=2)
    assert "error" not in done.metadata
    assert (folder / "answer.wav").is_file()


async def test_a_chunk_without_its_rate_is_refused() -> None:
    async with running() as (driver, _):
        with pytest.raises(ActionFailed, match="rate in Hz"):
            await send(driver, "tts", "tts.chunk", b"\0\0", utterance_id="u", sample_rate="fast")


# Settings and devices


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"source": "wav"}, "source_path"),
        ({"sink": "wav"}, "sink_path"),
        ({"sink": "wav", "sink_path": "/no/such/folder/x.wav"}, "create '/no/such/folder'"),
    ],
)
async def test_settings_that_cannot_work_refuse_the_start(
    config: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        async with running(**config):
            pass


@pytest.mark.parametrize(("device", "side"), [("microphone", "source"), ("speaker", "sink")])
async def test_a_device_that_is_not_granted_is_not_opened(device: str, side: str) -> None:
    other = tuple(grant for grant in GRANTED if not grant.endswith(device))
    wants: dict[str, Any] = {side: device}
    with pytest.raises(PermissionDenied, match=f"devices:{device}") as refused:
        async with running(grants=other, **wants):
            pass
    assert refused.value.permission == f"devices:{device}"
    async with running(grants=("devices:speaker",)) as (driver, _):
        with pytest.raises(PermissionDenied, match="devices:microphone"):
            await call(driver, "audio.capture_start")


async def test_without_portaudio_the_install_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What sounddevice does on a machine without the library.
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    async with running() as (driver, _):
        with pytest.raises(ActionFailed, match="apt install libportaudio2") as refused:
            await call(driver, "audio.capture_start")
    assert refused.value.code == "AUDIO_DEVICE_MISSING"
    with pytest.raises(ActionFailed, match="apt install libportaudio2"):
        async with running(sink="speaker"):
            pass


async def test_without_sounddevice_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    async with running() as (driver, _):
        with pytest.raises(ActionFailed, match=r"loom-host\[voice\]"):
            await call(driver, "audio.capture_start")


def sounddevice_or_skip() -> Any:
    try:
        return importlib.import_module("sounddevice")
    except (ImportError, OSError) as error:
        pytest.skip(f"needs PortAudio ({error}): apt install libportaudio2")


async def test_an_unknown_device_is_refused_with_those_that_exist() -> None:
    sounddevice_or_skip()
    async with running(device_name="no such microphone") as (driver, port):
        with pytest.raises(ActionFailed, match="there are: ") as refused:
            await call(driver, "audio.capture_start")
        answer = await call(driver, "audio.capture_stop")
    assert refused.value.code == "AUDIO_DEVICE_FAILED"
    assert answer.output["capturing"] is False
    assert port.published == []


# Sound without hardware: PulseAudio null sinks as virtual cables


PULSE = """
load-module module-native-protocol-unix auth-anonymous=1 socket={folder}/pulse.sock
load-module module-null-sink sink_name=vspk rate=48000 channels=2
load-module module-null-sink sink_name=vmic rate=48000 channels=1
load-module module-remap-source master=vmic.monitor source_name=mic
set-default-sink vspk
set-default-source mic
"""


@pytest.fixture
def pulse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for program in ("pulseaudio", "parec", "pacat"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}: apt install pulseaudio pulseaudio-utils")
    (tmp_path / "default.pa").write_text(PULSE.format(folder=tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PULSE_SERVER", f"unix:{tmp_path}/pulse.sock")
    monkeypatch.setenv("PULSE_LATENCY_MSEC", "20")
    server = subprocess.Popen(
        [
            *("pulseaudio", "-n", "-F", str(tmp_path / "default.pa")),
            *("--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        waiting_until = time.monotonic() + 10
        while not (tmp_path / "pulse.sock").exists():
            assert server.poll() is None, "pulseaudio ended"
            assert time.monotonic() < waiting_until, "pulseaudio did not come up"
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture
def portaudio(pulse: None) -> Iterator[None]:
    sounddevice = sounddevice_or_skip()
    # The list of devices is made when the library is initialised.
    sounddevice._terminate()
    sounddevice._initialize()
    if not any(item["name"] == "pulse" for item in sounddevice.query_devices()):
        pytest.skip("needs the ALSA plug-in: apt install libasound2-plugins")
    yield
    sounddevice._terminate()
    sounddevice._initialize()


@contextlib.contextmanager
def recording(path: Path) -> Iterator[None]:
    """What the virtual speaker gets, as 16 kHz mono pcm_s16le."""
    with path.open("wb") as file:
        tape = subprocess.Popen(
            ["parec", "-d", "vspk.monitor", "--rate=16000", "--channels=1", "--format=s16le"],
            stdout=file,
        )
        try:
            time.sleep(0.5)
            yield
            time.sleep(0.3)
        finally:
            tape.terminate()
            tape.wait(10)


def loud_seconds(pcm: bytes) -> float:
    blocks = np.frombuffer(pcm[: len(pcm) // 640 * 640], "<i2").reshape(-1, 320) / 32768
    return float(np.sum(np.sqrt(np.mean(blocks**2, axis=1)) > 0.1) * 0.02)


DEVICES: dict[str, Any] = {"device_name": "pulse", "output_device_name": "pulse"}


@pytest.mark.slow
async def test_the_microphone_hears_what_is_played_into_it(tmp_path: Path, portaudio: None) -> None:
    cable = ["pacat", "-d", "vmic", "--rate=16000", "--channels=1", "--format=s16le"]
    async with running(**DEVICES) as (driver, port):
        first = await call(driver, "audio.capture_start")
        again = await call(driver, "audio.capture_start")
        assert first.output["stream_id"] == again.output["stream_id"]
        playing = await asyncio.create_subprocess_exec(*cable, stdin=subprocess.PIPE)
        await playing.communicate(pcm16(tone(1.0, RATE)))
        await asyncio.sleep(0.5)
        last = await call(driver, "audio.capture_stop")
        *chunks, end = port.of("audio.mic")
    heard = b"".join(event.payload for event in chunks)
    assert end.type == "audio_end"
    assert last.output["dropped"] == 0
    assert {len(event.payload) for event in chunks} == {640}
    assert [int(event.metadata["seq"]) for event in chunks] == list(range(len(chunks)))
    assert loud_seconds(heard) == pytest.approx(1.0, abs=0.1)


@pytest.mark.slow
async def test_the_speaker_plays_an_answer_and_the_microphone_is_gated(
    tmp_path: Path, portaudio: None
) -> None:
    tape = tmp_path / "tape.raw"
    with recording(tape):
        async with running(sink="speaker", **DEVICES) as (driver, port):
            await call(driver, "audio.capture_start")
            await port.until("audio.mic", "audio_chunk", count=5)
            await say(driver, [pcm16(tone(0.25, 22_050)) for _ in range(6)])
            await port.until("audio.out", "audio.first_sample")
            at_first = len(port.of("audio.mic"))
            done = await port.until("audio.out", "audio.done")
            assert len(port.of("audio.mic")) == at_first, "the microphone heard the answer"
            await asyncio.sleep(0.5)
            await call(driver, "audio.capture_stop")
    assert float(done.metadata["seconds"]) == pytest.approx(1.5, abs=0.01)
    assert loud_seconds(tape.read_bytes()) == pytest.approx(1.5, abs=0.1)
    seqs = [int(event.metadata["seq"]) for event in port.of("audio.mic")]
    # The gap in the numbers is the gap in the audio.
    assert max(b - a for a, b in pairwise(seqs)) * 0.02 >= 1.5


@pytest.mark.slow
async def test_an_interrupt_silences_the_speaker_at_once(tmp_path: Path, portaudio: None) -> None:
    tape = tmp_path / "tape.raw"
    with recording(tape):
        async with running(sink="speaker", **DEVICES) as (driver, port):
            talking = asyncio.create_task(say(driver, [pcm16(tone(5.0, 22_050))]))
            await port.until("audio.out", "audio.first_sample")
            await asyncio.sleep(0.5)
            asked = time.monotonic()
            await send(driver, "assistant", "assistant.interrupt")
            done = await port.until("audio.out", "audio.done")
            took = time.monotonic() - asked
            await talking
    assert done.metadata["interrupted"] == "true"
    assert took < 0.3
    assert loud_seconds(tape.read_bytes()) < 1.0


@pytest.mark.slow
async def test_a_cancelled_capture_leaves_no_device_open(portaudio: None) -> None:
    async with running(**DEVICES) as (driver, port):
        starting = asyncio.create_task(call(driver, "audio.capture_start"))
        await asyncio.sleep(0.001)
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        answer = await call(driver, "audio.capture_start")
        assert answer.output["capturing"] is True
        await port.until("audio.mic", "audio_chunk")
    assert os.environ["PULSE_SERVER"]


@pytest.mark.parametrize("turns", range(5))
async def test_a_cancelled_answer_ends_even_as_its_next_chunk_comes(turns: int) -> None:
    queue: asyncio.Queue[tuple[bytes, int]] = asyncio.Queue()

    async def play() -> None:
        while True:
            await playback_module._next(SimpleNamespace(chunks=queue))

    playing = asyncio.create_task(play())
    await asyncio.sleep(0.01)
    queue.put_nowait((b"", RATE))
    for _ in range(turns):
        await asyncio.sleep(0)
    playing.cancel()
    await asyncio.wait({playing}, timeout=0.2)
    assert playing.cancelled()
