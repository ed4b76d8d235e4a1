"""A scripted host for the voice agent's tests: capabilities are functions of the call."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from loom_sdk import Call, Event, Item, Plugin, Result
from loom_sdk.call_context import Identity
from loom_sdk.driver import Driver
from loom_sdk.errors import CapabilityNotFound, LoomError
from tests.support import ROOT, AsyncFakePort, FakePort, load_plugin

FOLDER = ROOT / "plugins" / "native" / "voice-agent"
if str(FOLDER) not in sys.path:
    sys.path.append(str(FOLDER))

SECOND = b"\0" * 44_100
"""One second of speech at 22.05 kHz."""
CALCULATOR = {
    "name": "calculator.evaluate",
    "description": "Work out a sum with numbers.",
    "input_schema": {
        "type": "object",
        "properties": {"expression": {"type": "string"}},
        "required": ["expression"],
        "additionalProperties": False,
    },
    "examples": [{"arguments": {"expression": "2 + 3"}, "output": {"result": "5"}}],
    "effects": "none",
}
ROUTE = {
    "route": "Local",
    "reason": "Local model confidence exceeds threshold",
    "confidence": 0.9,
    "estimated_ms": 50.0,
    "estimated_cost": 0.0,
    "providers": ["llm-local"],
}


@dataclass
class ScriptedHost(FakePort):
    """A host whose capabilities are functions of the call; a raised error is the answer."""

    script: dict[str, Callable[[Call], Result]] = field(default_factory=dict)
    opened: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    """What happened: `publish TYPE`, `call CAPABILITY`, `item CAPABILITY`."""
    spoke: asyncio.Event = field(default_factory=asyncio.Event)
    read: asyncio.Event = field(default_factory=asyncio.Event)
    """The model has answered."""

    def publish(self, event: Event, call_id: str) -> int:
        self.order.append(f"publish {event.type}")
        if event.type == "tts.chunk":
            self.spoke.set()
        return super().publish(event, call_id)

    def invoke(self, call: Call) -> Result:
        self.calls.append(call)
        self.order.append(f"call {call.capability}")
        if call.capability not in self.script:
            raise CapabilityNotFound(f"nobody offers {call.capability!r}")
        result = self.script[call.capability](call)
        if call.capability == "llm.chat":
            self.read.set()
        return result

    def events(self, kind: str) -> list[Event]:
        return [event for event in self.published if event.type == kind]

    def called(self, capability: str) -> list[Call]:
        return [call for call in self.calls if call.capability == capability]


class ScriptedPort(AsyncFakePort):
    """As the host: items come one by one, then one with the final output."""

    def __init__(self, host: ScriptedHost, pause_s: float = 0.0) -> None:
        super().__init__(host)
        self._host, self._pause = host, pause_s

    async def stream(self, call: Call) -> AsyncIterator[Item]:
        name = call.capability
        self._host.opened.append(name)
        try:
            result = self._host.invoke(call)
            for item in result.items:
                await asyncio.sleep(self._pause)
                self._host.order.append(f"item {name}")
                yield item
            if error := getattr(result, "error", None):
                raise error
            yield Item(result.output, elapsed_us=result.elapsed_us)
        finally:
            self._host.closed.append(name)


@dataclass
class Broken(Result):
    """A stream that fails after its items."""

    error: LoomError | None = None


def written(text: str, size: int = 4) -> Result:
    """A model's streamed answer."""
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    items = [Item({"delta": part}, elapsed_us=100 * i) for i, part in enumerate(parts, 1)]
    return Result({"text": text, "model": "m", "usage": {}}, elapsed_us=5000, items=items)


def spoken(call: Call) -> Result:
    """A voice that needs half a second of audio for each item, two items a sentence."""
    items = [Item({"sample_rate": 22_050, "index": i}, SECOND[:22_050], "", 700) for i in (0, 1)]
    output = {"sample_rate": 22_050, "duration_ms": 1000, "engine": "e", "voice": "v"}
    return Result(output, elapsed_us=900, items=items)


def chat(*, tool: dict[str, Any] | None = None, answer: str = "Hello there.") -> Any:
    """`llm.chat`: asks once for the tool, where tools are offered, else writes the answer."""

    def reply(call: Call) -> Result:
        if tool and "tools" in call.arguments and call.arguments["messages"][-1]["role"] == "user":
            return choosing(tool)
        return written(answer)

    return reply


def choosing(*tools: dict[str, Any]) -> Result:
    """A model that asks for these tools."""
    calls = [{"id": f"call_{place}", **tool} for place, tool in enumerate(tools)]
    output = {"text": "", "tool_calls": calls, "model": "m", "finish_reason": "tool_calls"}
    return Result(output, elapsed_us=2000)


SUM = {"name": "calculator.evaluate", "arguments": {"expression": "12 * 9"}}


def host(**script: Any) -> ScriptedHost:
    """A complete host; `stt_transcribe=...` and the like replace a part, None removes it."""
    parts: dict[str, Any] = {
        "stt.transcribe": lambda call: Result(
            {"text": " What is 12 times 9? ", "language": "en", "duration_ms": 1500},
            elapsed_us=400_000,
            provider="stt-whisper",
        ),
        "llm.chat": chat(tool=SUM),
        "tts.synthesize": spoken,
        "loom.tools": lambda call: Result({"tools": [CALCULATOR]}),
        "loom.route": lambda call: Result(dict(ROUTE)),
        "calculator.evaluate": lambda call: Result(
            {"result": "108", "speech": "12 times 9 is 108."}, elapsed_us=300, provider="calculator"
        ),
    }
    parts |= {name.replace("_", ".", 1): part for name, part in script.items()}
    return ScriptedHost(script={name: part for name, part in parts.items() if part is not None})


async def agent(port: ScriptedPort, **config: Any) -> Driver:
    plugin: Plugin = load_plugin("native", "voice-agent", **{"warm_up": False, **config})
    driver = Driver(plugin, Identity("loom/voice-agent"), FakePort(), port)
    method, context, _ = driver.lifecycle("start")
    await method(context)
    return driver


async def send(driver: Driver, event: Event) -> None:
    bound = driver.handler(event)
    assert bound is not None
    await driver.ahandle_event(bound, event)


def query(text: str = "What is 12 times 9?", **metadata: str) -> Event:
    labels = {"session_id": "s", "stream_id": "m", "utterance_id": "u1", "phrase": "hey loom"}
    labels |= {"score": "0.97", "text": text, "transcript": f"Hey loom, {text}"} | metadata
    return Event("user.query", metadata=labels, topic="query")


def utterance(pcm: bytes = b"\1\0" * 16_000, **metadata: str) -> Event:
    labels = {"session_id": "s", "stream_id": "m", "utterance_id": "u1", "duration_ms": "1000"}
    labels |= {"end_of_speech_unix_ms": f"{time.time() * 1000 - 200:.1f}", "end_of_speech_ms": "9"}
    return Event("utterance", pcm, labels | metadata, topic="utterance")


async def ask(scripted: ScriptedHost, event: Event | None = None, **config: Any) -> dict[str, Any]:
    """One query; returns the metadata of its `action_result` with `turn` decoded."""
    await send(await agent(ScriptedPort(scripted), **config), event or query())
    return result_of(scripted)


def result_of(scripted: ScriptedHost, index: int = -1) -> dict[str, Any]:
    metadata: dict[str, Any] = dict(scripted.events("action_result")[index].metadata)
    metadata["turn"] = json.loads(metadata["turn"])
    return metadata
