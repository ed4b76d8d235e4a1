"""Wake on text: what recognisers wrote for the phrase, what people say that only resembles it."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loom_sdk import Call, Event, Plugin

from .support import ROOT, AsyncFakePort, FakePort, load_plugin, run_capability, send_event, start

FOLDER = ROOT / "plugins" / "native" / "wake-phrase"
if str(FOLDER) not in sys.path:
    sys.path.append(str(FOLDER))

matcher: Any = __import__("wake_phrase_matcher")

# What Whisper tiny.en wrote for "Hey Loom, ..." spoken by Piper and four espeak-ng voices, clean
# and with noise at 15 dB, and the question in it.
HEARD = [
    ("Hey, loom. What is 12 times 9?", "What is 12 times 9?"),
    ("Hey, Loon. What is 12 times 9?", "What is 12 times 9?"),
    ("Hey, Loub, what is 12 times I?", "what is 12 times I?"),
    ("Hey, Lou, what is 12 times I did?", "what is 12 times I did?"),
    ("Hey Lou, what is with time time?", "what is with time time?"),
    ("K-loom, what is 12 times I?", "what is 12 times I?"),
    ("K, loom, what is 30 minus 12?", "what is 30 minus 12?"),
    ("A loom, what is 12 times 9?", "what is 12 times 9?"),
    ("Hey, Bloom, what is 12 times I?", "what is 12 times I?"),
    ("Hey, room, what is the weather in Paris?", "what is the weather in Paris?"),
    ("They loom, tell me a jod.", "tell me a jod."),
    ("Hey Bloom, tell me I'm joking.", "tell me I'm joking."),
    ("Hey, loan, stop.", "stop."),
    ("Hey, loam.", ""),
    ("Hey, Lou.", ""),
    ("Loom, what is the weather in Paris?", "what is the weather in Paris?"),
    ("Bloom, what is 12 times 9?", "what is 12 times 9?"),
    ("Hello, Loon. What is the weather in Paris?", "What is the weather in Paris?"),
    ("Hello Bloom, what is 12 times 9?", "what is 12 times 9?"),
    ("Hey Lum what time is it?", "what time is it?"),
    ("Hey Loome. What's the weather?", "What's the weather?"),
    ("hey, lume, stop it now", "stop it now"),
    ("Helloom, what is up?", "what is up?"),
    ("heyloom tell me a joke", "tell me a joke"),
    ("hey loom what is twelve times nine", "what is twelve times nine"),
    ("HEY LOOM!", ""),
    ("Well, hey Loom, hey Loom: What's McDonald's IPO?", "What's McDonald's IPO?"),
    ("OK Loom — do “it” now!", "do “it” now!"),
    ("Good morning. Hey Loom, any news?", "any news?"),
]  # fmt: skip

# What people say, and what Whisper wrote for questions without a phrase.
NOT_FOR_US = [
    "", "...", "What is 12 times 9?", "What is 30 minus 12?", "Hey, look at this.",
    "Hey, looking good!", "Hey look, what is that?", "Look, what is 12 times 9?",
    "They loom large over the city.", "The flowers, they bloom in May.",
    "I bought a loom yesterday.",
    "He looked at the room.", "Her room is big.", "Zoom is down again.", "Boom, that's it.",
    "The moon is bright.", "An heirloom tomato.", "Heirloom, she said.", "Hey Luke, how are you?",
    "Hey, love.", "Hey, you.", "Go to room 12.", "Loop over it.", "Hello, moon.", "Hello!",
    "What does the gloom mean?", "Lou is here.", "Hey Louis, come here.", "Loose ends.",
    "Hey Lou where did you go, my friend?", "Hey Lucy, what is 12 times 9?", "Halloween is near.",
    "We use looms, big ones.", "A room, please.",
]  # fmt: skip


@cache
def plugin() -> Plugin:
    made = load_plugin("native", "wake-phrase")
    start(made)
    return made


def match(text: str, **config: Any) -> dict[str, Any]:
    made = load_plugin("native", "wake-phrase", **config) if config else plugin()
    if config:
        start(made)
    output: dict[str, Any] = run_capability(made, "wake.match", {"text": text}).output
    return output


@pytest.mark.parametrize(("text", "question"), HEARD)
def test_what_recognisers_write_for_the_phrase_wakes(text: str, question: str) -> None:
    found = match(text)
    assert found["matched"], found
    assert found["remainder"] == question
    assert found["phrase"] in ("hey loom", "loom")
    assert 0.8 < found["score"] <= 1.0


@pytest.mark.parametrize("text", NOT_FOR_US)
def test_what_only_resembles_the_phrase_does_not_wake(text: str) -> None:
    assert match(text) == {"matched": False, "phrase": "", "score": 0.0, "remainder": ""}


def test_an_exact_phrase_scores_one_and_a_near_one_less() -> None:
    assert match("hey loom, hello there")["score"] == 1.0
    assert match("hey loon, hello there")["score"] == pytest.approx(0.942)


def test_phrases_distance_and_place_are_settings() -> None:
    assert match("Okay computer, lights on", phrases=["ok computer"])["matched"] is True
    assert match("Ok komputer, lights on", phrases=["ok computer"])["remainder"] == "lights on"
    assert match("hey loon, hi", max_distance=0, jaro_winkler_threshold=1.0)["matched"] is False
    assert match("So, hey loom, hi", match_anywhere=False)["matched"] is False
    assert match("Hallo Käthe, wie geht's?", phrases=["hallo käthe"])["remainder"] == "wie geht's?"
    assert match("hey", phrases=["hey loom"], heard_as=[])["matched"] is False


# --- distances against plain reference implementations


def reference_levenshtein(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(
        reference_levenshtein(a[1:], b) + 1,
        reference_levenshtein(a, b[1:]) + 1,
        reference_levenshtein(a[1:], b[1:]) + (a[0] != b[0]),
    )


def reference_jaro(a: str, b: str) -> float:
    """By Winkler's own description, with lists of index pairs instead of flags."""
    if not a or not b:
        return float(a == b)
    reach = max(max(len(a), len(b)) // 2 - 1, 0)
    pairs: list[tuple[int, int]] = []
    for i, x in enumerate(a):
        used = {j for _, j in pairs}
        near = [j for j, y in enumerate(b) if x == y and abs(i - j) <= reach and j not in used]
        if near:
            pairs.append((i, near[0]))
    if not pairs:
        return 0.0
    in_b = [b[j] for _, j in sorted(pairs, key=lambda pair: pair[1])]
    half = sum(a[i] != y for (i, _), y in zip(pairs, in_b, strict=True)) // 2
    m = len(pairs)
    return (m / len(a) + m / len(b) + (m - half) / m) / 3


short = st.text(alphabet="lomhey", max_size=5)
words = st.text(alphabet="abcdef", max_size=12)


@given(short, short)
def test_levenshtein_is_the_least_number_of_edits(a: str, b: str) -> None:
    assert matcher.levenshtein(a, b) == reference_levenshtein(a, b)


@given(words, words, words)
def test_levenshtein_is_a_distance(a: str, b: str, c: str) -> None:
    distance = matcher.levenshtein
    assert (distance(a, b) == 0) == (a == b)
    assert distance(a, b) == distance(b, a)
    assert distance(a, c) <= distance(a, b) + distance(b, c)


@given(words, words)
@example("martha", "marhta")
@example("dixon", "dicksonx")
def test_jaro_is_the_reference(a: str, b: str) -> None:
    assert matcher.jaro(a, b) == pytest.approx(reference_jaro(a, b))


@given(words, words)
def test_jaro_winkler_lies_between_jaro_and_one(a: str, b: str) -> None:
    assert matcher.jaro(a, b) <= matcher.jaro_winkler(a, b) <= 1.0 + 1e-9
    assert matcher.jaro_winkler(a, a) == 1.0


def test_jaro_winkler_has_the_published_values() -> None:
    # Winkler 1990, table of name pairs.
    for a, b, published in [("martha", "marhta", 0.961), ("dwayne", "duane", 0.840),
                            ("dixon", "dicksonx", 0.813)]:  # fmt: skip
        assert matcher.jaro_winkler(a, b) == pytest.approx(published, abs=0.001)


@given(st.text(max_size=60))
def test_any_text_is_matched_without_an_error(text: str) -> None:
    found = match(text)
    assert found["remainder"] in text
    assert match(f"Hey Loom, {text}")["matched"]


# --- events


def transcript(text: str, end_ms: int | None = None, **metadata: str) -> Event:
    data = {"text": text, "session_id": "s", "stream_id": "mic", "utterance_id": "u"} | metadata
    if end_ms is not None:
        data |= {"end_of_speech_ms": str(end_ms), "duration_ms": data.get("duration_ms", "1000")}
    return Event("transcript.final", b"", data, topic="transcript")


def hear(*events: Event, **config: Any) -> list[Event]:
    made = load_plugin("native", "wake-phrase", **config)
    port = start(made)
    for event in events:
        send_event(made, event, port)
    return port.published


def queries(events: list[Event]) -> list[str]:
    return [event.metadata["text"] for event in events if event.topic == "query"]


def test_phrase_and_question_in_one_breath_are_a_wake_and_a_query() -> None:
    wake, query = hear(transcript("Hey Loom, what is 12 times 9?", 2000))
    assert (wake.topic, wake.type, wake.priority) == ("wake", "wake_word_detected", 65)
    assert (wake.metadata["phrase"], wake.metadata["score"]) == ("hey loom", "1.000")
    assert (query.topic, query.type, query.priority) == ("query", "user.query", 60)
    assert query.metadata["text"] == "what is 12 times 9?"
    assert query.metadata["utterance_id"] == "u"
    assert query.metadata["end_of_speech_ms"] == "2000"


def test_after_the_bare_phrase_the_next_transcript_is_the_query_once() -> None:
    events = hear(
        transcript("Hey Loom.", 1000),
        transcript("What is 12 times 9?", 4000),
        transcript("And this is for somebody else.", 6000),
    )
    assert [event.topic for event in events] == ["wake", "query"]
    assert queries(events) == ["What is 12 times 9?"]


def test_the_awake_state_expires() -> None:
    assert queries(hear(transcript("Hey Loom.", 1000), transcript("In time.", 10_000))) == [
        "In time."
    ]
    assert queries(hear(transcript("Hey Loom.", 1000), transcript("Too late.", 10_001))) == []
    late = [transcript("Hey Loom.", 1000), transcript("Late.", 9500), transcript("Next.", 9600)]
    assert queries(hear(*late, awake_seconds=3)) == []


def test_a_short_rest_does_not_count_as_a_query() -> None:
    events = [transcript("Hey Loom, um.", 1000), transcript("Tell me a joke.", 3000)]
    assert queries(hear(*events)) == ["Tell me a joke."]


def test_a_query_that_goes_on_needs_no_phrase_again() -> None:
    first = transcript("Hey Loom, what is twelve?", 2000, utterance_id="a")
    whole = transcript("He looms, what is 12 times 9?", 3500, utterance_id="b", continues="a")
    more = transcript("He looms, what is 12 times 9 plus 1?", 4500, utterance_id="c", continues="b")
    other = transcript("Nothing for you.", 5000, utterance_id="d", continues="?")
    assert queries(hear(first, whole, more, other)) == [
        "what is twelve?", whole.metadata["text"], more.metadata["text"],
    ]  # fmt: skip


def test_where_the_phrase_is_said_again_the_last_question_counts() -> None:
    text = "Hey Loom, what is 1 plus 1? Hey Loom, what is 12 times 9?"
    assert queries(hear(transcript(text, 5000))) == ["what is 12 times 9?"]
    about = "Hey Loom, what is a loom?"
    assert queries(hear(transcript(about, 5000))) == ["what is a loom?"]
    again = "Hey Loom, what is 12 times 9? Hey Loom."
    assert queries(hear(transcript(again, 5000))) == ["what is 12 times 9? Hey Loom."]


def test_silence_between_phrase_and_question_does_not_put_to_sleep() -> None:
    events = [transcript("Hey Loom.", 1000), transcript("", 2000), transcript("Yes?", 4000)]
    assert queries(hear(*events)) == ["Yes?"]


def test_one_stream_does_not_wake_another() -> None:
    events = [transcript("Hey Loom.", 1000), transcript("Not mine.", 3000, stream_id="other")]
    assert queries(hear(*events)) == []


def test_without_stream_time_the_wall_clock_counts() -> None:
    first = Event("transcript.final", b"", {"text": "Loom!"}, topic="transcript", timestamp_ms=0)
    soon = Event("transcript.final", b"", {"text": "Soon"}, topic="transcript", timestamp_ms=8000)
    late = Event("transcript.final", b"", {"text": "Late"}, topic="transcript", timestamp_ms=8001)
    odd = {"text": "Loom!", "end_of_speech_ms": "?"}
    assert queries(hear(first, soon)) == ["Soon"]
    assert queries(hear(first, late)) == []
    assert len(hear(Event("transcript.final", b"", odd, topic="transcript"))) == 1


def test_streams_that_never_come_back_are_forgotten() -> None:
    made = load_plugin("native", "wake-phrase")
    port = start(made)
    for number in range(200):
        send_event(made, transcript("Hey Loom.", 1000, stream_id=str(number)), port)
    assert len(vars(made)["_awake"]) <= 64


@pytest.mark.slow
async def test_the_same_source_wakes_as_a_wasm_guest(tmp_path: Any) -> None:
    from loom_host.manifest import load_manifest
    from loom_host.runtimes.base import PluginSpec
    from loom_host.runtimes.wasm import WasmRuntime
    from loom_host.runtimes.wasm.build import ensure_component
    from loom_host.runtimes.wasm.cache import default_folder

    manifest = load_manifest(FOLDER / "plugin.toml")
    component = ensure_component(FOLDER, str(manifest.entry), default_folder())
    spec = PluginSpec(
        name=manifest.name, id=manifest.id, version=manifest.version, tier="wasm",
        entry=component.name, folder=component.parent, config=dict(plugin().config),
        grants=("publish:wake", "publish:query"), quotas=manifest.quotas,
        data_dir=tmp_path, cache_dir=tmp_path,
    )  # fmt: skip
    port, runtime = FakePort(), WasmRuntime()
    services: Any = AsyncFakePort(port)
    instance = await runtime.start(spec, services)
    try:
        answer = await instance.invoke(Call("wake.match", {"text": "Hey, Loon. Tell me a joke!"}))
        assert answer.output["remainder"] == "Tell me a joke!"
        await instance.handle_event(transcript("Hey Loom.", 1000))
        await instance.handle_event(transcript("What is 12 times 9?", 4000))
    finally:
        await instance.aclose(1.0)
        await runtime.aclose()
    assert queries(port.published) == ["What is 12 times 9?"]
