"""The voice agent against scripted capabilities: every way a turn can go."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loom_sdk import Call, Event, Item, Plugin, Result
from loom_sdk.context import Identity
from loom_sdk.driver import Driver
from loom_sdk.errors import (
    ActionFailed,
    CapabilityNotFound,
    DeadlineExceeded,
    LoomError,
    PluginCrashed,
)

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

    def publish(self, event: Event, call_id: str) -> int:
        self.order.append(f"publish {event.type}")
        return super().publish(event, call_id)

    def invoke(self, call: Call) -> Result:
        self.calls.append(call)
        self.order.append(f"call {call.capability}")
        if call.capability not in self.script:
            raise CapabilityNotFound(f"nobody offers {call.capability!r}")
        return self.script[call.capability](call)

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
    """`llm.chat`: the choice where a schema is asked for, else the answer."""

    def reply(call: Call) -> Result:
        if "response_schema" in call.arguments:
            return Result({"text": json.dumps(choice_text(tool)), "model": "m"}, elapsed_us=2000)
        return written(answer)

    return reply


def choice_text(tool: dict[str, Any] | None) -> dict[str, Any]:
    """What a model writes that chooses this tool, or none."""
    return {"tool": tool["name"], "arguments": tool["arguments"]} if tool else {"tool": "none"}


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
    plugin: Plugin = load_plugin("native", "voice-agent", **config)
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


def utterance(pcm: bytes = b"\1\0" * 16_000) -> Event:
    labels = {"session_id": "s", "stream_id": "m", "utterance_id": "u1", "duration_ms": "1000"}
    labels |= {"end_of_speech_unix_ms": f"{time.time() * 1000 - 200:.1f}", "end_of_speech_ms": "9"}
    return Event("utterance", pcm, labels, topic="utterance")


async def ask(scripted: ScriptedHost, event: Event | None = None, **config: Any) -> dict[str, Any]:
    """One query; returns the metadata of its `action_result` with `turn` decoded."""
    await send(await agent(ScriptedPort(scripted), **config), event or query())
    return result_of(scripted)


def result_of(scripted: ScriptedHost, index: int = -1) -> dict[str, Any]:
    metadata: dict[str, Any] = dict(scripted.events("action_result")[index].metadata)
    metadata["turn"] = json.loads(metadata["turn"])
    return metadata


async def test_speech_becomes_a_transcript_that_keeps_the_utterances_labels() -> None:
    scripted = host()
    event = utterance()
    await send(await agent(ScriptedPort(scripted), language="en"), event)
    call = scripted.called("stt.transcribe")[0]
    assert (call.payload, call.content_type) == (event.payload, "audio/pcm;rate=16000")
    assert call.arguments == {"language": "en"}
    (transcript,) = scripted.published
    assert (transcript.topic, transcript.type) == ("transcript", "transcript.final")
    found = transcript.metadata
    assert found["text"] == "What is 12 times 9?"
    assert (found["provider"], found["stt_us"]) == ("stt-whisper", "400000")
    assert found["duration_ms"] == "1500"
    assert int(found["stt_wall_us"]) > 0
    assert event.metadata.items() - found.items() == {("duration_ms", "1000")}


@pytest.mark.parametrize("text", ["", "  ", " . ", "…"])
async def test_an_utterance_without_words_is_no_transcript(text: str) -> None:
    scripted = host(stt_transcribe=lambda call: Result({"text": text}))
    await send(await agent(ScriptedPort(scripted)), utterance())
    assert [event.topic for event in scripted.published] == ["agent.voice"]
    assert result_of(scripted)["status"] == "no_speech"
    assert result_of(scripted)["utterance_id"] == "u1"


async def test_a_restarted_recogniser_gets_the_same_utterance_again() -> None:
    failures = [PluginCrashed("gone"), PluginCrashed("gone")]

    def flaky(call: Call) -> Result:
        if failures:
            raise failures.pop()
        return Result({"text": "hello"}, provider="stt-whisper")

    scripted = host(stt_transcribe=flaky)
    await send(await agent(ScriptedPort(scripted)), utterance())
    payloads = {call.payload for call in scripted.called("stt.transcribe")}
    assert len(scripted.called("stt.transcribe")) == 3
    assert payloads == {utterance().payload}
    assert scripted.published[0].metadata["text"] == "hello"


async def test_a_recogniser_that_stays_away_is_said_once_and_reported_each_time() -> None:
    def broken(call: Call) -> Result:
        raise ActionFailed("no model", code="MODEL")

    scripted = host(stt_transcribe=broken)
    driver = await agent(ScriptedPort(scripted))
    await send(driver, utterance())
    await send(driver, utterance())
    texts = [call.arguments["text"] for call in scripted.called("tts.synthesize")]
    assert texts == ["Sorry, the speech recogniser did not answer."]
    results = scripted.events("action_result")
    assert [event.metadata["code"] for event in results] == ["MODEL", "MODEL"]


async def test_a_tool_answers_and_its_speech_is_spoken_without_a_second_round() -> None:
    scripted = host()
    heard = f"{time.time() * 1000 - 900:.1f}"
    event = query(
        end_of_speech_unix_ms=heard, heard_unix_ms=heard, stt_us="300000", stt_wall_us="310000"
    )
    found = await ask(scripted, event)
    turn = found["turn"]
    assert found["status"] == "ok"
    assert turn["answer"] == "12 times 9 is 108."
    assert turn["tool"] == SUM | {
        "result": {"result": "108", "speech": "12 times 9 is 108."},
        "provider": "calculator",
    }
    assert turn["wake"] == {"phrase": "hey loom", "score": 0.97}
    assert turn["transcript"] == "Hey loom, What is 12 times 9?"
    assert turn["route"]["route"] == "Local"
    assert len(scripted.called("llm.chat")) == 1
    assert turn["inside_us"] == {
        "stt": 300_000, "tools": 0, "llm_tool": 2000, "tool": 300, "tts_first": 700,
    }  # fmt: skip
    assert turn["wall_us"].keys() == turn["inside_us"].keys()
    assert turn["wall_us"]["stt"] == 310_000
    assert turn["stages_ms"]["total"] >= 900


async def test_tool_choice_is_constrained_and_cold() -> None:
    scripted = host()
    await ask(scripted, max_tools=1, tool_tokens=50)
    call = scripted.called("llm.chat")[0]
    assert call.arguments["temperature"] == 0
    assert call.arguments["max_tokens"] == 50
    assert "calculator.evaluate" in json.dumps(call.arguments["response_schema"])
    assert "12 times 9" in call.arguments["messages"][-1]["content"]


async def test_speech_goes_out_as_start_chunks_and_done() -> None:
    scripted = host()
    await ask(scripted)
    spoken_events = [event for event in scripted.published if event.topic == "tts"]
    assert [e.type for e in spoken_events] == ["tts.start", "tts.chunk", "tts.chunk", "tts.done"]
    assert {e.metadata["sample_rate"] for e in spoken_events} == {"22050"}
    assert {e.metadata["utterance_id"] for e in spoken_events} == {"u1"}
    assert [e.metadata["index"] for e in spoken_events[1:3]] == ["0", "1"]
    assert b"".join(e.payload for e in spoken_events) == SECOND
    assert spoken_events[-1].metadata["duration_ms"] == "1000"
    (message,) = scripted.events("assistant.message")
    assert message.metadata["text"] == "12 times 9 is 108."
    assert json.loads(message.metadata["tool"])["provider"] == "calculator"
    assert "tts_first" in json.loads(message.metadata["timings"])
    assert all({"session_id", "stream_id", "seq"} <= e.metadata.keys() for e in scripted.published)


async def test_without_a_tool_the_first_sentence_is_spoken_while_the_second_is_written() -> None:
    answer = "Rome is the capital. It has been so since the year 1871, and it is very old."
    scripted = host(llm_chat=chat(answer=answer))
    port = ScriptedPort(scripted, pause_s=0.001)
    await send(await agent(port), query("What is the capital of Italy?"))
    pieces = [call.arguments["text"] for call in scripted.called("tts.synthesize")]
    assert pieces == answer.replace(". ", ".\n").split("\n")
    last_written = len(scripted.order) - 1 - scripted.order[::-1].index("item llm.chat")
    assert scripted.order.index("publish tts.start") < last_written
    tokens = "".join(event.metadata["delta"] for event in scripted.events("assistant.token"))
    assert tokens == answer == result_of(scripted)["turn"]["answer"]
    inside = result_of(scripted)["turn"]["inside_us"]
    # The item that completed the first sentence, not the end of the text.
    assert inside["llm_answer"] == 600


async def test_no_tools_means_no_round_to_choose_one() -> None:
    scripted = host(loom_tools=None, llm_chat=chat(answer="Good morning."))
    found = await ask(scripted, query("Good morning"))
    assert found["turn"]["answer"] == "Good morning."
    assert len(scripted.called("llm.chat")) == 1


async def test_a_tools_error_is_said_clearly() -> None:
    def zero(call: Call) -> Result:
        raise ActionFailed("division by zero", code="DIVISION_BY_ZERO")

    scripted = host(calculator_evaluate=zero)
    found = await ask(scripted)
    assert (found["status"], found["code"]) == ("error", "DIVISION_BY_ZERO")
    assert found["turn"]["answer"] == "I could not do that: division by zero"
    assert found["turn"]["tool"]["error"]["code"] == "DIVISION_BY_ZERO"
    assert scripted.events("tts.done")


@pytest.mark.parametrize(
    ("written_answer", "said"),
    [("It is 12 degrees in Paris.", None), ("It is 25 degrees in Paris.", "Paris")],
    ids=["right", "wrong"],
)
async def test_a_result_without_speech_is_put_into_words_only_with_its_own_numbers(
    written_answer: str, said: str | None
) -> None:
    output = {"location": "Paris", "temperature": 12}
    scripted = host(
        calculator_evaluate=lambda call: Result(output),
        llm_chat=chat(tool=SUM, answer=written_answer),
    )
    found = await ask(scripted, query("How warm is it in Paris?"))
    stated = "Location is paris, temperature is 12."
    assert found["turn"]["answer"] == (stated if said else written_answer)
    assert "Paris" in scripted.called("llm.chat")[1].arguments["messages"][-1]["content"]
    assert "llm_answer" in found["turn"]["wall_us"]


async def test_a_model_that_breaks_off_ends_the_turn_with_an_apology() -> None:
    def breaks(call: Call) -> Result:
        if "response_schema" in call.arguments:
            return chat()(call)  # type: ignore[no-any-return]
        items = [Item({"delta": "I think that"}, elapsed_us=10)]
        return Broken(items=items, error=DeadlineExceeded("too slow"))

    found = await ask(scripted := host(llm_chat=breaks))
    assert (found["status"], found["code"]) == ("timeout", "DEADLINE_EXCEEDED")
    assert found["turn"]["answer"].endswith("Sorry, the language model did not answer in time.")
    assert scripted.events("tts.done")


async def test_a_voice_that_fails_leaves_the_text() -> None:
    def hoarse(call: Call) -> Result:
        return Broken(items=spoken(call).items[:1], error=PluginCrashed("piper ended"))

    found = await ask(scripted := host(tts_synthesize=hoarse))
    assert (found["status"], found["code"]) == ("retryable", "PLUGIN_CRASHED")
    assert scripted.events("assistant.message")[0].metadata["text"] == "12 times 9 is 108."
    assert [e.metadata["code"] for e in scripted.events("tts.error")] == ["PLUGIN_CRASHED"]
    assert not scripted.events("tts.done")


async def test_a_voice_without_sound_is_an_error() -> None:
    found = await ask(host(tts_synthesize=lambda call: Result({"sample_rate": 22_050})))
    assert found["code"] == "TTS_NO_AUDIO"


async def test_text_only_queries_are_not_spoken() -> None:
    scripted = host()
    found = await ask(scripted, query(speak="false"))
    assert found["status"] == "ok"
    assert not scripted.called("tts.synthesize")
    assert found["turn"]["first_audio_unix_ms"] is None


async def test_two_wake_plugins_get_one_answer() -> None:
    scripted = host()
    driver = await agent(ScriptedPort(scripted))
    await asyncio.gather(send(driver, query()), send(driver, query()))
    await send(driver, query())
    assert len(scripted.events("action_result")) == 1
    again = query()
    redelivered = Event("user.query", metadata=again.metadata, topic="query", delivery_attempt=2)
    await send(driver, redelivered)
    assert len(scripted.events("action_result")) == 2


async def test_a_new_question_interrupts_the_answer_to_the_former() -> None:
    endless = "This goes on and on. " * 200
    scripted = host(llm_chat=chat(answer=endless))
    driver = await agent(ScriptedPort(scripted, pause_s=0.001))
    first = asyncio.create_task(send(driver, query("Tell me a long story.")))
    async with asyncio.timeout(5):
        while not scripted.events("tts.chunk"):
            await asyncio.sleep(0.001)
    scripted.script["llm.chat"] = chat(tool=SUM)
    await send(driver, query(utterance_id="u2"))
    await first
    assert sorted(scripted.opened) == sorted(scripted.closed)
    (stop,) = scripted.events("assistant.interrupt")
    assert (stop.metadata["utterance_id"], stop.metadata["by"]) == ("u1", "u2")
    former, latter = result_of(scripted, 0), result_of(scripted, 1)
    assert (former["status"], former["code"]) == ("error", "INTERRUPTED")
    assert (latter["utterance_id"], latter["status"]) == ("u2", "ok")
    after = scripted.published[scripted.published.index(stop) :]
    assert {e.metadata["utterance_id"] for e in after} <= {"u1", "u2"}
    assert not [e for e in after[1:] if e.topic == "tts" and e.metadata["utterance_id"] == "u1"]


async def test_three_questions_at_once_are_all_ended_and_the_last_is_answered() -> None:
    scripted = host(llm_chat=chat(answer="Well, yes. " * 20))
    driver = await agent(ScriptedPort(scripted, pause_s=0.001))
    events = [query("Why is that so?", utterance_id=f"u{i}") for i in range(3)]
    await asyncio.gather(*(send(driver, event) for event in events))
    ended = {e.metadata["utterance_id"]: e.metadata["status"] for e in scripted.events("action_result")}
    assert ended == {"u0": "error", "u1": "error", "u2": "ok"}


async def test_a_cancelled_handler_leaves_nothing_running() -> None:
    scripted = host(llm_chat=chat(answer="And so on. " * 500))
    driver = await agent(ScriptedPort(scripted, pause_s=0.001))
    task = asyncio.create_task(send(driver, query()))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(scripted.opened) == sorted(scripted.closed)
    assert len(asyncio.all_tasks()) == 1


async def test_the_routing_decision_is_published_and_optional() -> None:
    scripted = host()
    await ask(scripted)
    (decision,) = scripted.events("routing_decision")
    assert decision.topic == "agent.voice"
    wanted = {"route": "Local", "provider": "llm-local", "confidence": "0.900"}
    assert wanted.items() <= decision.metadata.items()
    found = await ask(host(loom_route=None))
    assert (found["status"], found["turn"]["route"]) == ("ok", None)


async def test_the_model_is_reminded_of_the_last_turns_of_its_session_only() -> None:
    scripted = host(loom_tools=None, llm_chat=chat(answer="I see."))
    driver = await agent(ScriptedPort(scripted), history_turns=2)
    for index, session in enumerate("aaab"):
        await send(driver, query(f"Fact {index}", utterance_id=f"u{index}", session_id=session))
    sent = [
        [message["content"] for message in call.arguments["messages"][1:]]
        for call in scripted.called("llm.chat")
    ]
    assert sent[2] == ["Fact 0", "I see.", "Fact 1", "I see.", "Fact 2"]
    assert sent[3] == ["Fact 3"]


async def test_a_fault_of_the_agent_itself_ends_the_turn() -> None:
    found = await ask(host(loom_tools=lambda call: Result({"nonsense": 1})))
    assert (found["status"], found["code"]) == ("error", "CAPABILITY_ERROR")


def pieces_of(portions: list[str]) -> list[str]:
    from voice_agent_split import Splitter

    splitter = Splitter()
    pieces = [piece for portion in portions for piece in splitter.feed(portion)]
    return pieces + splitter.finish()


TEXTS = st.text(alphabet="aB1 .,!?;:\n…\"')-e", max_size=300) | st.text(max_size=300)


@given(TEXTS)
def test_pieces_joined_are_the_text_however_it_is_portioned(text: str) -> None:
    pieces = pieces_of([text])
    assert "".join(pieces) == text
    assert pieces_of(list(text)) == pieces
    assert all(0 < len(piece) <= 240 for piece in pieces)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Yes. No.", ["Yes. ", "No."]),
        ("Pi is 3.14, about. Fine.", ["Pi is 3.14, ", "about. ", "Fine."]),
        ("Yes, it is so, and so, on.", ["Yes, it is so, ", "and so, on."]),
        ("Ask Dr. Who at once. Go!", ["Ask Dr. Who at once. ", "Go!"]),
        ("J. Smith did. I did.", ["J. Smith did. ", "I did."]),
        ('He said "Stop." Then left.', ['He said "Stop." ', "Then left."]),
        ("One\nTwo", ["One\n", "Two"]),
        ("... Well.", ["... Well."]),
        ("", []),
    ],
)
def test_sentences_and_a_first_clause_are_pieces(text: str, pieces: list[str]) -> None:
    assert pieces_of([text]) == pieces


@pytest.mark.parametrize(
    ("answer", "output", "question", "right"),
    [
        ("That is 108.", {"result": "108"}, "", True),
        ("That is 1,080.", {"result": "108"}, "", False),
        ("12 times 9 is 108.", {"result": "108"}, "12 times 9", True),
        ("12 times 9 is 180.", {"result": "108"}, "12 times 9", False),
        ("About 1,234.5 in all.", {"result": 1234.5}, "", True),
        ("It is sunny.", {"conditions": "Sunny", "wind": 3}, "", True),
        ("It is cold.", {"conditions": "Sunny", "wind": 3}, "", False),
        ("No idea.", {}, "", False),
    ],
)
def test_an_answer_holds_the_result(answer: str, output: Any, question: str, right: bool) -> None:
    from voice_agent_answer import holds

    assert holds(answer, output, question) is right


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ({"result": "108", "unit": "x"}, "The result is 108."),
        (True, "The result is yes."),
        (None, "That is done."),
        ({"a_b": 1, "c": "d"}, "A b is 1, c is d."),
    ],
)
def test_a_result_is_stated(output: Any, said: str) -> None:
    from voice_agent_answer import stated

    assert stated(output) == said
