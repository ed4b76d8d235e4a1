"""llm-openai and time: limits of each phase, retries that wait as asked, connections that close."""

from __future__ import annotations

import asyncio
import email.utils
import socket
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_sdk import Call
from loom_sdk.errors import ActionFailed
from tests.llm_server import CHAT, HELLO, RESPONSES, Reply, Server, ask, chat_chunk, server, sse
from tests.support import FakePort, driver_of, load_plugin, within

__all__ = ["server"]
plugin = load_plugin("native", "llm-openai")  # puts its folder on the path

import llm_openai_limits as limits  # type: ignore[import-not-found]  # noqa: E402

SOON_MS = 8000
"""Far below the 20 s and more that it takes without the limit, on a machine under load, too."""
PIECE = sse(chat_chunk(content="Good "))
KEEPALIVE = b": still thinking\n\n"


def late(server: Server, **config: Any) -> str:
    with pytest.raises(ActionFailed) as raised:
        ask(server.url, {}, api="chat", retries=0, **config)
    assert raised.value.code == "LLM_TIMEOUT"
    return str(raised.value.message)


def test_a_slow_first_token_is_told_from_a_stalled_stream(server: Server) -> None:
    server.answer("chat/completions", Reply(steps=[KEEPALIVE, 0.2, KEEPALIVE, 30.0, CHAT]))
    with within(SOON_MS):
        assert "first_token_timeout_ms" in late(server, first_token_timeout_ms=300)
    server.answer("chat/completions", Reply(steps=[PIECE, 0.1, PIECE, 30.0, CHAT]))
    with within(SOON_MS):
        assert "token_gap_timeout_ms" in late(server, token_gap_timeout_ms=300)


def test_a_model_that_thinks_aloud_is_alive(server: Server) -> None:
    thinks = sse(chat_chunk(reasoning_content="hm"))
    steps: list[bytes | float] = [thinks, 0.7, thinks, 0.7, thinks, 0.7, thinks, 0.7, CHAT]
    server.answer("chat/completions", Reply(steps=steps))
    (result,) = ask(server.url, {}, api="chat", first_token_timeout_ms=2000, retries=0)
    assert result.output["text"] == "Good day."


def test_a_stream_that_never_ends_is_ended(server: Server) -> None:
    server.answer(
        "chat/completions", Reply(steps=[step for _ in range(99) for step in (PIECE, 0.05)])
    )
    with within(SOON_MS):
        assert "request_timeout_ms" in late(server, request_timeout_ms=400)
    assert server.left.wait(5)


def test_all_tries_together_have_one_limit(server: Server) -> None:
    server.answer("chat/completions", Reply(b"busy", 503))
    with within(SOON_MS), pytest.raises(ActionFailed) as raised:
        ask(server.url, {}, api="chat", retries=10, retry_backoff_ms=9000, request_timeout_ms=300)
    assert raised.value.code == "LLM_TIMEOUT"


def test_a_host_that_takes_no_connection_is_given_up_on_time() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]  # so that the next one is not answered
        for other in waiting:
            other.setblocking(False)
            with suppress(BlockingIOError):
                other.connect(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        with within(SOON_MS), pytest.raises(ActionFailed, match="connect_timeout_ms") as raised:
            ask(url, {}, connect_timeout_ms=300, retries=0)
        for other in waiting:
            other.close()
    assert raised.value.code == "LLM_TIMEOUT"


async def cancelled(server: Server) -> None:
    plugin = load_plugin("native", "llm-openai", base_url=server.url, api="chat")
    port = FakePort()
    driver = driver_of(plugin, port)
    start, context, _ = driver.lifecycle("start")
    await start(context)
    call = Call("llm.chat", {"messages": HELLO}, remaining_ms=20_000)
    task = asyncio.create_task(driver.ainvoke(driver.capability("llm.chat"), call))
    async with asyncio.timeout(5):
        while not port.items:  # noqa: ASYNC110  # the recorder has no event
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert await asyncio.to_thread(server.left.wait, 5), "the server still writes"
    stopping = plugin.stop(context)
    assert stopping is not None
    await stopping


async def test_cancelling_a_call_closes_its_connection(server: Server) -> None:
    server.answer("chat/completions", Reply(steps=[PIECE, 30.0, CHAT]))
    await cancelled(server)


def test_a_stop_text_closes_the_connection(server: Server) -> None:
    server.answer("responses", Reply(steps=[RESPONSES[:-200], 30.0, RESPONSES[-200:]]))
    (result,) = ask(server.url, {"stop": ["day"]})
    assert result.output["text"] == "Good "
    assert server.left.wait(5)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_waited_for_in_both_forms(server: Server, form: str) -> None:
    until = time.time() + 2
    text = "1" if form == "seconds" else email.utils.formatdate(until, usegmt=True)
    server.answer("chat/completions", Reply(status=429, headers={"Retry-After": text}), Reply(CHAT))
    began = time.monotonic()
    ask(server.url, {}, api="chat")
    assert time.monotonic() - began >= 0.95
    assert form == "seconds" or time.time() >= int(until)


def test_a_date_too_far_away_is_given_up_at_once(server: Server) -> None:
    text = email.utils.formatdate(time.time() + 3600, usegmt=True)
    server.answer("chat/completions", Reply(b"later", 429, headers={"Retry-After": text}))
    with within(SOON_MS), pytest.raises(ActionFailed, match="answered 429: later"):
        ask(server.url, {}, api="chat")
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0), (" 0 ", 0.0), ("1.5", 1.5),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 59.0), ("Fri, 31 Dec 1999 23:00:00 GMT", 0.0),
        ("Friday, 31-Dec-99 23:59:59 GMT", 59.0),
        ("", None), ("soon", None), ("-5", None), ("١٢", None), ("1e9", None),
    ],
)  # fmt: skip
def test_retry_after_is_read_as_the_standard_says(text: str, seconds: float | None) -> None:
    now = email.utils.parsedate_to_datetime("Fri, 31 Dec 1999 23:59:00 GMT").timestamp()
    assert limits.retry_after_s(text, now) == seconds


@given(st.text())
def test_no_retry_after_makes_a_negative_wait(text: str) -> None:
    seconds = limits.retry_after_s(text)
    assert seconds is None or seconds >= 0


@given(st.integers(0, 10), st.integers(0, 5000))
def test_each_wait_is_at_most_the_double_of_the_former_and_at_least_half_of_its_own(
    done: int, first_ms: int
) -> None:
    most = first_ms / 1000 * 2**done
    assert most / 2 <= limits.backoff_s(done, None, first_ms) <= most
    assert limits.backoff_s(done, 7.5, first_ms) == 7.5
