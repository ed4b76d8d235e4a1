"""examples/wyoming against the servers that Home Assistant runs, with models of this machine."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from loom_host import Host
from loom_host.testing import real_host
from loom_host.turn import speak_file
from loom_sdk.errors import ActionFailed, DeadlineExceeded, InvalidArguments
from loom_sdk.models import models_dir

from .far import free_port
from .support import ROOT
from .test_voice_loop import JARVIS, voice_host

EXAMPLE = ROOT / "examples" / "wyoming"
RECORDINGS = ROOT / "tests" / "recordings"
PCM = "audio/pcm;rate=16000"
SPOKEN = ("piper_joe_no_wake_clean.wav", "piper_joe_jarvis_12x9_noisy.wav", "silence.wav")
WHISPER, JOE = "whisper-tiny.en", "piper-en_US-joe-medium"


def pcm_of(name: str) -> bytes:
    with wave.open(str(RECORDINGS / name)) as file:
        return bytes(file.readframes(file.getnframes()))


@contextmanager
def server(module: str, folder: Path, *options: str) -> Iterator[str]:
    """A server of its own package on a port of 127.0.0.1; its address once it is ready."""
    pytest.importorskip(module, reason=f"needs pip install {module.replace('_', '-')}")
    uri = f"tcp://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", module, "--uri", uri, "--data-dir", str(folder), *options]
    log = folder / "log.txt"
    with (
        log.open("w") as lines,
        subprocess.Popen(
            command, stderr=lines, stdout=lines, env=os.environ | {"HF_HUB_OFFLINE": "1"}
        ) as process,
    ):
        try:
            until = time.monotonic() + 60
            while "Ready" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.05)
            yield uri
        finally:
            process.kill()


def model(name: str) -> Path:
    if not (models_dir() / name).is_dir():
        pytest.skip(f"needs `loom models pull {name}`")
    return models_dir() / name


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    options = ("--model", str(model(WHISPER)), "--local-files-only", "--language", "en",
               "--stt-library", "faster-whisper", "--compute-type", "int8")  # fmt: skip
    with server("wyoming_faster_whisper", tmp_path_factory.mktemp("stt"), *options) as uri:
        yield uri


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    options = ("--data-dir", str(model(JOE)), "--voice", "en_US-joe-medium", "--local-files-only")
    with server("wyoming_piper", tmp_path_factory.mktemp("tts"), *options) as uri:
        yield uri


def host_of(
    stt: str = "tcp://127.0.0.1:1", tts: str = "tcp://127.0.0.1:1", **options: Any
) -> AbstractAsyncContextManager[Host]:
    """The plugin, which may reach these two servers and nothing else."""
    network = [uri.replace("://", ":") for uri in (stt, tts)]
    options = {"allow": {"provide": ["*"], "network": network}} | options
    return real_host(EXAMPLE, config={"stt_uri": stt, "tts_uri": tts}, **options)


async def heard(host: Host, pcm: bytes) -> dict[str, Any]:
    result = await host.invoke("stt.transcribe", {}, payload=pcm, content_type=PCM)
    output: dict[str, Any] = result.output
    return output


def engines(first: str) -> dict[str, Any]:
    """The one line that chooses between the two recognisers, and the other's table."""
    return {
        "providers": {"stt.transcribe": [first]},
        "plugins": {"stt-whisper": {"allow": {"provide": ["stt.transcribe"]}}},
    }


@pytest.mark.slow
async def test_one_line_swaps_it_with_the_recogniser_that_comes_with_loom(recogniser: str) -> None:
    texts: dict[str, list[dict[str, Any]]] = {}
    for name in ("wyoming", "stt-whisper"):
        async with host_of(recogniser, settings=engines(name)) as host:
            assert ("stt-whisper" in host.plugins) == (name == "stt-whisper")
            texts[name] = [await heard(host, pcm_of(recording)) for recording in SPOKEN]
    assert texts["wyoming"] == texts["stt-whisper"]
    assert [output["text"] for output in texts["wyoming"]] == [
        "What is 12 times 9?", "Hey Jarvis, what is 12 times 9?", ""
    ]  # fmt: skip


@pytest.mark.slow
async def test_what_it_has_a_server_say_is_understood(recogniser: str, speaker: str) -> None:
    import numpy as np
    import soxr

    async with host_of(recogniser, speaker) as host:
        asked = {"text": "Good morning. What is 12 times 9?", "voice": "en_US-joe-medium"}
        spoken = await host.invoke("tts.synthesize", asked)
        sound = b"".join(item.payload for item in spoken.items)
        rate = spoken.output["sample_rate"]
        assert [item.output for item in spoken.items] == [
            {"sample_rate": rate, "index": index} for index in range(len(spoken.items))
        ]
        assert {item.content_type for item in spoken.items} == {f"audio/pcm;rate={rate}"}
        assert spoken.output["duration_ms"] == len(sound) // 2 * 1000 // rate
        resampled = soxr.resample(np.frombuffer(sound, "<i2").astype("float32"), rate, 16000)
        answer = await heard(host, resampled.astype("<i2").tobytes())
    assert "12 times 9" in answer["text"]
    assert "morning" in answer["text"]


@pytest.mark.slow
async def test_it_tells_what_servers_offer_and_which_voice_they_lack(speaker: str) -> None:
    async with host_of(tts=speaker) as host:
        (program,) = (await host.invoke("wyoming.info", {"server": "tts"})).output["programs"]
        assert program["name"] == "piper"
        assert "en_US-joe-medium" in program["models"]
        assert "de_DE" in program["languages"]
        for voice in ("nobody", "../secret"):
            with pytest.raises(ActionFailed) as caught:
                await host.invoke("tts.synthesize", {"text": "Hi.", "voice": voice})
            assert caught.value.code == "TTS_VOICE_MISSING"
        silent = await host.invoke("tts.synthesize", {"text": " \n"})
        assert (silent.items, silent.output["duration_ms"]) == ([], 0)


@pytest.mark.slow
async def test_the_voice_agent_hears_and_speaks_by_wyoming_alone(
    recogniser: str, speaker: str, tmp_path: Path
) -> None:
    uris = {"stt_uri": recogniser, "tts_uri": speaker}
    network = [uri.replace("://", ":") for uri in uris.values()]
    changes = {
        "host": {"plugin_paths": [str(EXAMPLE)]},
        "providers": {"stt.transcribe": ["wyoming"], "tts.synthesize": ["wyoming"]},
    }
    table = {"config": uris, "allow": {"provide": ["*"], "network": network}}
    async with voice_host(tmp_path, **changes, plugins={"wyoming": table}) as host:
        report = (await speak_file(host, JARVIS, "realtime")).report()
        assert not {"stt-whisper", "tts-piper", "tts-espeak"} & set(host.plugins)
    assert "12 times 9" in report["transcript"]
    assert "108" in report["answer"]
    assert report["audio_out"]["seconds"] > 0.5


# -- what needs no model


async def test_without_a_grant_no_server_is_reached_and_the_answer_says_which_one(
    tmp_path: Path,
) -> None:
    async with Hanging() as hanging:
        async with host_of(hanging.uri, allow={"provide": ["*"]}) as host:
            with pytest.raises(ActionFailed) as caught:
                await host.invoke("wyoming.info", {"server": "stt"})
        assert caught.value.code == "WYOMING_UNREACHABLE"
        assert hanging.uri.replace("://", ":") in caught.value.message
        assert hanging.met == 0
    async with host_of() as host:
        with pytest.raises(ActionFailed, match="no Wyoming server at tcp://127.0.0.1:1 "):
            await heard(host, b"\0\x40" * 3200)


class Hanging:
    """Takes connections and says nothing."""

    met = left = 0

    async def __aenter__(self) -> Hanging:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.uri = f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.met += 1
        try:
            while await reader.read(65536):
                pass
        except ConnectionResetError:
            pass
        self.left += 1
        writer.close()


async def test_a_call_that_is_over_leaves_no_connection_behind() -> None:
    async with Hanging() as hanging, host_of(hanging.uri) as host:
        with pytest.raises(DeadlineExceeded):
            await host.invoke(
                "stt.transcribe", {}, payload=b"\0\x40" * 16000, content_type=PCM, timeout_ms=400
            )
        async with asyncio.timeout(5):
            while not hanging.left:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (hanging.met, host.plugins["wyoming"].state) == (1, "ready")


@pytest.mark.parametrize(("payload", "content_type"), [(b"\0\0", "audio/wav"), (b"\0\0\0", PCM)])
async def test_another_format_is_refused(payload: bytes, content_type: str) -> None:
    async with host_of() as host:
        with pytest.raises(InvalidArguments):
            await host.invoke("stt.transcribe", {}, payload=payload, content_type=content_type)
        with pytest.raises(InvalidArguments, match="no word for speed"):
            await host.invoke("tts.synthesize", {"text": "Hi.", "rate": 1.2})
