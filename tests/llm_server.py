"""A loopback server that speaks the shapes of real ones, and a way to ask llm-openai through it.

The shapes are those of the public references: OpenAI's Responses streaming events and Chat
Completions chunks, and what vLLM, Ollama and llama.cpp send in their place.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from loom_sdk import Call, Result
from tests.support import FakePort, driver_of, load_plugin

HELLO = [{"role": "user", "content": "Hello"}]


def sse(*events: Any, named: bool = False) -> bytes:
    """Server-sent events as `/chat/completions` (unnamed) or `/responses` (named) send them."""
    lines = []
    for event in events:
        if named:
            lines.append(f"event: {event['type']}")
        lines.append(f"data: {event if isinstance(event, str) else json.dumps(event)}\n")
    return ("\n".join(lines) + "\n").encode()


def chat_chunk(**delta: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "served",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}],
    }  # fmt: skip


CHAT = sse(
    chat_chunk(role="assistant", content=""),
    chat_chunk(content="Good "),
    chat_chunk(content="day."),
    {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "served", "choices": [
        {"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "served", "choices": [],
     "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}},
    "[DONE]",
)  # fmt: skip
RESPONSES = sse(
    {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}},
    {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message"}},
    {"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0,
     "content_index": 0, "delta": "Good "},
    {"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0,
     "content_index": 0, "delta": "day."},
    {"type": "response.output_text.done", "text": "Good day."},
    {"type": "response.completed", "response": {"id": "resp_1", "model": "served",
     "usage": {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}}},
    named=True,
)  # fmt: skip


@dataclass
class Reply:
    body: bytes = b""
    status: int = 200
    content_type: str = "text/event-stream"
    headers: dict[str, str] = field(default_factory=dict)
    pause_s: float = 0
    """Before the headers."""
    cut: bool = False
    """Announce more bytes than are sent, then close."""
    steps: Sequence[bytes | float] = ()
    """In place of the body: what is sent, and seconds of silence between."""


NOT_FOUND = Reply(b'{"detail":"Not Found"}', 404, "application/json")


@dataclass
class Server:
    """What it was asked, and what it answers next by path (the last reply stays)."""

    url: str = ""
    asked: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    left: threading.Event = field(default_factory=threading.Event)
    """The client closed its connection in the middle of an answer."""

    def answer(self, path: str, *replies: Reply) -> None:
        self.replies[f"/v1/{path}"] = list(replies)

    def paths(self) -> list[str]:
        return [path.removeprefix("/v1/") for path, _, _ in self.asked]

    def next_reply(self, path: str) -> Reply:
        replies = self.replies.get(path, [NOT_FOUND])
        return replies.pop(0) if len(replies) > 1 else replies[0]


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.asked.append((self.path, dict(self.headers), json.loads(body)))
            reply = state.next_reply(self.path)
            time.sleep(reply.pause_s)
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.content_type)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if reply.steps:
                self._stream(reply.steps)
                return
            self.send_header("Content-Length", str(len(reply.body) + 100 * reply.cut))
            self.end_headers()
            self.wfile.write(reply.body)
            self.close_connection = reply.cut

        def _stream(self, steps: Sequence[bytes | float]) -> None:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                for step in steps:
                    if isinstance(step, float):
                        self._pause(step)
                    else:
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(step), step))
                self.wfile.write(b"0\r\n\r\n")
            except ConnectionError:
                state.left.set()
                self.close_connection = True

        def _pause(self, seconds: float) -> None:
            """Raises ConnectionError as soon as the client has closed."""
            self.connection.settimeout(seconds)
            try:
                if not self.connection.recv(1):
                    raise ConnectionResetError
            except TimeoutError:
                pass
            finally:
                self.connection.settimeout(None)

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{listening.server_address[1]}/v1"
    listening.daemon_threads = True
    thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
    thread.start()
    yield state
    listening.shutdown()
    listening.server_close()
    thread.join()


def ask(server_url: str, *calls: dict[str, Any], port: FakePort | None = None, **config: Any) -> (
    list[Result]
):  # fmt: skip
    """Start the plugin, make the calls one after the other, stop it."""
    port = port or FakePort()
    settings = {"base_url": server_url, "model": "served", "retry_backoff_ms": 10}
    plugin = load_plugin("native", "llm-openai", **settings | config)

    async def run() -> list[Result]:
        driver = driver_of(plugin, port)
        for name in ("start", "stop"):
            method, context, _ = driver.lifecycle(name)
            if name == "stop":
                await method(context)
                break
            await method(context)
            try:
                results = []
                for call in calls:
                    request = Call("llm.chat", {"messages": HELLO} | call, remaining_ms=20_000)
                    results.append(await driver.ainvoke(driver.capability("llm.chat"), request))
            except BaseException:
                if stopping := plugin.stop(context):
                    await stopping
                raise
        return results

    return asyncio.run(run())
