"""llm-openai against a loopback server that speaks the recorded shapes of real ones."""

from __future__ import annotations

import json
import time
import tomllib
from typing import Any

import pytest

from loom_sdk.errors import ActionFailed, InvalidArguments
from loom_sdk.toolloop import tool_specs
from tests.llm_server import CHAT, HELLO, RESPONSES, Reply, Server, ask, chat_chunk, server, sse
from tests.support import ROOT, FakePort

__all__ = ["server"]
_MANIFEST = ROOT / "plugins" / "wasm" / "calculator" / "plugin.toml"
CALCULATOR = tomllib.loads(_MANIFEST.read_text())["capability"]


def failure(server_url: str, **config: Any) -> ActionFailed:
    with pytest.raises(ActionFailed) as raised:
        ask(server_url, {}, **config)
    return raised.value


def test_responses_endpoint_comes_first_and_streams(server: Server) -> None:
    server.answer("responses", Reply(RESPONSES))
    port = FakePort()
    (result,) = ask(server.url, {"max_tokens": 7, "temperature": 0.0}, port=port)
    assert result.output == {
        "text": "Good day.", "tool_calls": [], "model": "served", "finish_reason": "stop",
        "usage": {"input_tokens": 9, "output_tokens": 3, "cost": 0.0},
    }  # fmt: skip
    assert [item.output for item in port.items] == [{"delta": "Good "}, {"delta": "day."}]
    assert server.paths() == ["responses"]
    assert server.asked[0][2] == {
        "model": "served", "input": HELLO, "max_output_tokens": 7, "temperature": 0.0,
        "stream": True,
    }  # fmt: skip


def test_a_server_without_responses_is_remembered(server: Server) -> None:
    server.answer("chat/completions", Reply(CHAT))
    first, second = ask(server.url, {}, {})
    assert first.output == second.output
    assert first.output["text"] == "Good day."
    assert first.output["usage"] == {"input_tokens": 9, "output_tokens": 3, "cost": 0.0}
    assert server.paths() == ["responses", "chat/completions", "chat/completions"]


@pytest.mark.parametrize(
    "unfit",
    [
        Reply(b'{"error":{"message":"no such thing"}}', 400, "application/json"),
        Reply(sse({"type": "response.completed", "response": {}}, named=True)),
    ],
)
def test_chat_answers_where_responses_refuses_or_says_nothing(server: Server, unfit: Reply) -> None:
    server.answer("responses", unfit)
    server.answer("chat/completions", Reply(CHAT))
    first, _ = ask(server.url, {}, {})
    assert first.output["text"] == "Good day."
    assert server.paths() == ["responses", "chat/completions"] * 2


def test_key_comes_from_the_secret(server: Server) -> None:
    server.answer("responses", Reply(RESPONSES))
    port = FakePort(secrets={"llm-api-key": "sk-test"})
    ask(server.url, {}, port=port, api_key_secret="llm-api-key")
    assert server.asked[0][1]["Authorization"] == "Bearer sk-test"


def test_response_schema_in_both_dialects(server: Server) -> None:
    server.answer("responses", Reply(RESPONSES))
    server.answer("chat/completions", Reply(CHAT))
    schema = {"type": "object"}
    ask(server.url, {"response_schema": schema}, api="responses")
    ask(server.url, {"response_schema": schema, "stop": ["\n"]}, api="chat")
    named = {"name": "answer", "schema": schema, "strict": True}
    assert server.asked[0][2]["text"] == {"format": {"type": "json_schema", **named}}
    wanted = {"type": "json_schema", "json_schema": named}
    assert server.asked[1][2]["response_format"] == wanted
    assert server.asked[1][2]["stop"] == ["\n"]


def test_a_schema_goes_to_chat_first_because_some_responses_endpoints_ignore_it(
    server: Server,
) -> None:
    server.answer("responses", Reply(RESPONSES))
    schema = {"response_schema": {"type": "object"}}
    assert ask(server.url, schema)[0].output["text"] == "Good day."
    assert server.paths() == ["chat/completions", "responses"]
    server.answer("chat/completions", Reply(CHAT))
    ask(server.url, schema)
    assert server.paths()[2:] == ["chat/completions"]


def test_stop_text_cuts_where_the_server_cannot(server: Server) -> None:
    server.answer("responses", Reply(RESPONSES))
    port = FakePort()
    (result,) = ask(server.url, {"stop": ["od da"]}, port=port)
    assert result.output["text"] == "Go"
    assert "".join(item.output["delta"] for item in port.items) == "Go"


def test_a_server_that_does_not_stream_is_understood(server: Server) -> None:
    message = {"role": "assistant", "content": "Hi."}
    document = {"model": "m", "choices": [{"index": 0, "message": message}]}
    server.answer(
        "chat/completions", Reply(json.dumps(document).encode(), content_type="application/json")
    )
    assert ask(server.url, {})[0].output["text"] == "Hi."
    output = [{"type": "message", "content": [{"type": "output_text", "text": "Ho."}]}]
    body = json.dumps({"model": "m", "output": output}).encode()
    server.answer("responses", Reply(body, content_type="application/json"))
    assert ask(server.url, {})[0].output["text"] == "Ho."


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_servers_are_tried_again(server: Server, status: int) -> None:
    busy = Reply(b"busy", status, "text/plain")
    server.answer("chat/completions", busy, busy, Reply(CHAT))
    assert ask(server.url, {}, api="chat")[0].output["text"] == "Good day."
    assert len(server.asked) == 3


def test_retry_after_is_honoured_and_a_long_one_is_not_waited_for(server: Server) -> None:
    server.answer("chat/completions", Reply(status=429, headers={"Retry-After": "1"}), Reply(CHAT))
    began = time.monotonic()
    ask(server.url, {}, api="chat")
    assert time.monotonic() - began >= 1
    server.answer("chat/completions", Reply(b"later", 429, headers={"Retry-After": "600"}))
    began = time.monotonic()
    assert failure(server.url, api="chat").code == "LLM_HTTP_STATUS"
    assert time.monotonic() - began < 1


def test_retries_end_with_the_last_status(server: Server) -> None:
    server.answer("chat/completions", Reply(b"overloaded", 503, "text/plain"))
    error = failure(server.url, api="chat", retries=1)
    assert error.code == "LLM_HTTP_STATUS"
    assert "answered 503: overloaded" in error.message
    assert len(server.asked) == 2


def test_wrong_key_is_not_tried_again(server: Server) -> None:
    server.answer("responses", Reply(b'{"error":{"message":"bad key"}}', 401, "application/json"))
    error = failure(server.url)
    assert error.code == "LLM_HTTP_STATUS"
    assert "api_key_secret" in error.message
    assert server.paths() == ["responses"]


def test_nothing_is_repeated_after_the_first_piece(server: Server) -> None:
    server.answer("chat/completions", Reply(sse(chat_chunk(content="Good ")), cut=True))
    port = FakePort()
    with pytest.raises(ActionFailed) as raised:
        ask(server.url, {}, port=port, api="chat")
    assert raised.value.code == "LLM_UNREACHABLE"
    assert len(server.asked) == 1
    assert [item.output for item in port.items] == [{"delta": "Good "}]


def test_a_connection_lost_before_the_first_piece_is_tried_again(server: Server) -> None:
    server.answer("chat/completions", Reply(cut=True), Reply(CHAT))
    assert ask(server.url, {}, api="chat")[0].output["text"] == "Good day."


def test_timeout_is_typed(server: Server) -> None:
    server.answer("chat/completions", Reply(CHAT, pause_s=0.5))
    error = failure(server.url, api="chat", first_token_timeout_ms=100, retries=0)
    assert error.code == "LLM_TIMEOUT"
    assert "first_token_timeout_ms" in error.message


def test_nobody_listening_is_typed() -> None:
    error = failure("http://127.0.0.1:9/v1", retries=0)
    assert error.code == "LLM_UNREACHABLE"
    assert "base_url" in error.message


@pytest.mark.parametrize(
    "reply",
    [
        Reply(b"data: not json\n\n"),
        Reply(b"data: [1, 2]\n\n"),
        Reply(sse({"choices": ["what"]}, {"choices": 3})),
        Reply(b""),
        Reply(sse({"error": {"message": "the GPU fell off", "code": 500}})),
        Reply(b"<html>", content_type="text/html"),
    ],
)
def test_nonsense_is_a_bad_response(server: Server, reply: Reply) -> None:
    server.answer("chat/completions", reply)
    assert failure(server.url, api="chat").code == "LLM_BAD_RESPONSE"


def test_a_failed_response_says_why(server: Server) -> None:
    failed = {"type": "response.failed", "response": {"error": {"message": "out of memory"}}}
    server.answer("responses", Reply(sse(failed, named=True)))
    error = failure(server.url)
    assert error.code == "LLM_BAD_RESPONSE"
    assert "out of memory" in error.message


def test_no_messages_is_refused() -> None:
    with pytest.raises(InvalidArguments, match="at least one message"):
        ask("http://127.0.0.1:9/v1", {"messages": []})


@pytest.mark.slow
@pytest.mark.parametrize("api", ["auto", "chat"])
def test_against_llama_cpps_own_server(api: str) -> None:
    xllamacpp = pytest.importorskip("xllamacpp")
    from loom_sdk import models

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(models.find("smollm2-135m-instruct") / "model.gguf")
    parameters.n_ctx, parameters.n_parallel, parameters.verbosity = 1024, 1, 0
    running = xllamacpp.Server(parameters)
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    tools = tool_specs([{**table, "input_schema": table["input"]} for table in CALCULATOR])
    port = FakePort()
    plain, constrained = ask(
        running.listening_address + "/v1",
        {"max_tokens": 8, "temperature": 0.0},
        {"max_tokens": 128, "temperature": 0.0, "response_schema": schema},
        port=port, api=api, model="",
    )  # fmt: skip
    assert plain.output["text"]
    assert plain.output["usage"]["output_tokens"] == 8
    assert json.loads(constrained.output["text"])["city"] in ("Paris", "Rome")
    assert len(port.items) > 3
    question = {"messages": [{"role": "user", "content": "What is 12 times 9?"}], "tools": tools}
    (chosen,) = ask(
        running.listening_address + "/v1", question, api=api, model="", tool_calls="constrained"
    )
    (call,) = chosen.output["tool_calls"]
    assert (call["name"], call["arguments"]) == (
        "calculator.evaluate", {"expression": "12 times 9"},
    )  # fmt: skip
    # The model was never trained for it: what counts is that the server takes the request.
    (native,) = ask(running.listening_address + "/v1", question | {"max_tokens": 8}, api=api)
    assert native.output["text"] or native.output["tool_calls"]
