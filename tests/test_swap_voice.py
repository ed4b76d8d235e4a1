"""`loom swap` of the recogniser while somebody speaks: every utterance is understood, counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import wave
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from loom_host import Host
from loom_host.control import ControlServer

from .hosting import until
from .test_voice_loop import RECORDINGS

pytestmark = pytest.mark.slow

SPOKEN = (
    "piper_joe_12x9_clean.wav", "piper_joe_100by8_clean.wav", "piper_joe_45plus17_clean.wav",
    "piper_joe_no_wake_clean.wav",
)  # fmt: skip
"""Each is one utterance."""
PAUSE_S = 1.5
"""Between two of them: longer than any pause inside one that the VAD waits for."""
CONFIG = """
extends = "voice"

[host]
runtime_dir = "run"

[roles]
wake = []
"""
SWAPS = (
    ("swap", "stt-whisper"),
    ("swap", "stt-whisper", "--with", "stt-pocketsphinx"),
    ("swap", "stt-pocketsphinx", "--with", "stt-whisper", "--config", "beam_size=1"),
)


def recording(path: Path) -> Path:
    """Write all of `SPOKEN`, one after another."""
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, 16000, 0, "NONE", ""))
        for name in SPOKEN:
            with wave.open(str(RECORDINGS / name)) as file:
                assert file.getparams()[:3] == (1, 2, 16000)
                out.writeframes(file.readframes(file.getnframes()))
            out.writeframes(bytes(int(PAUSE_S * 16000) * 2))
    return path


@dataclass
class Tally:
    """How often each utterance was published, and how often understood, by id."""

    published: Counter[str] = field(default_factory=Counter)
    understood: Counter[str] = field(default_factory=Counter)
    texts: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def following(self, host: Host) -> AsyncIterator[None]:
        tasks = [
            asyncio.create_task(self._follow(host, "utterance", self.published)),
            asyncio.create_task(self._follow(host, "transcript", self.understood)),
        ]
        await asyncio.sleep(0)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, host: Host, topic: str, counts: Counter[str]) -> None:
        types = ["utterance", "transcript.final"]
        async with host.bus.subscribe(topic, types=types) as events:
            async for event in events:
                counts[event.metadata["utterance_id"]] += 1
                if "text" in event.metadata:
                    self.texts.append(event.metadata["text"])


async def loom(config: Path, *words: str) -> Any:
    """The command line in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loom_host.cli.main", "-c", str(config), *words, "--json",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(out)


@asynccontextmanager
async def controlled(config: Path) -> AsyncIterator[Host]:
    async with Host.from_config(config) as host, contextlib.AsyncExitStack() as stack:
        await host.settled()
        control = ControlServer(host)
        await control.start()
        stack.push_async_callback(control.aclose)
        yield host


async def speak(host: Host, path: Path, enough: asyncio.Event) -> int:
    """As the microphone hears it, again and again until it is enough; how many utterances."""
    spoken, arguments = 0, {"path": str(path), "pace": "realtime"}
    while not enough.is_set():
        await host.invoke("audio.stream_file", arguments, timeout_ms=600_000)
        spoken += len(SPOKEN)
    return spoken


async def test_no_utterance_is_lost_while_the_recogniser_is_swapped(tmp_path: Path) -> None:
    config = tmp_path / "loom.toml"
    config.write_text(CONFIG)
    tally, enough = Tally(), asyncio.Event()
    async with controlled(config) as host, tally.following(host):
        speaking = asyncio.create_task(speak(host, recording(tmp_path / "spoken.wav"), enough))
        for words in SWAPS:
            heard = len(tally.published)
            await until(lambda: len(tally.published) > heard, 30)
            swapped = await loom(config, *words)
            assert swapped["instead_of"] == words[1]
        enough.set()
        spoken = await speaking
        await until(lambda: len(tally.published) == spoken, 30)
        await until(lambda: tally.understood.keys() == tally.published.keys(), 60)
        assert set(tally.understood.values()) == {1}
        assert all(tally.texts)
        rows = {row["name"]: row for row in await loom(config, "ps")}
    assert rows["stt-whisper"]["state"] == "ready"
    assert rows["stt-pocketsphinx"]["reason"].startswith("replaced by stt-whisper")
    calls = sum(rows[name]["calls"] for name in ("stt-whisper", "stt-pocketsphinx"))
    errors = sum(rows[name]["errors"] for name in ("stt-whisper", "stt-pocketsphinx"))
    assert (calls >= spoken, errors) == (True, 0)
