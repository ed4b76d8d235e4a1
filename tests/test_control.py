"""The control socket: private, typed, and not to be broken by what a client sends."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from loom_host import Host
from loom_host.control import ControlServer, ask, event_row, socket_path
from loom_sdk import Event
from loom_sdk.errors import LoomError, PluginUnhealthy

from .hosting import native_host, until
from .test_host import LAB


@asynccontextmanager
async def controlled(folder: Path) -> AsyncIterator[tuple[Host, ControlServer]]:
    async with native_host(folder, lab=LAB) as host:
        server = ControlServer(host)
        await server.start()
        try:
            yield host, server
        finally:
            await server.aclose()


async def one(host: Host, op: str, **fields: Any) -> Any:
    answers = ask(host.settings.host.runtime_dir, {"op": op, **fields})
    try:
        return await anext(answers)
    finally:
        await answers.aclose()  # type: ignore[attr-defined]  # it is an async generator


async def test_only_the_owner_can_open_the_socket(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with controlled(tmp_path) as (host, _):
            path = socket_path(host.settings.host.runtime_dir)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert not path.exists()


async def test_a_second_host_is_refused_and_a_dead_ones_socket_replaced(tmp_path: Path) -> None:
    async with controlled(tmp_path) as (host, _):
        with pytest.raises(PluginUnhealthy, match="a host already runs at"):
            await ControlServer(host).start()
        assert (await one(host, "ps"))[0]["name"] == "lab"
    path = socket_path(tmp_path / "run")
    import socket

    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert path.exists()
    async with controlled(tmp_path) as (host, _):
        assert await one(host, "ps")


async def test_without_a_host_the_way_to_start_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(PluginUnhealthy, match="start one with `loom run`"):
        await anext(ask(tmp_path, {"op": "ps"}))
    await ControlServer(native_host(tmp_path)).aclose()


async def test_the_hosts_tables(tmp_path: Path) -> None:
    async with controlled(tmp_path) as (host, _):
        (row,) = await one(host, "ps")
        assert (row["name"], row["tier"], row["state"]) == ("lab", "native", "ready")
        assert row["unenforced"]["memory"].startswith("unenforced")
        names = [row["name"] for row in await one(host, "capabilities")]
        assert "lab.greet" in names
        assert set(await one(host, "stats")) == {"topics", "subscriptions"}
        assert await one(host, "why-denied") == []
        await host.invoke("lab.greet", {"name": "bo"})
        assert "invoke lab.greet" in [row["name"] for row in await one(host, "trace")]


async def test_calls_with_binary_and_items(tmp_path: Path) -> None:
    async with controlled(tmp_path) as (host, _):
        payload = base64.b64encode(b"abc").decode()
        answer = await one(
            host, "call", capability="lab.reverse", payload=payload, content_type="x/y"
        )
        assert base64.b64decode(answer["payload"]) == b"cba"
        assert (answer["output"], answer["content_type"]) == ({"size": 3}, "x/y")
        answer = await one(host, "call", capability="lab.count", arguments={"to": 2})
        assert (answer["items"], answer["output"]) == ([0, 1], {"counted": 2})
        with pytest.raises(LoomError, match="nobody offers 'a.b'"):
            await one(host, "call", capability="a.b")


async def test_events_are_published_and_followed(tmp_path: Path) -> None:
    async with controlled(tmp_path) as (host, _):
        follower = ask(host.settings.host.runtime_dir, {"op": "events", "pattern": "aecho"})
        first = asyncio.ensure_future(anext(follower))
        await until(lambda: any(s.name == "cli" for s in host.bus.subscriptions()))
        answer = await one(
            host, "publish", topic="anotes", type="hello", payload="x", metadata={"a": "b"}
        )
        assert answer == {"delivered": 1}
        row = await asyncio.wait_for(first, 5)
        assert (row["topic"], row["type"], row["source"]) == ("aecho", "hello", "lab")
        await follower.aclose()  # type: ignore[attr-defined]  # it is an async generator


async def test_a_follower_that_left_is_forgotten(tmp_path: Path) -> None:
    async with controlled(tmp_path) as (host, _):
        follower = ask(host.settings.host.runtime_dir, {"op": "events", "pattern": "x"})
        first = asyncio.ensure_future(anext(follower))
        await until(lambda: any(s.name == "cli" for s in host.bus.subscriptions()))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await until(lambda: not any(s.name == "cli" for s in host.bus.subscriptions()))


async def test_followers_end_with_the_host_and_nothing_is_left_running(tmp_path: Path) -> None:
    async with controlled(tmp_path) as (host, server):
        follower = ask(host.settings.host.runtime_dir, {"op": "events", "pattern": "x"})
        first = asyncio.ensure_future(anext(follower))
        await until(lambda: any(s.name == "cli" for s in host.bus.subscriptions()))
        await server.aclose()
        with pytest.raises(StopAsyncIteration):
            await first
        assert not any(s.name == "cli" for s in host.bus.subscriptions())


async def test_stop_is_a_request(tmp_path: Path) -> None:
    async with controlled(tmp_path) as (host, server):
        assert await one(host, "stop") == {"stopping": True}
        assert server.stop_requested.is_set()


async def raw(path: Path, data: bytes) -> list[dict[str, Any]]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(data)
    answers = [json.loads(line) for line in (await reader.read()).splitlines()]
    writer.close()
    return answers


async def test_whatever_a_client_sends_the_host_goes_on(tmp_path: Path) -> None:
    async with controlled(tmp_path) as (host, _):
        path = socket_path(host.settings.host.runtime_dir)
        for data in (
            b"\n", b"not json\n", b"[]\n", b"5\n", b'{"op": "fly"}\n', b'{"op": "call"}\n',
            b'{"op": "publish", "topic": "a..b"}\n', b'{"op": "call", "capability": 5}\n',
            b'{"op": "call", "capability": "lab.greet", "payload": "%"}\n', b"\xff\n",
            b'{"op": "events", "pattern": ">."}\n', b"[" * 100_000 + b"\n",
        ):  # fmt: skip
            (answer,) = await raw(path, data)
            assert answer["ok"] is False
            assert answer["message"]
        assert (await one(host, "ps"))[0]["state"] == "ready"


@runs(max_examples=30, deadline=None)
@given(st.binary(max_size=3000), st.dictionaries(st.text(), st.text()))
def test_every_event_is_plain_data(payload: bytes, metadata: dict[str, str]) -> None:
    row = event_row(Event("x", payload, metadata, topic="t"))
    json.dumps(row)
    assert row["payload_bytes"] == len(payload)
    assert row["text"] in ("", payload.decode(errors="replace"))
