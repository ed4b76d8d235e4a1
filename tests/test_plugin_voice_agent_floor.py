"""Questions that come in parts: what is joined, what waits meanwhile, who is answered."""

from __future__ import annotations

import asyncio
import time
from importlib import import_module
from typing import Any

import pytest

from loom_sdk import Call, Event, Result
from loom_sdk.errors import ActionFailed
from tests.voice_agent_host import (
    FOLDER,
    SUM,
    ScriptedHost,
    ScriptedPort,
    agent,
    chat,
    host,
    query,
    result_of,
    send,
)

assert FOLDER.is_dir()
floor = import_module("voice_agent_floor")


def part(name: str, begin_ms: int, end_ms: int, pcm: bytes = b"", **labels: str) -> Event:
    """An utterance as vad publishes it: 300 ms pre-roll, 200 ms hangover."""
    times = {"begin_of_speech_ms": begin_ms, "end_of_speech_ms": end_ms}
    times |= {"duration_ms": end_ms - begin_ms + 500}
    metadata = {"utterance_id": name, "stream_id": "m", "session_id": "s"}
    metadata |= {key: str(value) for key, value in times.items()} | labels
    return Event("utterance", pcm or name.encode() * 2, metadata, topic="utterance")


def edge(kind: str, name: str, position_ms: int, **labels: str) -> Event:
    metadata = {"utterance_id": name, "stream_id": "m", "position_ms": str(position_ms)} | labels
    return Event(f"vad.speech_{kind}", metadata=metadata, topic="vad")


def asked_after(utterance: Event, text: str, **labels: str) -> Event:
    """The query that a wake plugin makes of an utterance's transcript."""
    return query(text, **{**utterance.metadata, **labels})


def test_speech_soon_after_an_utterance_is_joined_to_it() -> None:
    first = part("a", 600, 1600, b"11")
    both = floor.joined(first, part("b", 2100, 3000, b"22"), 1200)
    assert both.payload == b"1122"
    assert both.metadata["utterance_id"] == "b"
    assert both.metadata["continues"] == "a"
    assert both.metadata["begin_of_speech_ms"] == "600"
    assert both.metadata["end_of_speech_ms"] == "3000"
    assert int(both.metadata["duration_ms"]) == 3000 - 600 + 500
    third = floor.joined(both, part("c", 3500, 4000, b"33"), 1200)
    assert third.payload == b"112233"
    assert (third.metadata["continues"], third.metadata["begin_of_speech_ms"]) == ("b", "600")


@pytest.mark.parametrize(
    ("former", "event"),
    [
        (None, part("b", 2100, 3000)),
        (part("a", 600, 1600), part("b", 2801, 3500)),
        (part("a", 600, 1600), part("b", 100, 500)),
        (part("a", 600, 1600), part("b", 2100, 3000, stream_id="other")),
        (part("a", 600, 1600, bytes(900_000)), part("b", 2100, 3000)),
        (part("a", 600, 1600), Event("utterance", b"22", {"end_of_speech_ms": "?"})),
    ],
    ids=["first", "too late", "earlier", "other stream", "too long", "without clocks"],
)
def test_what_does_not_belong_together_is_taken_alone(former: Event | None, event: Event) -> None:
    assert floor.joined(former, event, 1200) is event


def test_an_utterance_delivered_again_is_not_joined_to_itself() -> None:
    both = floor.joined(part("a", 600, 1600), part("b", 2100, 3000), 1200)
    assert floor.joined(both, part("b", 2100, 3000), 1200) is both


async def test_only_speech_that_goes_on_with_the_question_holds_its_answer() -> None:
    held = floor.Floor(1200)
    question = part("a", 600, 1600).metadata
    for name, begin in (("a", 600), ("late", 2801)):
        held.begin(edge("start", name, begin).metadata)
    await asyncio.wait_for(held.wait(question), 0.1)
    held.begin(edge("start", "b", 2100).metadata)
    waiting = asyncio.create_task(held.wait(question))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    await asyncio.wait_for(held.wait({"text": "typed"}), 0.1)
    held.end("b")
    await asyncio.wait_for(waiting, 0.1)


async def test_speech_without_end_does_not_hold_an_answer_for_ever() -> None:
    held = floor.Floor(1200)
    held.begin(edge("start", "b", 2100).metadata)
    held.keep("b", 0.05)
    began = time.monotonic()
    await asyncio.wait_for(held.wait(part("a", 600, 1600).metadata), 2)
    assert time.monotonic() - began >= 0.05


@pytest.mark.parametrize("turns", range(5))
async def test_a_cancelled_wait_ends_even_as_the_speech_does(turns: int) -> None:
    held = floor.Floor(1200)
    for name in "bc":
        held.begin(edge("start", name, 2100).metadata)
    waiting = asyncio.create_task(held.wait(part("a", 600, 1600).metadata))
    await asyncio.sleep(0.01)
    held.end("b")
    for _ in range(turns):
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting}, timeout=0.2)
    assert waiting.cancelled()


def test_speeches_that_never_end_are_forgotten() -> None:
    async def many() -> int:
        held = floor.Floor(1200)
        for number in range(100):
            held.begin(edge("start", str(number), 10).metadata)
        held.begin({"stream_id": "m"})
        return len(vars(held)["_speeches"])

    assert asyncio.run(many()) == floor.MAX_SPEECHES


def transcribing(texts: dict[bytes, str]) -> Any:
    return lambda call: Result({"text": texts[call.payload], "duration_ms": 1}, elapsed_us=9)


async def test_both_parts_are_transcribed_as_one_and_answered_once() -> None:
    texts = {b"aa": "Hey Loom, what is 12?", b"aabb": "Hey Loom, what is 12? Times 9."}
    scripted = host(stt_transcribe=transcribing(texts))
    driver = await agent(ScriptedPort(scripted))
    first, second = part("a", 600, 1600), part("b", 2100, 3000)
    await send(driver, first)
    await send(driver, edge("start", "b", 2100))
    answer = asyncio.create_task(send(driver, asked_after(first, "what is 12?")))
    await asyncio.sleep(0.05)
    assert not scripted.events("tts.start"), "it answered somebody who goes on speaking"
    assert not scripted.called("calculator.evaluate"), "it acted on half a question"
    await send(driver, edge("end", "b", 3000))
    await send(driver, second)
    whole = scripted.events("transcript.final")[-1]
    assert (whole.metadata["text"], whole.metadata["continues"]) == (texts[b"aabb"], "a")
    assert whole.metadata["duration_ms"] == "2900"
    await send(driver, query(**{**whole.metadata, "text": "what is 12? Times 9."}))
    await answer
    assert [e.metadata["utterance_id"] for e in scripted.events("tts.start")] == ["b"]
    (stop,) = scripted.events("assistant.interrupt")
    assert (stop.metadata["utterance_id"], stop.metadata["reason"]) == ("a", "continued")
    assert result_of(scripted)["turn"]["question"] == "what is 12 times 9."


async def answering_while(scripted: ScriptedHost, *events: Event, **config: Any) -> None:
    """Utterance a is asked about; then speech b begins, and these events come."""
    driver = await agent(ScriptedPort(scripted), **config)
    first = part("a", 600, 1600)
    await send(driver, first)
    await send(driver, edge("start", "b", 2100))
    answer = asyncio.create_task(send(driver, asked_after(first, "what is 12 times 9?")))
    for event in events:
        await asyncio.sleep(0.01)
        await send(driver, event)
    async with asyncio.timeout(1.5):
        await answer


@pytest.mark.parametrize("ending", ["a cough", "no words", "not recognised"])
async def test_a_noise_after_the_question_only_delays_the_answer(ending: str) -> None:
    def transcribe(call: Call) -> Result:
        if call.payload == b"aa":
            return Result({"text": "Hey Loom, what is 12 times 9?"})
        if ending == "no words":
            return Result({"text": ""})
        raise ActionFailed("no model", code="MODEL")

    scripted = host(stt_transcribe=transcribe)
    coughed = edge("end", "b", 2200, dropped="too_short")
    await answering_while(scripted, coughed if ending == "a cough" else part("b", 2100, 2600))
    results = {e.metadata["utterance_id"]: e for e in scripted.events("action_result")}
    assert results["a"].metadata["status"] == "ok"
    assert scripted.events("tts.done")[0].metadata["utterance_id"] == "a"


async def test_joining_can_be_switched_off() -> None:
    scripted = host(stt_transcribe=transcribing({b"aa": "one", b"bb": "two"}))
    await answering_while(scripted, part("b", 2100, 2600), join_ms=0)
    assert [call.payload for call in scripted.called("stt.transcribe")] == [b"aa", b"bb"]


async def test_what_follows_an_answer_that_sounds_is_a_question_of_its_own() -> None:
    scripted = host(
        stt_transcribe=transcribing({b"aa": "Hey Loom, what is 12 times 9?", b"bb": "Thanks."}),
        llm_chat=chat(tool=SUM),
    )
    driver = await agent(ScriptedPort(scripted))
    first = part("a", 600, 1600)
    await send(driver, first)
    await send(driver, asked_after(first, "what is 12 times 9?"))
    await send(driver, edge("start", "b", 2100))
    await send(driver, part("b", 2100, 2600))
    last = scripted.events("transcript.final")[-1].metadata
    assert (last["text"], "continues" in last) == ("Thanks.", False)
