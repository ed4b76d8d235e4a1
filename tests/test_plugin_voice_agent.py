"""The voice agent against scripted capabilities: every way a turn can go."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import pytest

from loom_sdk import Call, Event, Item, Result
from loom_sdk.errors import (
    ActionFailed,
    CapabilityNotFound,
    DeadlineExceeded,
    InvalidArguments,
    PermissionDenied,
    PluginCrashed,
)
from tests.hosting import until
from tests.voice_agent_host import (
    CALCULATOR,
    SECOND,
    SUM,
    Broken,
    ScriptedHost,
    ScriptedPort,
    agent,
    ask,
    chat,
    choosing,
    host,
    query,
    result_of,
    send,
    spoken,
    utterance,
    written,
)


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
    found = scripted.events("action_result")[0].metadata
    assert (found["status"], found["utterance_id"]) == ("no_speech", "u1")
    assert "turn" not in found


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


async def test_a_timer_that_is_over_is_said() -> None:
    scripted = host()
    driver = await agent(ScriptedPort(scripted))
    rung = Event("timer.done", metadata={"text": "The tea timer is over."}, topic="clock")
    await send(driver, rung)
    texts = [call.arguments["text"] for call in scripted.called("tts.synthesize")]
    assert texts == ["The tea timer is over."]
    assert [event.type for event in scripted.published][-1] == "assistant.message"


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


async def test_the_model_is_offered_the_tools_with_their_examples() -> None:
    scripted = host()
    await ask(scripted, max_tools=1)
    call = scripted.called("llm.chat")[0]
    (tool,) = call.arguments["tools"]
    assert tool == {key: value for key, value in CALCULATOR.items() if key != "effects"}
    assert call.arguments["messages"][-1] == {"role": "user", "content": "What is 12 times 9?"}


async def test_a_choice_that_breaks_off_is_no_answer() -> None:
    def breaks(call: Call) -> Result:
        raise ActionFailed("the choice broke off", code="LLM_TOOL_CHOICE")

    found = await ask(host(llm_chat=breaks))
    assert (found["status"], found["code"]) == ("error", "LLM_TOOL_CHOICE")
    assert found["turn"]["answer"] == "Sorry, I could not work out what to do."


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
    [
        ("It is 12 degrees in Paris.", "It is 12 degrees in Paris."),
        ("It is 25 degrees in Paris.", "Location is Paris, temperature is 12."),
    ],
    ids=["right", "wrong"],
)
async def test_a_result_without_speech_is_put_into_words_only_with_its_own_numbers(
    written_answer: str, said: str
) -> None:
    output = {"location": "Paris", "temperature": 12}
    scripted = host(
        calculator_evaluate=lambda call: Result(output),
        llm_chat=chat(tool=SUM, answer=written_answer),
    )
    found = await ask(scripted, query("How warm is it in Paris?"))
    assert found["turn"]["answer"] == said
    assert "Paris" in scripted.called("llm.chat")[1].arguments["messages"][-1]["content"]
    assert "llm_answer" in found["turn"]["wall_us"]


async def test_a_model_that_breaks_off_ends_the_turn_with_an_apology() -> None:
    def breaks(call: Call) -> Result:
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
        await scripted.spoke.wait()
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
    ended = {
        e.metadata["utterance_id"]: e.metadata["status"] for e in scripted.events("action_result")
    }
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


async def warmed(scripted: ScriptedHost, monkeypatch: pytest.MonkeyPatch) -> Call:
    """The call that shows the model the tools after a start."""
    monkeypatch.setattr(sys.modules["voice_agent_warm"], "POLL_S", 0.001)
    driver = await agent(ScriptedPort(scripted), warm_up=True)
    async with asyncio.timeout(5):
        await scripted.read.wait()
    method, context, _ = driver.lifecycle("stop")
    await method(context)
    return scripted.called("llm.chat")[-1]


async def test_the_model_reads_the_tools_before_the_first_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted = host()
    call = await warmed(scripted, monkeypatch)
    await ask(scripted)
    asked = scripted.called("llm.chat")[-1].arguments
    assert call.arguments["max_tokens"] == 1
    assert call.arguments["messages"][:-1] == asked["messages"][:-1]
    assert call.arguments["tools"] == asked["tools"]


async def test_warming_up_waits_for_tools_and_model(monkeypatch: pytest.MonkeyPatch) -> None:
    lists: list[list[dict[str, Any]]] = [[], [CALCULATOR | {"name": "b.first"}], [CALCULATOR]]
    failures = [CapabilityNotFound("no model yet")]

    def reply(call: Call) -> Result:
        if failures:
            raise failures.pop()
        return written("H")

    scripted = host(
        llm_chat=reply,
        loom_tools=lambda call: Result({"tools": lists.pop(0) if len(lists) > 1 else lists[0]}),
    )
    call = await warmed(scripted, monkeypatch)
    assert call.arguments["tools"][0]["name"] == "calculator.evaluate"
    assert len(scripted.called("llm.chat")) == 2


async def test_stopping_ends_the_warming_up() -> None:
    driver = await agent(ScriptedPort(host(loom_tools=None)), warm_up=True)
    await asyncio.sleep(0)
    method, context, _ = driver.lifecycle("stop")
    await method(context)
    assert len(asyncio.all_tasks()) == 1


NOTES = CALCULATOR | {"name": "notes.add", "description": "Keep a note.", "effects": "once"}
MATCHED = {"tool": "calculator.evaluate", "arguments": {"expression": "12 times 9"}, "score": 0.93}


async def test_the_quick_path_answers_without_the_model() -> None:
    scripted = host(intent_match=lambda call: Result(dict(MATCHED), elapsed_us=900))
    turn = (await ask(scripted))["turn"]
    asked = scripted.called("intent.match")[-1].arguments
    assert asked["text"] == "What is 12 times 9?"
    assert [tool["name"] for tool in asked["tools"]] == ["calculator.evaluate"]
    assert scripted.called("calculator.evaluate")[0].arguments == MATCHED["arguments"]
    assert not scripted.called("llm.chat")
    assert (turn["answer"], turn["path"]) == ("12 times 9 is 108.", "quick")
    assert turn["inside_us"].keys() == {"tools", "intent", "tool", "tts_first"}


@pytest.mark.parametrize(
    "match",
    [
        MATCHED | {"tool": None},
        MATCHED | {"tool": "files.delete"},
        MATCHED | {"score": 0.4},
        ActionFailed("no model"),
        DeadlineExceeded("too slow"),
    ],
    ids=["none", "not offered", "unsure", "fails", "slow"],
)
async def test_without_a_sure_match_the_model_is_asked(match: Any) -> None:
    def reply(call: Call) -> Result:
        if isinstance(match, Exception):
            raise match
        return Result(dict(match))

    scripted = host(intent_match=reply)
    found = await ask(scripted, intent_threshold=0.5)
    assert (found["turn"]["answer"], found["turn"]["path"]) == ("12 times 9 is 108.", "model")
    assert len(scripted.called("llm.chat")) == 1
    assert not scripted.called("files.delete")


async def test_the_quick_path_can_be_switched_off() -> None:
    scripted = host(intent_match=lambda call: Result(dict(MATCHED)))
    assert (await ask(scripted, intent="off"))["turn"]["path"] == "model"
    assert not scripted.called("intent.match")


async def test_arguments_that_do_not_fit_leave_the_quick_path_for_the_model() -> None:
    def picky(call: Call) -> Result:
        if call.arguments == MATCHED["arguments"]:
            raise InvalidArguments("no sum")
        return Result({"result": "108", "speech": "It is 108."})

    scripted = host(intent_match=lambda call: Result(dict(MATCHED)), calculator_evaluate=picky)
    found = await ask(scripted)
    assert (found["status"], found["turn"]["path"]) == ("ok", "model")
    assert found["turn"]["answer"] == "It is 108."


async def test_a_match_without_speech_is_put_into_words_by_the_model() -> None:
    scripted = host(
        intent_match=lambda call: Result(dict(MATCHED)),
        calculator_evaluate=lambda call: Result({"result": "108"}),
        llm_chat=chat(answer="That makes 108."),
    )
    turn = (await ask(scripted))["turn"]
    assert (turn["answer"], turn["path"]) == ("That makes 108.", "quick")
    assert "tools" not in scripted.called("llm.chat")[0].arguments


async def test_two_tools_at_once_are_both_spoken() -> None:
    other = {"name": "notes.add", "arguments": {"expression": "buy milk"}}
    scripted = host(
        loom_tools=lambda call: Result({"tools": [CALCULATOR, NOTES]}),
        notes_add=lambda call: Result({"speech": "Noted."}),
        llm_chat=lambda call: choosing(SUM, other),
    )
    assert (await ask(scripted))["turn"]["answer"] == "12 times 9 is 108. Noted."


async def test_a_model_mends_its_own_mistake() -> None:
    answers = [
        choosing({"name": "calculator.evaluate", "arguments": {"sum": "12 * 9"}}),
        choosing(SUM),
    ]

    def picky(call: Call) -> Result:
        if "expression" not in call.arguments:
            raise InvalidArguments("expression is missing")
        return Result({"result": "108", "speech": "It is 108."})

    scripted = host(llm_chat=lambda call: answers.pop(0), calculator_evaluate=picky)
    found = await ask(scripted)
    assert (found["status"], found["turn"]["answer"]) == ("ok", "It is 108.")
    told = scripted.called("llm.chat")[1].arguments["messages"][-1]
    assert (told["role"], told["tool_call_id"]) == ("tool", "call_0")
    assert "expression is missing" in told["content"]


async def test_what_was_written_before_a_failure_is_not_lost_and_a_result_is_stated() -> None:
    answers: list[Any] = [choosing(SUM), PluginCrashed("gone")]

    def reply(call: Call) -> Result:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Result)
        return answer

    scripted = host(
        llm_chat=reply, calculator_evaluate=lambda call: Result({"result": "108", "unit": "x"})
    )
    assert (await ask(scripted))["turn"]["answer"] == "The result is 108."


def request(**metadata: str) -> Event:
    labels = {"approval_id": "a1", "capability": "notes.add", "arguments": '{"text": "buy milk"}'}
    return Event("approval.request", metadata=labels | metadata, topic="agent.voice")


def settled(status: str) -> Event:
    labels = {"approval_id": "a1", "status": status}
    return Event("approval.result", metadata=labels, topic="agent.voice")


@pytest.mark.parametrize(("said", "allow"), [("Yes, please.", True), ("No!", False)])
async def test_a_tool_that_acts_is_asked_about_aloud_and_the_next_utterance_answers(
    said: str, allow: bool
) -> None:
    scripted = host(
        stt_transcribe=lambda call: Result({"text": said}), loom_approve=lambda call: Result({})
    )
    driver = await agent(ScriptedPort(scripted))
    await send(driver, request())
    (question,) = scripted.events("assistant.question")
    assert question.metadata["text"] == (
        "May I use notes add with: buy milk? Please say yes or no."
    )
    assert scripted.called("tts.synthesize")
    await send(driver, utterance(end_of_speech_unix_ms=f"{time.time() * 1000 + 60_000}"))
    (answer,) = scripted.called("loom.approve")
    assert answer.arguments == {"id": "a1", "allow": allow}
    assert not scripted.events("transcript.final")
    await send(driver, utterance(end_of_speech_unix_ms=f"{time.time() * 1000 + 60_000}"))
    assert len(scripted.called("loom.approve")) == 1
    assert scripted.events("transcript.final")


async def test_what_was_said_before_the_question_is_no_answer() -> None:
    scripted = host(
        stt_transcribe=lambda call: Result({"text": "Yes."}), loom_approve=lambda call: Result({})
    )
    driver = await agent(ScriptedPort(scripted))
    await send(driver, request())
    await send(driver, utterance())
    assert not scripted.called("loom.approve")


async def test_a_yes_from_before_the_question_does_not_count_as_a_query_either() -> None:
    scripted = host(loom_approve=lambda call: Result({}))
    driver = await agent(ScriptedPort(scripted))
    await send(driver, request())
    early = f"{time.time() * 1000 - 5000}"
    await send(driver, query("yes", end_of_speech_unix_ms=early))
    assert not scripted.called("loom.approve")


async def test_a_later_question_waits_and_is_not_answered_by_what_was_said_to_the_first() -> None:
    scripted = host(loom_approve=lambda call: Result({}))
    driver = await agent(ScriptedPort(scripted))
    await send(driver, request())
    await send(driver, request(approval_id="a2"))
    assert len(scripted.events("assistant.question")) == 1
    await send(driver, query("yes"))
    assert [call.arguments["id"] for call in scripted.called("loom.approve")] == ["a1"]
    await send(driver, settled("allowed"))
    asked = [event.metadata["approval_id"] for event in scripted.events("assistant.question")]
    assert asked == ["a1", "a2"]


async def test_a_question_that_is_settled_elsewhere_takes_no_answer() -> None:
    scripted = host(loom_approve=lambda call: Result({}))
    driver = await agent(ScriptedPort(scripted), speak=False)
    await send(driver, request())
    assert not scripted.called("tts.synthesize")
    await send(driver, settled("expired"))
    await send(driver, query("yes"))
    assert not scripted.called("loom.approve")


async def test_a_typed_answer_counts_and_does_not_interrupt_the_turn_that_waits() -> None:
    allowed = asyncio.Event()

    def approve(call: Call) -> Result:
        allowed.set()
        return Result({})

    scripted = host(loom_approve=approve)
    port = ScriptedPort(scripted)
    driver = await agent(port)
    invoke = port.invoke

    async def waits(call: Call) -> Result:
        if call.capability == "calculator.evaluate":
            await send(driver, request())
            await allowed.wait()
        result: Result = await invoke(call)
        return result

    port.invoke = waits  # type: ignore[attr-defined]  # it is found by __getattr__
    asking = asyncio.create_task(send(driver, query()))
    await until(lambda: scripted.events("tts.done"))  # of the question
    await send(driver, query("OK", utterance_id="u2"))
    await asking
    assert result_of(scripted)["turn"]["answer"] == "12 times 9 is 108."
    assert not scripted.events("assistant.interrupt")


async def test_a_refused_tool_is_not_phrased_by_the_model() -> None:
    def refused(call: Call) -> Result:
        raise PermissionDenied("no", permission="approval:calculator.evaluate")

    scripted = host(calculator_evaluate=refused)
    found = await ask(scripted)
    assert (found["status"], found["code"]) == ("error", "PERMISSION_DENIED")
    assert found["turn"]["answer"] == "Then I will not do that."
    assert len(scripted.called("llm.chat")) == 1


async def test_the_oldest_of_a_long_conversation_is_left_out() -> None:
    scripted = host(loom_tools=None, llm_chat=chat(answer="I see. " * 20))
    driver = await agent(ScriptedPort(scripted), history_turns=9, context_tokens=200)
    for index in range(4):
        await send(driver, query(f"Fact {index}", utterance_id=f"u{index}"))
    sent = [message["content"] for message in scripted.called("llm.chat")[-1].arguments["messages"]]
    assert sent[0].startswith("You are a helpful voice assistant")
    assert sent[-1] == "Fact 3"
    assert "Fact 0" not in sent
    assert "Fact 2" in sent
