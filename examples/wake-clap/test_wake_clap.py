import random
from array import array
from math import exp

import pytest
from wake_clap_plugin import WakeClap

RATE = 16_000
CONFIG = {"claps": 2, "contrast_db": 12.0, "awake_seconds": 8.0}


def clap(seed, gap_ms, loudness=12_000):
    """A burst of bright noise that is gone in 10 ms but for a faint echo, then quiet."""
    noise = random.Random(seed)
    times = (n / RATE for n in range(gap_ms * RATE // 1000))
    sound = (noise.gauss(0, 1) * (exp(-t / 0.004) + 0.05 * exp(-t / 0.06)) for t in times)
    return [round(max(-2.5, min(2.5, value)) * loudness) for value in sound]


def quiet(ms):
    return [0] * (ms * RATE // 1000)


def play(host, samples, chunk=320):
    for seq, start in enumerate(range(0, len(samples), chunk)):
        payload = array("h", samples[start : start + chunk]).tobytes()
        metadata = {"stream_id": "mic", "session_id": "s", "seq": str(seq), "frame_samples": "320"}
        host.send("audio.mic", "audio_chunk", payload, metadata=metadata)


def say(host, text, begin, end, **metadata):
    data = {"text": text, "stream_id": "mic", "utterance_id": "u"} | metadata
    times = {"duration_ms": str(end - begin), "end_of_speech_ms": str(end)}
    host.send("transcript", "transcript.final", metadata=data | times)


def test_two_claps_wake_and_what_is_said_next_is_the_query(fake_host):
    host = fake_host(WakeClap, config=CONFIG, grants=["publish:wake", "publish:query"])
    play(host, quiet(1000) + clap(1, 300) + clap(2, 1000))
    (wake,) = host.published
    assert (wake.topic, wake.type, wake.priority) == ("wake", "wake_word_detected", 65)
    assert (wake.metadata["phrase"], wake.metadata["session_id"]) == ("clap clap", "s")
    assert 1750 <= int(wake.metadata["position_ms"]) <= 1780
    assert float(wake.metadata["score"]) > 0.5
    say(host, "(Applause)", 950, 1500)  # what a recogniser makes of the claps themselves
    say(host, "...", 1600, 1900)
    say(host, "What is 12 times 9?", 2000, 3500)
    say(host, "Not for you.", 4000, 5000)
    say(host, "What is 12 times 9 plus 2?", 2000, 6000, continues="u", utterance_id="v")
    queries = [event for event in host.published if event.topic == "query"]
    assert [event.metadata["text"] for event in queries] == [
        "What is 12 times 9?", "What is 12 times 9 plus 2?"
    ]  # fmt: skip
    assert queries[0].metadata["phrase"] == "clap clap"


def test_a_question_that_is_known_before_its_claps_waits_for_them(fake_host):
    host = fake_host(WakeClap, config=CONFIG)
    say(host, "What is 12 times 9?", 2000, 3500)
    say(host, "Much later.", 20_000, 21_000)
    play(host, quiet(1000) + clap(1, 300) + clap(2, 1000))
    assert [event.topic for event in host.published] == ["wake", "query"]


@pytest.mark.parametrize("gaps", [[1000], [300, 300, 1000], [80, 1000], [700, 1000], [200] * 20])
def test_other_rows_of_claps_do_not_wake(fake_host, gaps):
    host = fake_host(WakeClap, config=CONFIG)
    sound = quiet(1000)
    for seed, gap in enumerate(gaps):
        sound += clap(seed, gap)
    play(host, sound + quiet(1000))
    assert host.published == []


def test_chunks_that_come_again_or_never_do_not_move_the_clock(fake_host):
    host = fake_host(WakeClap, config=CONFIG)
    sound = quiet(1000) + clap(1, 300) + clap(2, 1000)
    for seq in [*range(40), *range(10), *range(45, len(sound) // 320)]:  # 100 ms of quiet are lost
        payload = array("h", sound[320 * seq : 320 * seq + 320]).tobytes()
        metadata = {"stream_id": "mic", "seq": str(seq), "frame_samples": "320"}
        host.send("audio.mic", "audio_chunk", payload, metadata=metadata)
    (wake,) = host.published
    assert 1750 <= int(wake.metadata["position_ms"]) <= 1780
    host.send("audio.mic", "audio_end", metadata={"stream_id": "mic"})
    play(host, sound)
    assert [event.metadata["seq"] for event in host.published] == ["0", "1"]


@pytest.mark.parametrize("text", ["", "nan", "1e999", "two", "\x00"])
def test_an_event_with_odd_numbers_is_taken_as_if_it_had_none(fake_host, text):
    host = fake_host(WakeClap, config=CONFIG)
    metadata = {"stream_id": "mic", "seq": text, "frame_samples": text}
    sound = array("h", quiet(1000) + clap(1, 300) + clap(2, 1000)).tobytes()
    host.send("audio.mic", "audio_chunk", sound + b"\0", metadata=metadata)
    odd = {"text": "Hello.", "stream_id": "mic", "duration_ms": text, "end_of_speech_ms": text}
    host.send("transcript", "transcript.final", metadata=odd)
    assert host.published[0].topic == "wake"
