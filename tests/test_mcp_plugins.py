"""MCP servers as plugins, in real hosts: a public one, and those that misbehave."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from loom_host import Host, load_settings
from loom_host.confine.report import ENFORCED
from loom_sdk.errors import (
    ActionFailed,
    DeadlineExceeded,
    LoomError,
    NoProvider,
    OutcomeUnknown,
    QuotaExceeded,
)

from .hosting import host_tables, until
from .support import ROOT

pytest.importorskip("mcp", reason="the extra `mcp` is not installed")
pytestmark = pytest.mark.slow
ODD = ROOT / "tests" / "mcp_servers" / "odd_server.py"
NPM_CACHE = ROOT / "build" / "mcp-npm"
FILESYSTEM = "@modelcontextprotocol/server-filesystem@2026.8.31"


def odd(mode: str, **table: Any) -> dict[str, Any]:
    """The table of a server that misbehaves in its way."""
    quotas = {"deadline_ms": 5000}
    return {
        "mcp": [sys.executable, str(ODD), mode], "allow": {"provide": [f"{mode}.*"]},
        "quotas": quotas, "trusted": False, "code": "",
    } | table  # fmt: skip


def host_of(folder: Path, tables: dict[str, Any]) -> Host:
    settings = host_tables(folder)
    settings["telemetry"]["log_level"] = "error"
    return Host(load_settings(None, settings | {"plugins": tables}))


def odd_host(folder: Path, modes: Sequence[str]) -> Host:
    return host_of(folder, {mode: odd(mode) for mode in modes})


async def call(host: Host, capability: str, **arguments: Any) -> Any:
    return (await host.invoke(capability, arguments)).output


async def fails(host: Host, capability: str) -> LoomError:
    with pytest.raises(LoomError) as raised:
        await host.invoke(capability)
    return raised.value


async def test_a_servers_tools_are_capabilities_with_its_hints_as_effects(tmp_path: Path) -> None:
    async with odd_host(tmp_path, ["hints"]) as host:
        offers = {
            name: o[0].spec for name, o in host.broker.capabilities().items() if o[0].spec.tool
        }
        effects = {name: spec.effects for name, spec in offers.items()}
        assert effects == {
            "hints.echo": "once", "hints.odd": "once", "hints.reads": "none",
            "hints.sets": "idempotent", "hints.acts": "once", "hints.unsaid": "once",
        }  # fmt: skip
        assert offers["hints.echo"].description == "Says it again"
        seen = await call(host, "hints.echo", ctx=1, self="x", name=[None])
        assert seen["arguments"] == {"ctx": 1, "self": "x", "name": [None]}
        assert 0 < seen["meta"]["loom/remaining_ms"] <= 5000
        assert "LOOM_TOKEN" not in seen["env"]
        assert "LOOM_HOST_SOCKET" not in seen["env"]


async def test_only_what_is_granted_is_offered(tmp_path: Path) -> None:
    table = odd("hints", allow={"provide": ["hints.reads"]})
    async with host_of(tmp_path, {"hints": table}) as host:
        offered = [name for name in host.broker.capabilities() if name.startswith("hints.")]
        assert offered == ["hints.reads"]


async def test_what_a_server_answers_wrongly_is_a_typed_error_and_it_serves_on(
    tmp_path: Path,
) -> None:
    modes = ["fails", "wrong", "error", "large", "garbage", "asks", "image"]
    async with odd_host(tmp_path, modes) as host:
        failed = await fails(host, "fails.odd")
        assert isinstance(failed, ActionFailed)
        assert (failed.code, failed.message) == (
            "MCP_TOOL_ERROR",
            "fails.odd failed: no such thing",
        )
        wrong = await fails(host, "wrong.odd")
        assert isinstance(wrong, ActionFailed)
        assert wrong.code == "MCP_BAD_ANSWER"
        error = await fails(host, "error.odd")
        assert isinstance(error, ActionFailed)
        assert (error.code, error.data) == ("MCP_ERROR", {"code": -32050})
        large = await fails(host, "large.odd")
        assert isinstance(large, QuotaExceeded)
        assert large.quota == "output_bytes"
        assert await call(host, "garbage.odd") == {"text": "after all that"}
        assert await call(host, "asks.odd") == {"text": "answered"}
        image = await host.invoke("image.odd")
        assert (image.content_type, image.payload[:4]) == ("image/png", b"\x89PNG")
        assert [item.content_type for item in image.items] == ["audio/wav"]
        for mode in modes:
            seen = await call(host, f"{mode}.echo")
            assert host.plugins[mode].counters.restarts == 0
            assert seen["refused"] is (True if mode == "asks" else None)


async def test_a_call_that_is_given_up_is_cancelled_at_the_server(tmp_path: Path) -> None:
    table = odd("never", quotas={"deadline_ms": 800})
    async with host_of(tmp_path, {"never": table}) as host:
        assert isinstance(await fails(host, "never.odd"), DeadlineExceeded)
        assert (await call(host, "never.echo"))["cancelled"] == 1
        waiting = asyncio.ensure_future(host.invoke("never.odd"))
        await asyncio.sleep(0.2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await call(host, "never.echo"))["cancelled"] == 2
        assert host.plugins["never"].counters.restarts == 0


async def test_a_server_that_ends_is_started_again_with_its_calls_ended(tmp_path: Path) -> None:
    async with odd_host(tmp_path, ["crash"]) as host:
        error = await fails(host, "crash.odd")
        assert isinstance(error, OutcomeUnknown)
        assert "the MCP server ended: exit code 3" in error.message
        handle = host.plugins["crash"]
        await until(lambda: handle.counters.restarts == 1 and handle.state == "ready", 30)
        assert "about to die" in handle.log_lines
        assert (await call(host, "crash.echo", a=1))["arguments"] == {"a": 1}


async def test_an_answer_without_end_costs_the_server_its_life(tmp_path: Path) -> None:
    table = odd("huge", config={"message_bytes": 1_000_000}, quotas={"deadline_ms": 10_000})
    async with host_of(tmp_path, {"huge": table}) as host:
        error = await fails(host, "huge.odd")
        assert isinstance(error, QuotaExceeded)
        assert (error.quota, error.limit) == ("message_bytes", 1_000_000)
        await until(lambda: host.plugins["huge"].counters.restarts == 1, 30)


async def test_odd_lists_of_tools_are_taken_within_bounds(tmp_path: Path) -> None:
    async with odd_host(tmp_path, ["names", "many", "pages", "bombs"]) as host:
        offered = list(host.broker.capabilities())
        assert sum(name.startswith("many.") for name in offered) == 256
        assert [n for n in offered if n.startswith("pages.")] == ["pages.echo", "pages.odd"]
        words = {name.partition(".")[2] for name in offered if name.startswith("names.")}
        assert words >= {"31m", "a_b", "etc", "get_thing", "n_code_n_me", "x_y_z", "echo"}
        assert "bombs.wide" not in offered
        for name in ("bombs.remote", "bombs.local", "bombs.wrong"):
            assert "the input schema is wrong" in (await fails(host, name)).message
        assert await call(host, "bombs.regex", a="a" * 5000) == {"text": "regex"}


async def test_a_server_that_never_gets_ready_is_told_and_the_host_starts(tmp_path: Path) -> None:
    short = {"connect_s": 3}
    tables = {mode: odd(mode, config=short) for mode in ("silent", "deep", "dead", "bad-list")}
    async with host_of(tmp_path, tables) as host:
        reasons = {name: host.plugins[name].reason for name in tables}
        assert "did not tell its tools within 3 s" in reasons["silent"]
        assert "lines of its output were no messages" in reasons["deep"]
        assert "the MCP server ended: exit code 7" in reasons["dead"]
        assert "ValidationError" in reasons["bad-list"]
        assert isinstance(await fails(host, "silent.echo"), NoProvider | LoomError)


async def test_storms_and_floods_do_not_keep_a_server_or_the_host_from_its_work(
    tmp_path: Path,
) -> None:
    async with odd_host(tmp_path, ["storm", "flood", "hints"]) as host:
        assert await call(host, "storm.odd") == {"text": "stormed"}
        flood = asyncio.ensure_future(host.invoke("flood.odd"))
        assert (await call(host, "hints.echo", a=2))["arguments"] == {"a": 2}
        await asyncio.wait({flood})
        error = flood.exception()
        assert isinstance(error, QuotaExceeded) or flood.result().output == {"text": "flooded"}
        handle = host.plugins["storm"]
        await until(lambda: handle.state == "degraded", 20)
        assert "`loom swap storm` takes them up" in handle.reason
        assert "storm.new" not in host.broker.capabilities()
        assert (await call(host, "storm.echo"))["listed"] <= 4
        swapped = await host.swap("storm")
        assert swapped is not None


@pytest.fixture(scope="module")
def filesystem_server() -> Path:
    """The public server of npm, installed once into build/."""
    program = NPM_CACHE / "node_modules" / ".bin" / "mcp-server-filesystem"
    if program.exists():
        return program
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed: apt install npm")
    NPM_CACHE.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [npm, "install", "--silent", "--no-fund", "--no-audit", "--ignore-scripts", FILESYSTEM],
        cwd=NPM_CACHE, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    if done.returncode or not program.exists():
        pytest.skip(f"npm could not install {FILESYSTEM}: {done.stderr.strip()[-200:]}")
    return program


async def test_a_public_server_reads_the_granted_folder_and_is_refused_everything_else(
    tmp_path: Path, filesystem_server: Path
) -> None:
    granted, other = tmp_path / "granted", tmp_path / "other"
    for folder in (granted, other):
        folder.mkdir()
        (folder / "word.txt").write_text(f"in {folder.name}")
    table = {
        "mcp": [str(filesystem_server), "/"],  # the server itself would allow everything
        "allow": {"provide": ["files.*"], "filesystem": ["notes"]},
        "folders": {"notes": str(granted)},
    }
    async with host_of(tmp_path, {"files": table}) as host:
        layers: Any = getattr(host.plugins["files"].instance, "layers", {})
        if ENFORCED not in (layers.get("namespaces"), layers.get("landlock")):
            pytest.skip(f"this machine has no sandbox: {layers}")
        read = await call(host, "files.read_text_file", path="/notes/word.txt")
        assert read["content"].strip() == "in granted"
        assert read == json.loads(json.dumps(read))
        for path in (
            other / "word.txt",
            "/etc/hostname",
            "/etc/shadow",
            "/root",
            "/proc/1/environ",
        ):
            with pytest.raises(ActionFailed, match=r"EACCES|ENOENT") as raised:
                await call(host, "files.read_text_file", path=str(path))
            assert "in other" not in raised.value.message
        with pytest.raises(ActionFailed, match=r"EACCES|EROFS"):
            await call(host, "files.write_file", path="/notes/new.txt", content="x")
        assert not (granted / "new.txt").exists()


async def test_a_public_server_writes_where_it_was_granted_to_write(
    tmp_path: Path, filesystem_server: Path
) -> None:
    granted = tmp_path / "granted"
    granted.mkdir()
    table = {
        "mcp": [str(filesystem_server), "/notes"],
        "allow": {"provide": ["files.*"], "filesystem": ["notes:rw"]},
        "folders": {"notes": str(granted)},
    }
    async with host_of(tmp_path, {"files": table}) as host:
        await call(host, "files.write_file", path="/notes/new.txt", content="hello")
        assert (granted / "new.txt").read_text() == "hello"
        assert host.broker.capabilities()["files.read_text_file"][0].spec.effects == "none"


@pytest.fixture(params=["json", "events"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """Of a server of the official SDK, over streamable HTTP."""
    server = ODD.with_name("http_server.py")
    words = [sys.executable, str(server), request.param]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


async def test_a_server_at_an_address_is_reached_by_the_host_where_that_is_granted(
    tmp_path: Path, address: str
) -> None:
    (tmp_path / "token").write_text("tok-123456")
    (tmp_path / "token").chmod(0o600)
    table = {
        "mcp": f"{address}/mcp",
        "allow": {"provide": ["adder.*"], "network": [address], "secrets": ["adder"]},
        "config": {"token_secret": "adder"},
    }
    settings = host_tables(tmp_path) | {
        "plugins": {"adder": table, "stranger": {"mcp": f"{address}/mcp"}},
        "secrets": {"adder": {"file": str(tmp_path / "token")}},
    }
    async with Host(load_settings(None, settings)) as host:
        assert await call(host, "adder.add", a=2, b=3) == {"sum": 5}
        assert await call(host, "adder.secret") == {"authorization": "Bearer tok-123456"}
        assert host.plugins["adder"].placement == "cloud"
        assert host.plugins["stranger"].state == "failed"
        assert f"may not reach '{address}" in host.plugins["stranger"].reason
        assert any(refusal.plugin == "stranger" for refusal in host.audit.refusals)
