import asyncio
import contextlib
import json
from array import array

import pytest
from wyoming_plugin import Wyoming, louder
from wyoming_protocol import Message

from loom_sdk.errors import ActionFailed, InvalidArguments
from loom_sdk.testing import FakeHost

SOUND = array("h", [1000, -1000] * 1600).tobytes()
FORMAT = {"rate": 22050, "width": 2, "channels": 1}


def against(answers, ask):
    """Run `ask(host)` against a server that sends `answers`; its result and what was asked."""
    asked, left = [], asyncio.Event()

    async def serve(reader, writer):
        writer.write(answers)
        with contextlib.suppress(ConnectionResetError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                head = json.loads(line)
                data = await reader.readexactly(head.get("data_length", 0))
                payload = await reader.readexactly(head.get("payload_length", 0))
                asked.append((head["type"], json.loads(data or "{}"), payload))
        writer.close()
        left.set()

    async def run():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        uri = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        config = {"stt_uri": uri, "tts_uri": uri, "language": "en", "model": "", "voice": "",
                  "connect_timeout_s": 5}  # fmt: skip
        host = FakeHost(Wyoming, config=config)
        async with server:
            try:
                return host, await ask(host)
            finally:
                await left.wait()

    return (*asyncio.run(run()), asked)


def test_it_sends_the_sound_and_takes_the_text():
    transcript = Message("transcript", {"text": " Good\nday. ", "language": "de"}).encoded()
    _, result, asked = against(transcript, lambda host: host.acall("stt.transcribe", payload=SOUND))
    assert result.output == {"text": "Good day.", "language": "de", "duration_ms": 200}
    assert [kind for kind, _, _ in asked] == [
        "transcribe", "audio-start", "audio-chunk", "audio-chunk", "audio-stop"
    ]  # fmt: skip
    assert asked[0][1] == {"language": "en"}
    assert b"".join(payload for _, _, payload in asked) == SOUND


@pytest.mark.parametrize("payload", [b"", SOUND[:3000], bytes(32_000)])
def test_where_nobody_speaks_no_server_is_asked(payload):
    config = {"stt_uri": "tcp://127.0.0.1:1", "language": "en", "model": ""}
    answer = FakeHost(Wyoming, config=config).call("stt.transcribe", payload=payload)
    assert answer.output["text"] == ""


def test_it_speaks_as_the_server_does_and_as_loud_as_asked():
    spoken = Message("audio-start", FORMAT).encoded()
    spoken += Message("audio-chunk", FORMAT, SOUND * 6).encoded()  # 38,400 bytes: two items
    spoken += Message("audio-stop").encoded()
    ask = {"text": "Hello.", "voice": "joe", "volume": 2}
    host, result, asked = against(spoken, lambda host: host.acall("tts.synthesize", **ask))
    assert asked == [("synthesize", {"text": "Hello.", "voice": {"name": "joe"}}, b"")]
    assert [item.output for item in host.items] == [
        {"sample_rate": 22050, "index": index} for index in range(2)
    ]
    assert b"".join(item.payload for item in host.items) == louder(SOUND * 6, 2)
    assert result.output == {
        "sample_rate": 22050, "duration_ms": 870, "engine": "wyoming", "voice": "joe"
    }  # fmt: skip


def test_loudness_ends_where_sixteen_bits_do():
    samples = array("h", [-32768, -3, 0, 3, 32767]).tobytes()
    assert array("h", louder(samples, 2)).tolist() == [-32768, -6, 0, 6, 32767]


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        (Message("error", {"text": "out of memory", "code": "X"}).encoded(), "WYOMING_ERROR"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "WYOMING_PROTOCOL"),
        (b'{"type": "info", "data_length": 99999999999}\n', "WYOMING_PROTOCOL"),
        (b'{"type": "info", "data_length": "all"}\n', "WYOMING_PROTOCOL"),
        (b"[]\n", "WYOMING_PROTOCOL"),
    ],
)
def test_what_is_no_answer_has_a_code(answers, code):
    with pytest.raises(ActionFailed) as caught:
        against(answers, lambda host: host.acall("stt.transcribe", payload=SOUND))
    assert caught.value.code == code


def test_a_speed_of_its_own_is_refused():
    with pytest.raises(InvalidArguments, match="no word for speed"):
        FakeHost(Wyoming, config={"voice": ""}).call("tts.synthesize", text="Hi.", rate=1.5)
