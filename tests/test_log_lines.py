"""What children write becomes log lines: split, bounded, counted; and whoever reads them."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loom_host import Host, load_settings
from loom_host.control import ControlServer, ask, socket_path
from loom_host.runtimes.grpc.lines import MAX_LINE
from loom_host.telemetry.ring import RING
from loom_sdk.errors import LoomError, PermissionDenied, QuotaExceeded

from .hosting import host_tables, native_host, until

ALLOW = {"provide": ["talker.*"], "secrets": ["token"]}
Rows = list[dict[str, Any]]


@asynccontextmanager
async def talking(folder: Path, tier: str = "grpc", **quotas: Any) -> AsyncIterator[Host]:
    """A host with its control socket and the talking plugin as a real child."""
    table = {"tier": tier, "allow": ALLOW, "quotas": quotas, "sandbox": "none"}
    tables = host_tables(folder, talker=table)
    tables["secrets"] = {"token": {"env": "TALKER_TOKEN"}}
    async with Host(load_settings(None, tables)) as host:
        assert host.plugins["talker"].state == "ready", host.plugins["talker"].reason
        server = ControlServer(host)
        await server.start()
        try:
            yield host
        finally:
            await server.aclose()


async def logs(host: Host, plugin: str = "talker", **fields: Any) -> Rows:
    """What `loom logs` gets; the row at the end is left out."""
    request = {"op": "logs", "plugin": plugin, "lines": 10_000, **fields}
    rows = [row async for row in ask(host.settings.host.runtime_dir, request)]
    assert set(rows.pop()) == {"dropped"}
    return rows


async def write(host: Host, data: bytes, stream: str = "stdout") -> None:
    await host.invoke("talker.write", {"stream": stream}, payload=data)


async def written(host: Host, last: str) -> Rows:
    """The rows, once the last of them says this."""
    found: Rows = []
    async with asyncio.timeout(10):
        while not found or found[-1]["message"] != last:
            await asyncio.sleep(0.01)
            found = await logs(host)
    return found


async def test_output_and_log_lines_come_with_time_level_stream_and_trace(tmp_path: Path) -> None:
    async with talking(tmp_path) as host:
        await write(host, b"one\ntwo\n")
        await written(host, "two")
        await write(host, b"trouble\n", "stderr")
        await written(host, "trouble")
        trace = "ab" * 16
        await host.invoke(
            "talker.log", {"message": "three"}, traceparent=f"00-{trace}-{'cd' * 8}-01"
        )
        rows = await written(host, "three")
        assert [(r["message"], r["level"], r["extra"]["attributes"]) for r in rows] == [
            ("one", "info", {"stream": "stdout"}),
            ("two", "info", {"stream": "stdout"}),
            ("trouble", "warning", {"stream": "stderr"}),
            ("three", "info", {"step": "1"}),
        ]
        assert {r["plugin"] for r in rows} == {"talker"}
        assert rows == sorted(rows, key=lambda row: str(row["time"]))
        assert [r.get("trace_id") for r in rows] == [None, None, None, trace]


async def test_lines_below_the_hosts_log_level_are_there_too(tmp_path: Path) -> None:
    async with talking(tmp_path) as host:
        assert host.settings.telemetry.log_level == "error"
        for level in ("debug", "info", "warning", "error"):
            await host.invoke("talker.log", {"message": level, "level": level})
        assert (await written(host, "error"))[0]["message"] == "debug"
        assert [r["message"] for r in await logs(host, level="warning")] == ["warning", "error"]
        assert [r["message"] for r in await logs(host, lines=1)] == ["error"]
        assert [r["message"] for r in await logs(host, "", lines=2)] == ["warning", "error"]
        assert await logs(host, lines=0) == []


async def test_a_line_of_a_megabyte_without_a_newline_is_split(tmp_path: Path) -> None:
    async with talking(tmp_path, log_bytes="4MiB") as host:
        words = "".join(f"{number:09}é" for number in range(100_000))
        await write(host, words.encode()[:1_000_000] + b"\n")
        await write(host, b"end\n")
        *rows, _ = await written(host, "end")
        texts = [row["message"] for row in rows]
        assert max(len(text.encode()) for text in texts) <= MAX_LINE
        kept = "".join(texts)
        assert len(kept.encode()) > 900_000  # the ring has its size
        assert words.encode()[:1_000_000].decode("utf-8", "ignore").endswith(kept)
        assert host.plugins["talker"].counters.lines_dropped == 0


async def test_a_flood_is_limited_and_counted_and_the_child_serves_on(tmp_path: Path) -> None:
    async with talking(tmp_path, log_rate=200) as host:
        counters = host.plugins["talker"].counters
        assert host.telemetry.logs is not None
        _, follower = host.telemetry.logs.follow("talker")
        kept: list[str] = []
        told = 0

        async def follow() -> None:
            nonlocal told
            while True:
                missed, entries = await follower.take()
                assert not missed
                kept.extend(e["message"] for e in entries if "attributes" in e["extra"])
                told += sum(e["extra"].get("dropped", 0) for e in entries)

        following = asyncio.create_task(follow())
        await host.invoke("talker.flood", {"lines": 100_000})
        await until(lambda: counters.lines_dropped)
        await host.invoke("talker.idle", timeout_ms=5000)
        await until(lambda: len(kept) + told == 100_000, 60)
        following.cancel()
        host.telemetry.logs.unfollow(follower)
        assert told == counters.lines_dropped == counters.hits["log_rate"] > 90_000
        assert kept == sorted(set(kept))
        await write(host, b"well\n")
        rows = await written(host, "well")
        assert any("over the quota log_rate = 200" in row["message"] for row in rows)
        (row,) = [r async for r in ask(host.settings.host.runtime_dir, {"op": "ps"})]
        assert row[0]["lines_dropped"] == told
        last = [r async for r in ask(host.settings.host.runtime_dir, {"op": "logs"})][-1]
        assert last == {"dropped": {"talker": told}}


async def test_bytes_that_are_not_utf8_are_replaced(tmp_path: Path) -> None:
    async with talking(tmp_path) as host:
        await write(host, b"caf\xe9 \xff\xfe\x00.\ngood\n")
        rows = await written(host, "good")
        assert rows[0]["message"] == "caf\ufffd \ufffd\ufffd\x00."


async def test_last_words_without_a_newline_are_kept(tmp_path: Path) -> None:
    async with talking(tmp_path) as host:
        with pytest.raises(LoomError, match=r"exit code 3.*its last lines: .*last words"):
            await host.invoke("talker.end", payload=b"before\nlast words")
        rows = await written(host, "last words")
        assert [row["message"] for row in rows][-2:] == ["before", "last words"]
        await until(lambda: host.plugins["talker"].state == "ready", 10)
        assert (await logs(host))[-1]["message"] == "last words"  # a restart keeps them


async def test_the_end_of_a_child_that_flooded_is_quoted(tmp_path: Path) -> None:
    async with talking(tmp_path, log_rate=10) as host:
        text = b"".join(b"%d\n" % number for number in range(9000)) + b"the reason"
        with pytest.raises(LoomError, match=r"8998 \| 8999 \| the reason$"):
            await host.invoke("talker.end", payload=text)


async def test_the_error_is_quoted_that_a_long_stack_follows(tmp_path: Path) -> None:
    stack = b"".join(b"\tat goroutine %d\n" % number for number in range(300))
    async with talking(tmp_path) as host:
        with pytest.raises(
            LoomError, match=r": panic: no such door \| \.\.\. \| \tat goroutine 295 "
        ):
            await host.invoke("talker.end", payload=b"panic: no such door\n" + stack)


async def test_a_program_that_says_before_its_stack_that_memory_is_out_went_over_its_quota(
    tmp_path: Path,
) -> None:
    stack = b"".join(b"\tat goroutine %d\n" % number for number in range(300))
    async with talking(tmp_path) as host:
        with pytest.raises(QuotaExceeded, match="quota memory"):
            await host.invoke("talker.end", payload=b"fatal error: out of memory\n" + stack)


async def test_secrets_do_not_show_in_what_a_child_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALKER_TOKEN", "s3cret-token")
    async with talking(tmp_path) as host:
        await host.invoke("talker.secret", {"name": "token"})
        rows = await written(host, "the token is [redacted]")
        assert "s3cret" not in json.dumps(rows)
        with pytest.raises(PermissionDenied):
            await host.invoke("talker.secret", {"name": "other"})


async def test_a_follower_gets_lines_as_they_come_and_ends_with_the_host(tmp_path: Path) -> None:
    async with talking(tmp_path) as host:
        await write(host, b"old\n")
        await written(host, "old")
        request = {"op": "logs", "plugin": "talker", "lines": 1, "follow": True}
        follower = ask(host.settings.host.runtime_dir, request)
        async with asyncio.timeout(10):
            assert (await anext(follower))["message"] == "old"
            for text in ("new", "newer"):
                await write(host, text.encode() + b"\n")
                assert (await anext(follower))["message"] == text
        waiting = asyncio.ensure_future(anext(follower))
        await asyncio.sleep(0)
    with pytest.raises(StopAsyncIteration):
        await waiting


async def test_a_slow_reader_holds_up_nobody_and_is_told_what_it_missed(tmp_path: Path) -> None:
    async with talking(tmp_path, log_rate=0, log_bytes="64MiB") as host:
        counters = host.plugins["talker"].counters
        path = socket_path(host.settings.host.runtime_dir)
        with socket.socket(socket.AF_UNIX) as slow:
            slow.connect(str(path))
            slow.sendall(b'{"op": "logs", "plugin": "talker", "lines": 0, "follow": true}\n')
            await until(lambda: host.telemetry.logs and host.telemetry.logs._ring._followers)
            await host.invoke("talker.flood", {"lines": 5000, "size": 1000})
            await written(host, f"{4999:01000}")  # another reader has had its end
            await host.invoke("talker.idle")
            assert counters.lines_dropped == 0
            rows = await asyncio.to_thread(rows_until, slow, f"{4999:01000}")
        missed = sum(row.get("missed", 0) for row in rows)
        texts = [row["message"] for row in rows if "message" in row]
        assert len(texts) + missed == 5000
        assert missed > 0
        assert len(texts) >= min(RING, 1024**2 // 1600)
        assert texts == sorted(texts)


def rows_until(connection: socket.socket, last: str) -> Rows:
    connection.settimeout(10)
    rows: Rows = []
    with connection.makefile() as lines:
        while not rows or rows[-1].get("message") != last:
            rows.append(json.loads(next(lines))["data"])
    return rows


async def test_a_follower_that_left_is_forgotten(tmp_path: Path) -> None:
    async with talking(tmp_path, tier="grpc") as host:
        assert host.telemetry.logs is not None
        ring = host.telemetry.logs._ring
        follower = ask(host.settings.host.runtime_dir, {"op": "logs", "follow": True})
        waiting = asyncio.ensure_future(anext(follower))
        await until(lambda: ring._followers)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await until(lambda: not ring._followers)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"plugin": "talkr"}, "no plugin 'talkr': did you mean 'talker'"),
        ({"plugin": "x"}, "no plugin 'x': it has talker"),
        ({"level": "loud"}, "'loud' is no log level: use debug, info, warning, error"),
        ({"lines": "many"}, "many"),
    ],
)
async def test_what_cannot_be_read_is_told(
    tmp_path: Path, fields: dict[str, str], told: str
) -> None:
    host = native_host(tmp_path)
    host.plugins["talker"] = None  # type: ignore[assignment]  # only its name is looked at
    server = ControlServer(host)
    await server.start()
    try:
        with pytest.raises(LoomError, match=told):
            await logs(host, **fields)
        with pytest.raises(LoomError, match="the host is not running"):
            await logs(host)
    finally:
        await server.aclose()
        host.plugins.clear()
        await host.aclose()
