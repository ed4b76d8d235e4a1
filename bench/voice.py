"""From the end of speech to the first answer audio: the host's part, and against no host at all."""

from __future__ import annotations

import asyncio
import tempfile
import time
import wave
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loom_host import Host, Settings, load_settings
from loom_host.cli.demo import QUESTION
from loom_host.runtimes.base import HostServices
from loom_host.runtimes.fake import FakeRuntime, Serve
from loom_host.runtimes.native import NativeRuntime
from loom_host.turn import TURN_TIMEOUT_S, Listener, Turn, settle
from loom_sdk import Call, Item, Plugin, Result, toolchoice
from tests.support import FakePort, load_plugin, run_capability

from .table import Row, row

ROUNDS = 7
HANGOVER_S = 0.2
"""The default of the vad plugin."""
VOICED_DB = 35.0
"""A 10 ms frame is voiced when it is at most so far below the loudest one."""
SPEECH = "audio/pcm;rate=16000"


def last_voiced_ms(path: Path) -> float:
    """Where in the file the last voiced 10 ms frame ends, in ms."""
    with wave.open(str(path)) as file:
        samples = array("h", file.readframes(file.getnframes()))
        step = file.getframerate() // 100
    levels = [sum(s * s for s in samples[i : i + step]) for i in range(0, len(samples), step)]
    floor = max(levels) / 10 ** (VOICED_DB / 10)
    return 10.0 * (1 + max(i for i, level in enumerate(levels) if level >= floor))


@dataclass
class Spoken:
    """One answered question."""

    turn: Turn
    pcm: bytes
    """The utterance as the recogniser got it."""
    total_ms: float
    """From the file's last voiced sample, as it was played, to the first answer audio."""


async def speak(host: Host) -> Spoken:
    pcm: list[bytes] = []

    async def keep() -> None:
        async with host.bus.subscribe("utterance") as events:
            async for event in events:
                pcm.append(event.payload)

    keeper = asyncio.create_task(keep())
    async with Listener(host) as listener:
        asked = {"path": str(QUESTION), "pace": "realtime"}
        played = (await host.invoke("audio.stream_file", asked, timeout_ms=60_000)).output
        await settle(host, time.monotonic() + TURN_TIMEOUT_S)
        turn = listener.turn
    keeper.cancel()
    if turn.status != "ok" or "108" not in turn.result.get("answer", ""):
        raise RuntimeError(f"the turn went wrong, its time means nothing: {turn}")
    ended = played["started_unix_ms"] + last_voiced_ms(QUESTION)
    return Spoken(turn, pcm[0], turn.first_audio_ms - ended)


class FirstItem(FakePort):
    """Notes when the first item was emitted."""

    first: float = 0.0

    def emit(self, call_id: str, item: Item) -> None:
        self.first = self.first or time.perf_counter()


class Direct:
    """The same engines, objects in this process that are called one after the other."""

    def __init__(self, settings: Settings) -> None:
        config = settings.plugins["stt-whisper"].config
        self._stt = load_plugin("grpc", "stt-whisper", **config)
        self._llm = load_plugin("grpc", "llm-local")
        self._tts = load_plugin("grpc", "tts-piper")
        self._calculator = load_plugin("wasm", "calculator")
        for engine in (self._stt, self._llm, self._tts):
            engine.start(_Quiet())  # all that they ask for is a log

    def answer_ms(self, spoken: Spoken, tools: list[toolchoice.Tool]) -> float:
        """One turn, from the end of speech to the first answer audio."""
        question = spoken.turn.result["question"]
        began = time.perf_counter()
        time.sleep(HANGOVER_S)
        ask(self._stt, "stt.transcribe", {}, spoken.pcm)
        chosen = ask(self._llm, "llm.chat", {
            "messages": toolchoice.messages(tools, question),
            "max_tokens": 96,
            "temperature": 0.0,
            "response_schema": toolchoice.response_schema(tools, question),
        })  # fmt: skip
        choice = toolchoice.parse(tools, chosen.output["text"])
        assert choice is not None
        result = ask(self._calculator, choice.tool, choice.arguments)
        port = FirstItem()
        run_capability(self._tts, "tts.synthesize", {"text": result.output["speech"]}, port=port)
        return (port.first - began) * 1000


class _Quiet:
    def log(self, *_: Any, **__: Any) -> None: ...


def ask(plugin: Plugin, name: str, arguments: Mapping[str, Any], pcm: bytes = b"") -> Result:
    kind = SPEECH if pcm else ""
    return run_capability(plugin, name, dict(arguments), payload=pcm, content_type=kind)


def settings(folder: str) -> Settings:
    sink = {"sink": "wav", "sink_path": f"{folder}/answer.wav"}
    return load_settings(None, {"extends": "voice", "plugins": {"audio-io": {"config": sink}}})


async def real(folder: str) -> tuple[list[float], list[float], list[float]]:
    """host_ms, total_ms and the direct sequence's ms, in alternating rounds."""
    async with Host(settings(folder)) as host:
        await host.settled()
        await settle(host, time.monotonic() + TURN_TIMEOUT_S)
        direct = await asyncio.to_thread(Direct, host.settings)
        tools = toolchoice.tools_of((await host.invoke("loom.tools")).output["tools"])
        await asyncio.to_thread(direct.answer_ms, await speak(host), tools)
        found: tuple[list[float], list[float], list[float]] = ([], [], [])
        for _ in range(ROUNDS):
            spoken = await speak(host)
            found[0].append(spoken.turn.stages()["host_ms"])
            found[1].append(spoken.total_ms)
            found[2].append(await asyncio.to_thread(direct.answer_ms, spoken, tools))
    return found


async def faked(folder: str) -> list[float]:
    """host_ms with engines that answer at once."""
    serve: dict[str, dict[str, Serve]] = {
        "stt-whisper": {"stt.transcribe": _transcribe},
        "llm-local": {"llm.chat": _chat, "llm.count_tokens": _count_tokens},
        "tts-piper": {"tts.synthesize": _synthesize},
        "calculator": {"calculator.evaluate": _evaluate},
    }
    fakes = {tier: FakeRuntime(tier, serve=serve) for tier in ("wasm", "grpc")}
    async with Host(settings(folder), runtimes={"native": NativeRuntime(), **fakes}) as host:
        await host.settled()
        await settle(host, time.monotonic() + TURN_TIMEOUT_S)
        return [(await speak(host)).turn.stages()["host_ms"] for _ in range(ROUNDS)]


async def _count_tokens(call: Call, services: HostServices) -> Result:
    return Result({"counts": [len(text.split()) for text in call.arguments["texts"]]})


async def _transcribe(call: Call, services: HostServices) -> Result:
    return Result({"text": "Hey Loom, what is 12 times 9?", "language": "en"})


async def _chat(call: Call, services: HostServices) -> Result:
    arguments = {"expression": "12 times 9"}
    calls = [{"id": "call_1", "name": "calculator.evaluate", "arguments": arguments}]
    return Result({"text": "", "tool_calls": calls, "model": "fake", "finish_reason": "tool_calls"})


async def _evaluate(call: Call, services: HostServices) -> Result:
    return Result({"result": "108", "speech": "12 times 9 is 108."})


async def _synthesize(call: Call, services: HostServices) -> Result:
    item = Item({"sample_rate": 22050, "index": 0}, bytes(22050), "audio/pcm;rate=22050")
    await services.emit(call.id, item)
    return Result({"sample_rate": 22050, "duration_ms": 500, "engine": "fake", "voice": "fake"})


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        host_ms, totals, floors = asyncio.run(real(folder))
        fakes = asyncio.run(faked(folder))
    return [
        row("host_ms of the demo", host_ms, "ms", target=25),
        row("host_ms of the demo, fake engines", fakes, "ms", target=10),
        row(
            "end of speech to first answer audio",
            totals, "ms", peer="the same models called directly", floors=floors, target=1.10,
        ),
    ]  # fmt: skip
