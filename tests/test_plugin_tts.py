"""Both text-to-speech engines: sound as it is made, rate, volume, voices, and no child left."""

from __future__ import annotations

import asyncio
import shutil
import stat
import struct
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_sdk import Call, Item, Plugin, Result
from loom_sdk.errors import ActionFailed, InvalidArguments, ModelMissing, PluginLoadError
from loom_sdk.models import models_dir

from .support import ROOT, FakePort, driver_of, load_plugin, run_capability, start

TEXT = "Twelve times nine is one hundred and eight. That is easy."
SHORT = "Twelve times nine."
ENGINES = {"tts-piper": "grpc", "tts-espeak": "native"}
FOLDER = ROOT / "plugins" / "native" / "tts-espeak"
if str(FOLDER) not in sys.path:
    sys.path.append(str(FOLDER))

espeak_module: Any = __import__("tts_espeak_plugin")


@cache
def engine(name: str) -> Plugin:
    if name == "tts-piper":
        pytest.importorskip("piper", reason="needs loom-host[voice]")
        if not (models_dir() / "piper-en_US-joe-medium").is_dir():
            pytest.skip("needs `loom models pull piper-en_US-joe-medium`")
    elif shutil.which("espeak-ng") is None:
        pytest.skip("needs espeak-ng: apt install espeak-ng")
    plugin = load_plugin(ENGINES[name], name)
    start(plugin)
    return plugin


@pytest.fixture(params=ENGINES)
def tts(request: pytest.FixtureRequest) -> Plugin:
    return engine(request.param)


def speak(plugin: Plugin, text: str = TEXT, **arguments: Any) -> tuple[Result, list[Item]]:
    port = FakePort()
    result = run_capability(plugin, "tts.synthesize", {"text": text} | arguments, port=port)
    return result, port.items


def sound(items: list[Item]) -> Any:
    return np.frombuffer(b"".join(item.payload for item in items), "<i2") / 32768


def test_speech_comes_in_items_and_the_end_sums_them_up(tts: Plugin) -> None:
    result, items = speak(tts)
    rate = result.output["sample_rate"]
    assert rate == 22_050
    assert result.output["engine"] in ("piper", "espeak-ng")
    assert result.output["voice"] in ("piper-en_US-joe-medium", "en-us")
    assert [item.output for item in items] == [
        {"sample_rate": rate, "index": index} for index in range(len(items))
    ]
    assert {item.content_type for item in items} == {"audio/pcm;rate=22050"}
    assert all(0 < len(item.payload) <= 32_768 for item in items)
    samples = sound(items)
    assert result.output["duration_ms"] == len(samples) * 1000 // rate
    assert 2000 < result.output["duration_ms"] < 6000
    assert np.sqrt(np.mean(samples**2)) > 0.01


def test_the_first_sentence_is_there_before_the_last(tts: Plugin) -> None:
    result, items = speak(tts, f"{SHORT} {TEXT} {SHORT}")
    assert items[0].elapsed_us < items[-1].elapsed_us
    assert items[-1].elapsed_us <= result.elapsed_us


def test_rate_makes_speech_shorter_and_longer(tts: Plugin) -> None:
    usual, quick, slow = (
        speak(tts, rate=rate)[0].output["duration_ms"] for rate in (1.0, 1.8, 0.6)
    )
    assert quick < 0.75 * usual
    assert slow > 1.3 * usual


def test_volume_makes_speech_louder_without_clipping(tts: Plugin) -> None:
    quiet, loud = (sound(speak(tts, SHORT, volume=volume)[1]) for volume in (0.5, 2.0))
    ratio = np.sqrt(np.mean(loud**2)) / np.sqrt(np.mean(quiet**2))
    assert 2.5 < ratio < 6  # 4, but Piper draws its noise anew for every sentence
    assert np.mean(np.abs(loud) > 0.999) < 0.001


@pytest.mark.parametrize("text", ["", "   \n"])
def test_nothing_to_say_is_no_sound_and_no_error(tts: Plugin, text: str) -> None:
    result, items = speak(tts, text)
    assert (result.output["duration_ms"], result.output["sample_rate"]) == (0, 22_050)
    assert items == []


@pytest.mark.parametrize("text", ["-x --help", "<b>&amp;</b>", "Käthe isst 3 Äpfel 🙂.", "a" * 100])
def test_odd_text_is_spoken_not_obeyed(tts: Plugin, text: str) -> None:
    assert speak(tts, text)[0].output["duration_ms"] > 100


def test_too_long_text_is_refused(tts: Plugin) -> None:
    with pytest.raises(InvalidArguments, match="split the text"):
        speak(tts, "a" * 10_001)


@pytest.mark.parametrize("voice", ["nobody", "../secret", "/etc/passwd", "--help", "piper-nobody"])
def test_an_absent_voice_has_its_own_code(tts: Plugin, voice: str) -> None:
    with pytest.raises(ActionFailed) as caught:
        speak(tts, voice=voice)
    assert caught.value.code == "TTS_VOICE_MISSING"


# --- Piper


def test_piper_takes_the_voice_with_or_without_prefix() -> None:
    plugin = engine("tts-piper")
    for voice in ("en_US-joe-medium", "piper-en_US-joe-medium"):
        assert speak(plugin, "Yes.", voice=voice)[0].output["voice"] == voice
    assert len(vars(plugin)["_voices"]) == 1


def test_piper_without_its_voice_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="loom models pull piper-none"):
        start(load_plugin("grpc", "tts-piper", voice="piper-none"))
    with pytest.raises(ModelMissing, match="no Piper voice"):
        start(load_plugin("grpc", "tts-piper", voice=str(tmp_path)))


def test_piper_with_a_damaged_voice_says_so(tmp_path: Path) -> None:
    engine("tts-piper")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    (tmp_path / "bad.onnx.json").write_text("{}")
    with pytest.raises(ModelMissing, match="cannot be loaded"):
        start(load_plugin("grpc", "tts-piper", voice=str(tmp_path)))


def test_piper_is_offered_as_a_child_process_only() -> None:
    manifest = (ROOT / "plugins" / "grpc" / "tts-piper" / "plugin.toml").read_text()
    assert 'tiers = ["grpc"]' in manifest


# --- espeak-ng


def program(tmp_path: Path, body: str) -> str:
    """A stand-in for espeak-ng that misbehaves in one way."""
    path = tmp_path / "espeak-stand-in"
    path.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return str(path)


def gone(tmp_path: Path) -> bool:
    return not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 10
    while not (path.exists() and path.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)


def misbehaving(tmp_path: Path, body: str, **config: Any) -> Plugin:
    plugin = load_plugin("native", "tts-espeak", program=program(tmp_path, body), **config)
    start(plugin)
    return plugin


def test_missing_program_names_the_install_line() -> None:
    with pytest.raises(PluginLoadError, match="apt install espeak-ng"):
        start(load_plugin("native", "tts-espeak", program="espeak-ng-is-not-here"))


def test_a_program_that_hangs_is_killed_at_its_timeout(tmp_path: Path) -> None:
    plugin = misbehaving(tmp_path, "exec sleep 60", timeout_seconds=0.3)
    began = time.monotonic()
    with pytest.raises(ActionFailed) as caught:
        speak(plugin)
    assert caught.value.code == "TTS_TIMEOUT"
    assert time.monotonic() - began < 5
    assert gone(tmp_path)


def test_a_cancelled_call_leaves_no_child(tmp_path: Path) -> None:
    plugin = misbehaving(tmp_path, "exec sleep 60")

    async def cancel_soon() -> None:
        driver = driver_of(plugin)
        call = Call("tts.synthesize", {"text": TEXT})
        task = asyncio.create_task(driver.ainvoke(driver.capability("tts.synthesize"), call))
        await asyncio.to_thread(wait_for, tmp_path / "pid")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel_soon())
    assert gone(tmp_path)


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ("echo broken >&2; exit 3", "broken"),
        ("exit 3", "exit code 3"),
        ("echo this is certainly no sound at all", "WAV"),
        ("cat > /dev/null", "exit code 0"),
    ],
)
def test_a_program_that_fails_is_quoted(tmp_path: Path, body: str, match: str) -> None:
    with pytest.raises(ActionFailed, match=match) as caught:
        speak(misbehaving(tmp_path, body))
    assert caught.value.code == "TTS_SYNTH_ERROR"
    assert gone(tmp_path)


def test_a_program_that_vanished_is_a_clear_error(tmp_path: Path) -> None:
    plugin = misbehaving(tmp_path, "true")
    (tmp_path / "espeak-stand-in").unlink()
    with pytest.raises(ActionFailed, match="could not be run"):
        speak(plugin)


def header(rate: int, channels: int = 1, bits: int = 16, extra: bytes = b"") -> bytes:
    fmt = struct.pack("<HHIIHH", 1, channels, rate, rate * 2, 2, bits)
    return b"RIFF\xff\xff\xff\x7fWAVE" + extra + b"fmt \x10\0\0\0" + fmt + b"data\xff\xff\xff\x7f"


@given(st.integers(8000, 48_000), st.integers(0, 9), st.binary(max_size=20))
def test_a_wav_header_is_read_however_it_is_cut(rate: int, odd: int, pcm: bytes) -> None:
    extra = b"LIST" + odd.to_bytes(4, "little") + bytes(odd + odd % 2)
    whole = header(rate, extra=extra)
    assert espeak_module.wav_header(whole + pcm) == (rate, len(whole))
    for cut in range(len(whole)):
        assert espeak_module.wav_header(whole[:cut]) is None


@given(st.binary(max_size=64))
def test_any_bytes_are_a_header_incomplete_or_refused(data: bytes) -> None:
    found, code = None, "TTS_SYNTH_ERROR"
    try:
        found = espeak_module.wav_header(data)
    except ActionFailed as error:
        code = error.code
    assert code == "TTS_SYNTH_ERROR"
    assert found is None or found[1] <= len(data)


def test_stereo_is_refused() -> None:
    with pytest.raises(ActionFailed, match="2 channels"):
        espeak_module.wav_header(header(16_000, channels=2))
