"""`loom demo --wav` as a user runs it: any file, an answer or one clear line, never a traceback."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from .support import ROOT

RECORDINGS = ROOT / "tests" / "recordings"
CLEAN = "piper_joe_12x9_clean.wav"
KEYS = {"wake", "transcript", "route", "tool", "answer", "audio_out", "stages", "plugins"}

Sound = npt.NDArray[np.float32]


def demo(wav: Path, folder: Path, pace: str = "fast") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loom_host.cli.main", "demo", "--json", "--pace", pace]
    command += ["--wav", str(wav), "--out", str(folder / "answer.wav")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def answered(wav: Path, folder: Path, expected: str, pace: str = "fast") -> dict[str, Any]:
    """The report of a right answer."""
    done = demo(wav, folder, pace)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report.keys() == KEYS
    assert expected in report["answer"], report["transcript"]
    assert report["tool"].keys() >= {"name", "arguments", "result", "tier"}
    assert report["stages"].keys() >= {"total_ms", "host_ms"}
    assert report["stages"]["total_ms"] > report["stages"]["host_ms"] > 0
    plugin = {"id", "tier", "state", "calls", "peak_memory", "restarts"}
    assert all(row.keys() >= plugin for row in report["plugins"])
    with wave.open(report["audio_out"]["path"]) as answer:
        assert answer.getnframes() / answer.getframerate() > 0.5
    return report


def refused(wav: Path, folder: Path, told: str) -> None:
    """Exit code 1 and one line that says why; nothing on stdout."""
    done = demo(wav, folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("loom: ")]
    assert len(lines) == 1, done.stderr
    assert told in lines[0]


def sound_of(name: str) -> Sound:
    """16 kHz, full scale 1.0."""
    with wave.open(str(RECORDINGS / name)) as file:
        assert (file.getframerate(), file.getnchannels()) == (16_000, 1)
        pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return (pcm / np.float32(32768)).astype(np.float32)


def write(path: Path, data: bytes, *, tag: int = 1, bits: int = 16, claimed: int = -1) -> Path:
    """A mono 16 kHz WAV whose header may claim another length of its data."""
    size = len(data) if claimed < 0 else claimed
    layout = struct.pack("<HHIIHH", tag, 1, 16_000, 2000 * bits, bits // 8, bits)
    head = b"RIFF" + struct.pack("<I", min(size + 36, 2**32 - 1)) + b"WAVE"
    chunks = b"fmt " + struct.pack("<I", 16) + layout + b"data" + struct.pack("<I", size)
    path.write_bytes(head + chunks + data)
    return path


def pcm16(sound: Sound) -> bytes:
    return np.rint(sound * 32767).astype("<i2").tobytes()


def room_tone(seconds: float) -> Sound:
    generator = np.random.default_rng(7)
    return generator.normal(0.0, 10 ** (-68 / 20), int(16_000 * seconds)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("piper_joe_12x9_44100_stereo.wav", "108"),
        ("piper_joe_45plus17_8000_noisy.wav", "62"),
        pytest.param("espeak_us_f5_100by8_noisy.wav", "12.5", marks=pytest.mark.soak),
    ],
)
def test_recordings_of_any_rate_and_voice_are_answered(
    name: str, expected: str, tmp_path: Path
) -> None:
    pace = "realtime" if "noisy" in name else "fast"
    answered(RECORDINGS / name, tmp_path, expected, pace)


def float_cut_off(path: Path) -> Path:
    """32-bit float, from a recorder that was killed: no length, and half a sample at the end."""
    return write(path, sound_of(CLEAN).astype("<f4").tobytes() + b"\0", tag=3, bits=32, claimed=0)


def wide_with_a_lie(path: Path) -> Path:
    """24 bit; the header claims 4 GB."""
    wide = np.rint(sound_of(CLEAN) * (2**23 - 1)).astype("<i4").view(np.uint8).reshape(-1, 4)
    return write(path, wide[:, :3].tobytes(), bits=24, claimed=2**32 - 1)


def quiet_after_silence(path: Path) -> Path:
    """26 dB softer, after 11 s in which nobody speaks."""
    return write(path, pcm16(np.concatenate([room_tone(11), sound_of(CLEAN)]) * np.float32(0.05)))


def twice(path: Path) -> Path:
    return write(path, pcm16(np.concatenate([sound_of(CLEAN)] * 2)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        quiet_after_silence,
        pytest.param(twice, marks=pytest.mark.soak),
        *(pytest.param(make, marks=pytest.mark.soak) for make in (float_cut_off, wide_with_a_lie)),
    ],
)
def test_odd_files_are_answered(make: Any, tmp_path: Path) -> None:
    answered(make(tmp_path / "odd.wav"), tmp_path, "108")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("silence.wav", "no speech was found in it"),
        ("noise.wav", "no speech was found in it"),
        ("piper_joe_no_wake_clean.wav", "no wake phrase was heard; begin with 'hey loom'"),
    ],
)
def test_recordings_without_a_question_say_so(name: str, told: str, tmp_path: Path) -> None:
    refused(RECORDINGS / name, tmp_path, told)


@pytest.mark.slow
def test_a_bare_wake_phrase_is_told(tmp_path: Path) -> None:
    bare = np.concatenate([sound_of("espeak_us_f3_12x9_clean.wav")[: 16 * 1750], room_tone(1)])
    wav = write(tmp_path / "bare.wav", pcm16(bare))
    refused(wav, tmp_path, "was heard, but no question after it")


def test_files_that_are_no_recording_are_told_before_any_model_loads(tmp_path: Path) -> None:
    cut = tmp_path / "cut.wav"
    cut.write_bytes((RECORDINGS / CLEAN).read_bytes()[:9])
    for wav, told in (
        (RECORDINGS / "empty.wav", "empty (0 bytes)"),
        (RECORDINGS / "text.wav", "not a WAV file"),
        (cut, "not a WAV file"),
        (tmp_path, "a folder"),
        (tmp_path / "missing.wav", "no such file"),
    ):
        refused(wav, tmp_path, told)


@pytest.mark.slow
def test_a_header_without_samples_is_told(tmp_path: Path) -> None:
    cut = tmp_path / "cut.wav"
    cut.write_bytes((RECORDINGS / CLEAN).read_bytes()[:30])
    refused(cut, tmp_path, "cut off")
