"""`loom logs` and `loom top` against a real `loom run` with a real child."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_host.cli import logs, top
from loom_host.cli import main as cli
from loom_host.cli.common import ask_once
from loom_host.control import ControlServer
from loom_host.discovery import code_hash
from loom_host.quotas import Quotas

from .hosting import PLUGINS, native_host

pytestmark = pytest.mark.alone

CONFIG = f"""
[host]
plugin_paths = ["{PLUGINS}"]
data_dir = "data"
cache_dir = "cache"
runtime_dir = "run"
stop_grace_ms = 500

[plugins.talker]
sandbox = "none"
allow = {{ provide = ["talker.*"] }}
quotas = {{ rate = 20, cpu_share = 1.5 }}

[plugins.lab]
trusted = true
code = "{code_hash(PLUGINS / "lab")}"
allow = {{ provide = ["*"] }}
"""


@dataclass
class Loom:
    """The command line over one running host."""

    config: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *words: str, payload: bytes | None = None, code: int = 0) -> str:
        """In this process: standard output; standard error is in `err`."""
        if payload is not None:
            file = self.config.parent / "payload"
            file.write_bytes(payload)
            words = (*words, "--payload", str(file))
        given = cli.main(["-c", str(self.config), *words])
        captured = self.capsys.readouterr()
        self.err = captured.err
        assert given == code, captured.err
        return captured.out

    def says(self, text: str) -> None:
        """The talker writes a line, and the host has it."""
        self("call", "talker.write", payload=text.encode() + b"\n")
        wait_until(lambda: f"| {text}\n" in self("logs", "talker"))

    def command(self, *words: str) -> list[str]:
        return command(self.config, *words)

    def row(self, name: str) -> dict[str, Any]:
        rows = json.loads(self("top", "--once", "--json", "--interval", "0.1"))["plugins"]
        return next(dict(row) for row in rows if row["name"] == name)


def command(config: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "loom_host.cli.main", "-c", str(config), *words]


@contextmanager
def started(words: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process of its own, with pipes."""
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    config = tmp_path_factory.mktemp("live") / "loom.toml"
    config.write_text(CONFIG)
    with started(command(config, "run")) as host:
        assert host.stderr is not None
        for line in host.stderr:
            if line.startswith("loom runs"):
                break
        yield config
        host.send_signal(signal.SIGINT)
        _, rest = host.communicate(timeout=10)
        assert "Traceback" not in rest
        assert host.returncode == 0


@pytest.fixture
def loom(running: Path, capsys: pytest.CaptureFixture[str]) -> Loom:
    return Loom(running, capsys)


def wait_until(condition: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def interrupted(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=10)
    assert "Traceback" not in told
    assert process.returncode == 130


# -- logs


def test_logs_of_one_plugin_and_of_all(loom: Loom) -> None:
    loom.says("first words")
    loom("call", "talker.log", "message=second", "level=warning")
    wait_until(lambda: "second" in loom("logs", "talker"))
    lines = loom("logs", "talker").splitlines()
    at = next(number for number, line in enumerate(lines) if line.endswith("first words"))
    time_of_day = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(rf"{time_of_day} INFO    stdout\| first words", lines[at])
    traced = rf"{time_of_day} WARNING second step=1 trace=[0-9a-f]{{32}}"
    assert re.fullmatch(traced, lines[at + 1])
    (line,) = loom("logs", "-n", "1", "--level", "warning").splitlines()
    assert " WARNING talker: second step=1 " in line
    row = json.loads(loom("logs", "talker", "-n", "1", "--json"))
    assert (row["plugin"], row["message"]) == ("talker", "second")


def test_logs_of_a_plugin_that_is_not_there(loom: Loom) -> None:
    loom("logs", "talkr", code=1)
    assert loom.err == "loom: this host has no plugin 'talkr': did you mean 'talker'?\n"
    for words in (("-n", "-1"), ("--level", "loud")):
        with pytest.raises(SystemExit) as caught:
            loom("logs", "talker", *words)
        assert caught.value.code == 2


def test_following_gets_lines_as_they_come_until_it_is_interrupted(loom: Loom) -> None:
    loom.says("before")
    with started(loom.command("logs", "talker", "-f", "-n", "1")) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline().endswith("| before\n")
        for text in ("now", "and now"):
            loom("call", "talker.write", payload=text.encode() + b"\n")
            assert follower.stdout.readline().endswith(f"| {text}\n")
        interrupted(follower)


def test_following_ends_with_the_host_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "loom.toml"
    config.write_text('[host]\nruntime_dir = "run"\n')
    words = argparse.Namespace(
        config=config, plugin="", lines=0, level="debug", follow=True, json=False
    )

    async def follow() -> int:
        async with native_host(tmp_path) as host:
            server = ControlServer(host)
            await server.start()
            following = asyncio.create_task(logs.logs(words))
            assert host.telemetry.logs is not None
            while not host.telemetry.logs._ring._followers:  # noqa: ASYNC110  # it has no event
                await asyncio.sleep(0.005)
            await server.aclose()
            return await following

    assert asyncio.run(follow()) == 1
    assert capsys.readouterr().err.endswith("loom: the host ended: no more log lines come\n")


def test_a_plugins_line_is_one_line_and_drives_no_terminal() -> None:
    entry = {
        "time": "2026-01-02T03:04:05.678+00:00", "level": "error", "plugin": "p",
        "message": "a\nb\x1b[2J", "trace_id": "ab", "extra": {"attributes": {"k": "\x9b2J\r"}},
    }  # fmt: skip
    line = logs.line_of(entry, named=True)
    assert line == (
        r"2026-01-02T03:04:05.678Z ERROR   p: a\nb\x1b[2J k=\x9b2J\r trace=ab"
    )  # fmt: skip
    assert "p: " not in logs.line_of(entry, named=False)


# -- top


def test_top_shows_a_quota_hit_a_restart_and_a_denial_that_happened(loom: Loom) -> None:
    before = loom.row("talker")
    loom("call", "talker.secret", "name=other", code=1)
    loom("call", "talker.end", payload=b"so long", code=1)
    assert "so long" in loom.err
    wait_until(lambda: loom.row("talker")["state"] == "ready")
    asyncio.run(hammer(loom, 40))
    after = loom.row("talker")
    assert after["denials"] == before["denials"] + 1
    assert after["restarts"] == before["restarts"] + 1
    assert after["hits"].get("rate", 0) > before["hits"].get("rate", 0)
    assert after["pid"] != before["pid"]
    assert after["memory"] > 1_000_000
    table = loom("top", "--once").splitlines()
    assert table[0].split()[:3] == ["PLUGIN", "TIER", "STATE"]
    line = next(line for line in table if line.startswith("talker "))
    assert f"rate {after['hits']['rate']}" in line
    assert "/1.5 " in line
    assert "256.0M" in line
    counts = [str(after[name]) for name in ("restarts", "denials", "lines_dropped")]
    assert line.split()[-3:] == counts
    assert "denials: see loom why-denied" in table
    assert loom("top").startswith("PLUGIN")  # no terminal: once


async def hammer(loom: Loom, times: int) -> None:
    words = argparse.Namespace(config=loom.config)
    request = {"op": "call", "capability": "talker.idle"}
    asking = (ask_once(words, request) for _ in range(times))
    ends = await asyncio.gather(*asking, return_exceptions=True)
    assert any("rate" in str(end) for end in ends if isinstance(end, Exception))


def test_top_as_json_goes_on_until_it_is_interrupted(loom: Loom) -> None:
    with started(loom.command("top", "--json", "--interval", "0.1")) as follower:
        assert follower.stdout is not None
        samples = [json.loads(follower.stdout.readline()) for _ in range(3)]
        interrupted(follower)
    times = [sample["time"] for sample in samples]
    assert times == sorted(set(times))
    assert [row["name"] for row in samples[-1]["plugins"]] == ["talker", "lab"]
    assert samples[-1]["plugins"][1]["cpu_now"] is None


def test_top_in_a_terminal_is_live_until_ctrl_c(loom: Loom) -> None:
    main, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "40"}
    with subprocess.Popen(
        loom.command("top", "--interval", "0.1"), stdin=terminal, stdout=terminal,
        stderr=subprocess.PIPE, start_new_session=True, env=environment,
    ) as process:  # fmt: skip
        os.close(terminal)
        try:
            shown = read_until(main, lambda text: text.count("talker") >= 3)
            process.send_signal(signal.SIGINT)
            shown += read_until(main, lambda text: process.poll() is not None)
            assert process.stderr is not None
            assert process.stderr.read() == b""
        finally:
            process.kill()
            os.close(main)
    assert process.returncode == 130
    assert "QUOTA HITS" in shown
    assert shown.rstrip().endswith("\x1b[?25h")  # the cursor is back


def read_until(terminal: int, enough: Any) -> str:
    text, end = "", time.monotonic() + 20
    while not enough(text):
        assert time.monotonic() < end, text
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                text += os.read(terminal, 65536).decode()
            except OSError:  # the other end is closed
                break
    return text


def test_top_tells_that_the_host_ended(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "loom.toml"
    config.write_text('[host]\nruntime_dir = "run"\n')
    words = argparse.Namespace(config=config, once=False, json=True, interval=0.1)

    async def follow() -> int:
        async with native_host(tmp_path) as host:
            server = ControlServer(host)
            await server.start()
            following = asyncio.create_task(top.top(words))
            await asyncio.sleep(0.3)
            await server.aclose()
            return await following

    assert asyncio.run(follow()) == 1
    shown = capfd.readouterr()
    assert shown.err.endswith("loom: the host ended\n")
    assert json.loads(shown.out.splitlines()[0])["plugins"] == []


@pytest.mark.parametrize("words", [["top"], ["top", "--once", "--json"], ["logs", "-f"]])
def test_without_a_host_the_way_to_start_one_is_told(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "loom.toml"
    config.write_text('[host]\nruntime_dir = "run"\n')
    assert cli.main(["-c", str(config), *words]) == 1
    assert "start one with `loom run`" in capsys.readouterr().err


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "inf", "x"])
def test_a_wrong_interval_is_wrong_usage(interval: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["top", f"--interval={interval}"])
    assert caught.value.code == 2
    assert "seconds, at least 0.1" in capsys.readouterr().err


def row(**fields: Any) -> dict[str, Any]:
    limits = {"memory": 0, "cpu_share": 0.0, "concurrency": 1}
    return {
        "name": "p", "tier": "grpc", "state": "ready", "reason": "", "calls": 0, "errors": 0,
        "in_flight": 0, "memory": 0, "peak_memory": 0, "pid": 1, "hits": {}, "restarts": 0,
        "denials": 0, "lines_dropped": 0, "usage": {}, "limits": limits, **fields,
    }  # fmt: skip


def test_rates_are_what_was_added_in_the_time() -> None:
    before = [row(calls=10, usage={"cpu_s": 1.0})]
    (now,) = top.rated(before, [row(calls=30, usage={"cpu_s": 2.0})], 2.0)
    assert (now["calls_per_s"], now["cpu_now"]) == (10.0, 0.5)
    (now,) = top.rated(before, [row(calls=30, pid=2, usage={"cpu_s": 0.4})], 2.0)
    assert now["cpu_now"] == 0.2  # a new process
    (now,) = top.rated([], [row(calls=4)], 2.0)
    assert (now["calls_per_s"], now["cpu_now"]) == (2.0, None)


@given(
    st.integers(0, 10**9), st.integers(0, 10**9), st.floats(0, 1e6), st.floats(0, 1e6),
    st.sampled_from(["grpc", "wasm", "native"]), st.dictionaries(st.text(), st.integers()),
)  # fmt: skip
def test_every_row_has_a_text_for_each_column(
    was: int, now: int, cpu_was: float, cpu: float, tier: str, hits: dict[str, int]
) -> None:
    before = row(calls=was, tier=tier, usage={"cpu_s": cpu_was})
    after = row(calls=now, tier=tier, usage={"cpu_s": cpu}, hits=hits)
    (rated,) = top.rated([before], [after], 0.5)
    assert rated["calls_per_s"] >= 0
    assert rated["cpu_now"] >= 0
    assert len(top.cells(rated)) == len(top.COLUMNS)
    assert {"memory", "cpu_share", "concurrency"} <= set(Quotas.__dataclass_fields__)
