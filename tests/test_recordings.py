"""The recordings are what their index says."""

from __future__ import annotations

import json
import wave
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.support import ROOT
from tools import recordings

FOLDER = ROOT / "tests" / "recordings"
INDEX: list[dict[str, Any]] = json.loads((FOLDER / "index.json").read_text())
SOUNDS = [row for row in INDEX if row["expectation"] != "invalid"]
SPOKEN = [row for row in SOUNDS if row["speech_ms"]]


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [row["file"] for row in rows]


def read(row: dict[str, Any]) -> npt.NDArray[np.float64]:
    """Samples by channel, full scale 1.0."""
    with wave.open(str(FOLDER / row["file"])) as reader:
        assert reader.getsampwidth() == 2
        assert (reader.getframerate(), reader.getnchannels()) == (
            row["sample_rate"],
            row["channels"],
        )
        pcm = reader.readframes(reader.getnframes())
    return np.frombuffer(pcm, "<i2").reshape(-1, row["channels"]).T / 32768


def decibels(samples: npt.NDArray[np.float64]) -> float:
    return float(10 * np.log10(np.mean(samples**2) + 1e-12))


def parts(row: dict[str, Any]) -> tuple[npt.NDArray[np.float64], ...]:
    """The first channel before, during and after the speech."""
    samples, rate = read(row)[0], row["sample_rate"]
    first, last = (ms * rate // 1000 for ms in row["speech_ms"])
    return samples[:first], samples[first:last], samples[last:]


def test_index_names_every_file_once_and_agrees_with_the_plan() -> None:
    assert sorted(names(INDEX)) == sorted(p.name for p in FOLDER.iterdir() if p.suffix == ".wav")
    assert names(INDEX) == [row.file for row in recordings.plan()]


def test_files_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert {name: size for name, size in sizes.items() if size >= 600_000} == {}
    assert sum(sizes.values()) < 4_000_000


def test_two_synthesisers_speak_and_half_of_the_speech_is_noisy() -> None:
    assert {row["synthesiser"] for row in SPOKEN} == {"piper", "espeak-ng"}
    assert len({row["voice"] for row in SPOKEN}) >= 5
    assert sum(row["noise"] for row in SPOKEN) * 2 == len(SPOKEN)


def test_every_kind_of_input_is_there() -> None:
    assert {row["expectation"] for row in INDEX} == {"answer", "no_speech", "no_wake", "invalid"}
    assert {row["wake"] for row in INDEX} == {"hey loom", "hey jarvis", None}
    formats = {(row["sample_rate"], row["channels"]) for row in SOUNDS}
    assert formats == {(16_000, 1), (44_100, 2), (8_000, 1)}


def test_answers_are_expected_exactly_where_a_wake_phrase_is_said() -> None:
    for row in INDEX:
        answered = row["expectation"] == "answer"
        assert answered == (row["wake"] is not None) == (row["expected"] is not None), row
        assert not row["wake"] or row["text"].lower().startswith(row["wake"])


@pytest.mark.parametrize("row", SOUNDS, ids=names(SOUNDS))
def test_sound_does_not_clip(row: dict[str, Any]) -> None:
    assert np.abs(read(row)).max() < 0.95


@pytest.mark.parametrize("row", SPOKEN, ids=names(SPOKEN))
def test_half_a_second_of_room_tone_surrounds_the_speech(row: dict[str, Any]) -> None:
    before, speech, after = parts(row)
    assert min(len(before), len(after)) >= row["sample_rate"] // 2
    # Room tone, not digital silence: a voice detector adapts to it.
    assert -80 < decibels(before) < decibels(speech) - 8


@pytest.mark.parametrize("row", SPOKEN, ids=names(SPOKEN))
def test_noise_lies_ten_decibels_below_the_speech(row: dict[str, Any]) -> None:
    before, speech, _ = parts(row)
    noise = np.mean(before**2)
    snr = 10 * np.log10((np.mean(speech**2) - noise) / noise)
    assert abs(snr - recordings.SNR_DB) < 1.5 if row["noise"] else snr > 35


def test_the_room_decays_by_60_db_in_its_time() -> None:
    response = recordings.room(16_000, np.random.default_rng(1)).astype(np.float64)
    direct, tail = response[0] ** 2, response[1:] ** 2
    assert abs(10 * np.log10(direct / tail.sum()) - recordings.DIRECT_TO_REVERB_DB) < 0.1
    early, late = tail[80:880].mean(), tail[-800:].mean()
    seconds = (len(tail) - 800 - 80) / 16_000
    assert abs(10 * np.log10(early / late) - 60 * seconds / recordings.RT60_S) < 3


def test_silence_is_silent_and_noise_is_steady() -> None:
    rows = {row["file"]: row for row in SOUNDS}
    assert not read(rows["silence.wav"]).any()
    noise = read(rows["noise.wav"])[0]
    thirds = [decibels(part) for part in np.array_split(noise, 3)]
    assert max(thirds) - min(thirds) < 1.5
    assert abs(decibels(noise) - (recordings.SPEECH_DBFS - recordings.SNR_DB)) < 1


def test_stereo_channels_differ_in_level() -> None:
    left, right = read(next(row for row in SOUNDS if row["channels"] == 2))
    assert 2 < decibels(left) - decibels(right) < 4


def test_files_that_are_no_sound() -> None:
    assert (FOLDER / "empty.wav").read_bytes() == b""
    assert b"RIFF" not in (FOLDER / "text.wav").read_bytes()


def test_the_same_seed_gives_the_same_noise() -> None:
    def noise() -> npt.NDArray[np.float32]:
        return recordings.pink_noise(1600, 16_000, np.random.default_rng([recordings.SEED, 1]))

    assert np.array_equal(noise(), noise())
    assert abs(np.mean(noise().astype(np.float64) ** 2) - 1) < 1e-3
