"""`loom mcp`: the official SDK's client lists and calls a real host's granted tools."""

from __future__ import annotations

import asyncio
import re
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from loom_host import Host, load_settings
from loom_host.control import ControlServer
from loom_host.discovery import code_hash
from loom_host.mcp_words import is_url
from loom_sdk.errors import ConfigError

from .hosting import PLUGINS, until

mcp = pytest.importorskip("mcp", reason="the extra `mcp` is not installed")
httpx2 = pytest.importorskip("httpx2")

from mcp import Client, StdioServerParameters, types  # noqa: E402  # after the check
from mcp.client.streamable_http import streamable_http_client  # noqa: E402

from loom_host.mcp_http import loopback_address, token_at  # noqa: E402
from loom_host.mcp_server import result_of, tool_of  # noqa: E402

TOML = """
[host]
data_dir = "data"
cache_dir = "cache"
runtime_dir = "run"
plugin_paths = ["{plugins}"]
[telemetry]
log_level = "error"
[plugins.calculator]
tier = "native"
allow = {{ provide = ["calculator.evaluate"] }}
[plugins.scribe]
trusted = true
code = "{code}"
allow = {{ provide = ["scribe.*"] }}
[clients.desk]
allow = {{ invoke = ["calculator.*", "scribe.*"] }}
elicit = true
[clients.plain]
allow = {{ invoke = ["scribe.*"] }}
agent = "plain-agent"
[agents.plain-agent.parameters.tools]
approval_timeout_s = 20.0
approval = {{ "scribe.look" = "deny" }}
[clients.slow]
allow = {{ invoke = ["scribe.look", "calculator.evaluate"] }}
quotas = {{ deadline_ms = 300, rate = 2, output_bytes = 2000 }}
"""


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Host, Path]]:
    """A host with its control socket, and its loom.toml."""
    file = folder / "loom.toml"
    file.write_text(TOML.format(plugins=PLUGINS, code=code_hash(PLUGINS / "scribe")))
    async with Host(load_settings(file)) as host:
        control = ControlServer(host)
        await control.start()
        try:
            yield host, file
        finally:
            await control.aclose()


def words(file: Path, client: str, *more: str) -> list[str]:
    return ["-m", "loom_host.cli.entry", "-c", str(file), "mcp", "--client", client, *more]


def over_stdio(file: Path, client: str, **options: Any) -> Client:
    command = StdioServerParameters(command=sys.executable, args=words(file, client))
    return Client(command, **options)


@asynccontextmanager
async def serving_http(file: Path, client: str, *more: str) -> AsyncIterator[tuple[str, str]]:
    """The address and the token of `loom mcp --http`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words(file, client, "--http", "127.0.0.1:0", *more),
        stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        match = None
        while match is None:
            line = (await process.stderr.readline()).decode()
            assert line, "it ended"
            match = re.search(r"(http://\S+), token in (\S+)", line)
        yield match[1], token_at(Path(match[2]))
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def over_http(url: str, token: str) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {token}"}
    http = httpx2.AsyncClient(headers=headers, trust_env=False)
    async with http, Client(streamable_http_client(url, http_client=http)) as client:
        yield client


def text_of(answer: types.CallToolResult) -> str:
    return "".join(block.text for block in answer.content if isinstance(block, types.TextContent))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_over_stdio_lists_and_calls_what_it_is_granted(
    tmp_path: Path, mode: str
) -> None:
    async with running(tmp_path) as (_, file), over_stdio(file, "desk", mode=mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert sorted(tools) == ["calculator.evaluate", "scribe.look", "scribe.note"]
        calculator = tools["calculator.evaluate"]
        assert calculator.input_schema["required"] == ["expression"]
        assert calculator.annotations is not None
        assert calculator.annotations.read_only_hint
        answer = await client.call_tool("calculator.evaluate", {"expression": "12 * 9"})
        assert not answer.is_error
        assert answer.structured_content is not None
        assert answer.structured_content["result"] == "108"
        wrong = await client.call_tool("calculator.evaluate", {"expression": 5})
        assert wrong.is_error
        assert text_of(wrong).startswith("INVALID_ARGUMENTS: ")


@pytest.mark.slow
async def test_a_tool_that_is_not_granted_is_not_shown_and_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as (host, file), over_stdio(file, "plain") as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == {
            "scribe.look", "scribe.note"
        }  # fmt: skip
        refused = await client.call_tool("calculator.evaluate", {"expression": "1"})
        assert refused.is_error
        assert text_of(refused).startswith("PERMISSION_DENIED: ")
        assert '[clients.plain]\nallow = { invoke = ["scribe.*", "calculator.evaluate"] }' in (
            text_of(refused)
        )
        assert host.plugins["calculator"].counters.calls == 0
        assert [r.plugin for r in host.audit.refusals if r.kind == "invoke"] == ["client/plain"]
        for name in ("scribe.log", "loom.tools", "no.such"):  # granted or not, these are no tools
            assert (await client.call_tool(name, {})).is_error
        denied = await client.call_tool("scribe.look", {"what": "x"})
        assert "its policy denies it" in text_of(denied)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("action", ["accept", "decline"])
async def test_a_tool_that_acts_asks_the_clients_user_where_the_operator_wants_that(
    tmp_path: Path, mode: str, action: Any
) -> None:
    asked: list[str] = []

    async def user(_: Any, params: Any) -> types.ElicitResult:
        asked.append(params.message)
        return types.ElicitResult(action=action, content={} if action == "accept" else None)

    async with running(tmp_path) as (host, file):
        async with over_stdio(file, "desk", mode=mode, elicitation_callback=user) as client:
            answer = await client.call_tool("scribe.note", {"text": "hello"})
        assert len(asked) == 1
        assert "scribe.note" in asked[0]
        assert "hello" in asked[0]
        assert answer.is_error == (action == "decline")
        notes = (await host.invoke("scribe.log")).output["notes"]
        assert notes == (["hello"] if action == "accept" else [])


@pytest.mark.slow
async def test_a_tool_that_acts_waits_for_the_operator_otherwise(tmp_path: Path) -> None:
    async with running(tmp_path) as (host, file), over_stdio(file, "plain") as client:
        calling = asyncio.create_task(client.call_tool("scribe.note", {"text": "hello"}))
        await until(host.approvals.rows, 20)
        (row,) = host.approvals.rows()
        assert (row["agent"], row["caller"]) == ("plain-agent", "client/plain")
        host.approvals.answer(row["id"], True)
        assert (await calling).structured_content == {"notes": 1}


@pytest.mark.slow
async def test_a_clients_quotas_hold(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, file), over_stdio(file, "slow") as client:
        late = await client.call_tool("scribe.look", {"what": "x", "seconds": 5.0})
        assert text_of(late).startswith("DEADLINE_EXCEEDED: ")
        large = await client.call_tool("scribe.look", {"what": "x" * 3000})
        assert text_of(large).startswith("QUOTA_EXCEEDED: client/slow: quota output_bytes")
        answers = [await client.call_tool("scribe.look", {"what": "x"}) for _ in range(6)]
        assert any(
            text_of(a).startswith("QUOTA_EXCEEDED: client/slow: quota rate") for a in answers
        )


@pytest.mark.slow
async def test_over_http_only_who_bears_the_token_is_let_in(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, file), serving_http(file, "desk") as (url, token):
        async with over_http(url, token) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            assert "calculator.evaluate" in names
            answer = await client.call_tool("calculator.evaluate", {"expression": "6 * 7"})
            assert answer.structured_content is not None
            assert answer.structured_content["result"] == "42"
        assert stat.S_IMODE((tmp_path / "run" / "mcp.token").stat().st_mode) == 0o600
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        common = {"accept": "application/json, text/event-stream"}
        right = {"authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(headers=common, trust_env=False) as http:
            for headers, status in (
                ({}, 401),
                ({"authorization": "Bearer wrong"}, 401),
                ({"authorization": token}, 401),
                (right | {"origin": "http://evil.example"}, 403),
                (right | {"host": "evil.example"}, 421),
            ):
                answered = await http.post(url, json=body, headers=headers)
                assert answered.status_code == status, headers


@pytest.mark.slow
async def test_without_a_host_or_a_table_it_says_what_to_do(tmp_path: Path) -> None:
    async def told(client: str) -> str:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *words(tmp_path / "loom.toml", client),
            stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        _, err = await process.communicate()
        return f"{process.returncode} {err.decode()}"

    async with running(tmp_path):
        assert '[clients.nobody]\nallow = { invoke = ["calculator.*"] }' in await told("nobody")
    assert (await told("desk")).startswith("1 loom: no host runs at ")


def test_a_token_is_made_for_its_owner_alone_and_one_that_others_can_read_is_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "token"
    token = token_at(path)
    assert len(token) >= 32
    assert token_at(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        token_at(path)
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(ConfigError, match="at least 16 characters"):
        token_at(path)


@pytest.mark.parametrize(
    "text", ["0.0.0.0:80", "192.168.1.1:80", "127.0.0.1", "127.0.0.1:x", "example.com:80", ":80"]
)
def test_it_listens_on_loopback_alone(text: str) -> None:
    with pytest.raises(ConfigError, match="loopback"):
        loopback_address(text)
    assert loopback_address("127.0.0.1:0") == ("127.0.0.1", 0)
    assert loopback_address("[::1]:8765") == ("::1", 8765)
    assert loopback_address("localhost:1") == ("localhost", 1)


@pytest.mark.parametrize(
    ("effects", "hints"),
    [
        ("none", (True, False, True)),
        ("idempotent", (False, False, True)),
        ("once", (False, True, False)),
    ],
)
def test_effects_become_hints(effects: str, hints: tuple[bool, bool, bool]) -> None:
    row: dict[str, Any] = {
        "name": "a.b", "description": "", "effects": effects, "input": {}, "output": None,
        "cloud": True,
    }  # fmt: skip
    told = tool_of(row).annotations
    assert told is not None
    assert (told.read_only_hint, told.destructive_hint, told.idempotent_hint) == hints
    assert told.open_world_hint


def test_binary_goes_out_as_what_it_is() -> None:
    kinds = ["image/png", "audio/wav", "application/pdf"]
    parts = [{"output": None, "payload": "cG5n", "content_type": kind} for kind in kinds]
    answer = result_of({"output": "text", "payload": "", "content_type": "", "items": parts})
    assert [block.type for block in answer.content] == ["text", "image", "audio", "resource"]
    assert answer.structured_content is None


def test_an_address_is_known_from_a_command() -> None:
    assert is_url(("https://example.com/mcp",))
    assert not is_url(("server", "https://example.com"))
