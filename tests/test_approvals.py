"""Approvals: an agent's tool acts when policy or a person allows it, whatever the agent does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_host import Host, load_settings
from loom_host.approvals import MAX_PENDING, Approvals, policy_for
from loom_host.cli.main import main
from loom_host.clients import Clients
from loom_host.control import ControlServer
from loom_host.dispatch import Request
from loom_host.settings import ToolPolicy
from loom_sdk import Event
from loom_sdk.errors import ConfigError, InvalidArguments, PermissionDenied

from .hosting import host_tables, next_of, until

ASKS = ["scribe.*", "llm.chat", "loom.tools", "loom.approve"]
DOER = {"allow": {"provide": ["*"], "invoke": ASKS, "subscribe": ["deeds"], "publish": ["done"]}}
SCRIBE = {"allow": {"provide": ["*"], "invoke": ["scribe.note", "loom.approve"]}}
NOTE = {"name": "scribe.note", "arguments": {"text": "milk"}}


@asynccontextmanager
async def running(
    folder: Path, approval: Mapping[str, str] | None = None, limit_s: float = 5.0, **doer: Any
) -> AsyncIterator[Host]:
    tables = host_tables(folder, doer={**DOER, **doer}, scribe=SCRIBE)
    tools = {"approval": dict(approval or {}), "approval_timeout_s": limit_s}
    tables["agents"] = {"helper": {"plugin": "doer", "parameters": {"tools": tools}}}
    async with Host(load_settings(None, tables)) as host:
        yield host


async def notes(host: Host) -> list[str]:
    found: list[str] = (await host.invoke("scribe.log")).output["notes"]
    return found


async def test_a_tool_that_acts_waits_until_it_is_allowed(tmp_path: Path) -> None:
    async with running(tmp_path) as host, host.bus.subscribe("agent.helper") as events:
        acting = asyncio.create_task(host.invoke("doer.act", NOTE))
        request = await next_of(events)
        assert request.type == "approval.request"
        assert request.source == "host"
        asked = {"agent": "helper", "caller": "doer", "capability": "scribe.note"}
        assert asked.items() <= request.metadata.items()
        assert json.loads(request.metadata["arguments"]) == {"text": "milk"}
        assert await notes(host) == []
        assert not acting.done()
        host.approvals.answer(request.metadata["approval_id"], True)
        assert (await acting).output == {"output": {"notes": 1}}
        result = await next_of(events)
        assert (result.type, result.metadata["status"]) == ("approval.result", "allowed")
        assert host.approvals.rows() == []


async def test_no_and_no_answer_are_refusals(tmp_path: Path) -> None:
    async with running(tmp_path, limit_s=0.1) as host:
        acting = asyncio.create_task(host.invoke("doer.act", NOTE))
        await until(host.approvals.rows)
        host.approvals.answer(host.approvals.rows()[0]["id"], False)
        with pytest.raises(PermissionDenied, match="the answer was no"):
            await acting
        with pytest.raises(PermissionDenied, match=r"nobody allowed it within 0.1 s") as late:
            await host.invoke("doer.act", NOTE)
        assert late.value.permission == "approval:scribe.note"
        assert await notes(host) == []


async def test_an_answer_counts_once_and_only_for_what_waits(tmp_path: Path) -> None:
    async with running(tmp_path) as host:
        acting = asyncio.create_task(host.invoke("doer.act", NOTE))
        await until(host.approvals.rows)
        (row,) = host.approvals.rows()
        with pytest.raises(InvalidArguments, match="waiting"):
            host.approvals.answer(row["id"], True, agents=("other",))
        host.approvals.answer(row["id"], False)
        with pytest.raises(InvalidArguments, match="no call waits"):
            host.approvals.answer(row["id"], True)
        with pytest.raises(PermissionDenied):
            await acting


async def test_a_caller_that_leaves_takes_its_question_with_it(tmp_path: Path) -> None:
    async with running(tmp_path) as host, host.bus.subscribe("agent.helper") as events:
        acting = asyncio.create_task(host.invoke("doer.act", NOTE))
        await next_of(events)
        acting.cancel()
        await asyncio.wait([acting])
        assert (await next_of(events)).metadata["status"] == "withdrawn"
        assert host.approvals.rows() == []


@pytest.mark.parametrize("name", ["scribe.look", "nested"])
async def test_the_policy_holds_for_what_is_called_below_an_event(
    tmp_path: Path, name: str
) -> None:
    """A tool that only looks is not asked about; what it calls in its turn is."""
    async with running(tmp_path, limit_s=0.05) as host, host.bus.subscribe("done") as events:
        payload = json.dumps({"what": name}).encode()
        await host.bus.publish("deeds", Event("scribe.look", payload))
        output = json.loads((await next_of(events)).payload)
        if name == "nested":
            assert output["code"] == "PERMISSION_DENIED"
            assert await notes(host) == []
        else:
            assert output == "scribe.look"


async def test_policy_allows_and_denies_without_a_question(tmp_path: Path) -> None:
    async with running(tmp_path, {"scribe.note": "allow", "scribe.look": "deny"}) as host:
        assert (await host.invoke("doer.act", NOTE)).output == {"output": {"notes": 1}}
        look = {"name": "scribe.look", "arguments": {"what": "sky"}}
        with pytest.raises(PermissionDenied, match="its policy denies it"):
            await host.invoke("doer.act", look)
        offered = (await host.invoke("doer.act", {"name": "loom.tools", "arguments": {}})).output
        tools = [(tool["name"], tool["approval"]) for tool in offered["output"]["tools"]]
        assert tools == [("scribe.note", "allow")]


async def test_an_agent_without_a_table_is_asked_about_too(tmp_path: Path) -> None:
    tables = host_tables(tmp_path, doer=DOER, scribe=SCRIBE)
    async with Host(load_settings(None, tables)) as host:
        acting = asyncio.create_task(host.invoke("doer.act", NOTE))
        await until(host.approvals.rows)
        assert host.approvals.rows()[0]["agent"] == "doer"
        acting.cancel()
        await asyncio.wait([acting])


async def test_the_operator_and_plugins_that_serve_no_agent_are_not_asked_about(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as host:
        await host.invoke("scribe.note", {"text": "by hand"})
        await host.invoke("scribe.look", {"what": "nested"})
        assert await notes(host) == ["by hand", "nested"]


@pytest.mark.parametrize(("said", "kept"), [("yes", ["yes"]), ("no", [])])
async def test_an_agent_conveys_what_a_person_said(
    tmp_path: Path, said: str, kept: list[str]
) -> None:
    heard = {**DOER["allow"], "subscribe": ["deeds", "agent.doer"]}
    tables = host_tables(tmp_path, doer={"allow": heard}, scribe=SCRIBE)
    async with Host(load_settings(None, tables)) as host, host.bus.subscribe("done") as events:
        await host.bus.publish("deeds", Event("scribe.note", json.dumps({"text": said}).encode()))
        await next_of(events)
        assert await notes(host) == kept


async def test_only_an_agent_may_convey_an_answer(tmp_path: Path) -> None:
    async with running(tmp_path) as host:
        acting = asyncio.create_task(host.invoke("doer.act", NOTE))
        await until(host.approvals.rows)
        answer = {"id": host.approvals.rows()[0]["id"], "allow": True}
        with pytest.raises(PermissionDenied, match="host is no agent"):
            await host.invoke("loom.approve", answer)
        assert host.approvals.rows()
        acting.cancel()
        await asyncio.wait([acting])


async def test_too_many_questions_are_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as host:
        approve = host.approvals.approve
        waiting = [
            asyncio.create_task(approve("mcp", "scribe.note", {"text": str(i)}))
            for i in range(MAX_PENDING)
        ]
        await until(lambda: len(host.approvals.rows()) == MAX_PENDING)
        with pytest.raises(PermissionDenied, match=f"{MAX_PENDING} calls wait"):
            await approve("mcp", "scribe.note", {})
        await approve("mcp", "scribe.look", {"what": "x"})
        for row in host.approvals.rows():
            host.approvals.answer(row["id"], True)
        await asyncio.gather(*waiting)


async def test_long_arguments_are_cut_and_a_strange_name_still_has_a_topic(tmp_path: Path) -> None:
    async with running(tmp_path) as host, host.bus.subscribe("agent.*") as events:
        asking = host.approvals.approve("my client.v1", "scribe.note", {"text": "x" * 5000})
        task = asyncio.create_task(asking)
        request = await next_of(events)
        assert request.topic == "agent.my_client_v1"
        assert len(request.metadata["arguments"]) == 2001
        host.approvals.answer(request.metadata["approval_id"], True)
        await task


async def test_the_command_lists_and_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "loom.toml"
    file.write_text(f'[host]\nruntime_dir = "{tmp_path / "run"}"\n')

    async def loom(*words: str) -> str:
        code = await asyncio.to_thread(main, ["-c", str(file), "approvals", *words])
        out = capsys.readouterr()
        return f"{code} {out.out}{out.err}".strip()

    async with running(tmp_path) as host:
        server = ControlServer(host)
        await server.start()
        try:
            assert await loom() == "0 no call waits to be allowed"
            acting = asyncio.create_task(host.invoke("doer.act", NOTE))
            await until(host.approvals.rows)
            (row,) = json.loads((await loom("list", "--json")).removeprefix("0 "))
            listed = await loom()
            assert row["id"] in listed
            assert "scribe.note" in listed
            assert (await loom("allow", "nobody")).startswith("1 loom: no call waits")
            assert (await loom("allow")).startswith("2 loom: write `loom approvals`")
            assert await loom("allow", row["id"]) == "0 allowed: scribe.note"
            assert (await acting).output == {"output": {"notes": 1}}
        finally:
            await server.aclose()


@pytest.mark.parametrize(
    ("approval", "effects", "verdict"),
    [
        ({}, "none", "allow"),
        ({}, "idempotent", "allow"),
        ({}, "once", "ask"),
        ({"notes.add": "allow"}, "once", "allow"),
        ({"notes.*": "deny", "notes.add": "allow"}, "once", "allow"),
        ({"*": "deny", "notes.*": "ask"}, "none", "ask"),
        ({"weather.*": "deny"}, "once", "ask"),
    ],
)
def test_the_narrowest_pattern_decides(
    approval: dict[str, str], effects: str, verdict: str
) -> None:
    assert policy_for(ToolPolicy(approval), "notes.add", effects) == verdict


@given(st.dictionaries(st.text("no*.ad?[]", max_size=9), st.sampled_from(["allow", "deny"])))
def test_a_pattern_of_the_very_name_always_decides(approval: dict[str, str]) -> None:
    exact = approval | {"notes.add": "ask"}
    assert policy_for(ToolPolicy(exact), "notes.add", "none") == "ask"


@pytest.mark.parametrize(
    ("tools", "match"),
    [
        ({"approval": {"notes.add": "maybe"}}, "must be one of allow, ask, deny"),
        ({"approval": "ask"}, "must be a table of tools"),
        ({"aproval": {}}, "unknown key 'aproval'"),
        ({"approval_timeout_s": -1}, "must be finite and not negative"),
        ("ask", "must be a table"),
    ],
)
def test_a_wrong_policy_is_an_error_that_names_it(tools: Any, match: str) -> None:
    tables = {"agents": {"helper": {"parameters": {"tools": tools}}}}
    with pytest.raises(ConfigError, match=match):
        load_settings(None, tables)


def test_dots_without_quotes_mean_the_same_tool(tmp_path: Path) -> None:
    file = tmp_path / "loom.toml"
    file.write_text(
        "[agents.a.parameters]\ntools.approval.notes.add = 'deny'\n"
        "tools.approval.\"notes.*\" = 'allow'\ntools.approval_timeout_s = 3\n"
    )
    policy = load_settings(file).agents["a"].tools
    assert policy.approval == {"notes.add": "deny", "notes.*": "allow"}
    assert policy.approval_timeout_s == 3.0


def offer(effects: str, tool: bool = True) -> Any:
    return SimpleNamespace(spec=SimpleNamespace(name="notes.add", tool=tool, effects=effects))


async def denied(approvals: Approvals, request: Request, *offers: Any) -> bool:
    try:
        await approvals.guard(request, list(offers))
    except PermissionDenied:
        return True
    return False


def policies(**agents: dict[str, str]) -> Approvals:
    tables = {
        name: {"plugin": "doer", "parameters": {"tools": {"approval": approval}}}
        for name, approval in agents.items()
    }
    return Approvals(lambda name: [], load_settings(None, {"agents": tables}).agents)


async def test_any_provider_that_is_a_tool_makes_it_one_and_a_stricter_one_is_asked_anew() -> None:
    approvals = policies(one={"notes.add": "deny"})
    call = Request("notes.add", {}, caller="doer")
    assert await denied(approvals, call, offer("none", tool=False), offer("once"))
    free = policies(one={})
    assert not await denied(free, call, offer("none"))
    assert call.settled == "none"
    free = policies(one={"notes.add": "deny"})
    assert not await denied(free, call, offer("none"))
    assert await denied(free, call, offer("none"), offer("once"))


async def test_of_several_agents_of_a_plugin_the_strictest_decides() -> None:
    approvals = policies(one={"notes.add": "deny"}, two={"notes.add": "allow"})
    assert approvals.agents_of("doer") == ("one", "two")
    call = Request("notes.add", {}, caller="doer", agent="two")
    assert await denied(approvals, call, offer("none"))
    desk = SimpleNamespace(desk=SimpleNamespace(agent="two"))
    sure = Request("notes.add", {}, caller="doer", agent="two", parent=desk)  # type: ignore[arg-type]
    assert not await denied(approvals, sure, offer("none"))
    approvals.dismiss("one", "doer")
    assert not await denied(approvals, call, offer("none"))


async def test_a_client_is_its_own_agent_where_it_names_none() -> None:
    tables = {"desk": {"allow": {"invoke": ["*"]}, "agent": ""}}
    assert load_settings(None, {"clients": tables}).clients["desk"].agent == "desk"
    agents = {"client/desk": {"parameters": {"tools": {"approval": {"*": "deny"}}}}}
    approvals = Approvals(lambda name: [], load_settings(None, {"agents": agents}).agents)
    assert await denied(approvals, Request("notes.add", {}, caller="client/desk"), offer("none"))


async def test_what_a_clients_user_allowed_is_still_the_clients_call(tmp_path: Path) -> None:
    tables = host_tables(tmp_path, scribe=SCRIBE)
    tables["clients"] = {"desk": {"allow": {"invoke": ["scribe.*"]}, "elicit": True}}
    seen: list[Request] = []
    async with Host(load_settings(None, tables)) as host:
        invoke = host.broker.invoke

        def spy(request: Request) -> Any:
            seen.append(request)
            return invoke(request)

        host.broker.invoke = spy  # type: ignore[method-assign]
        asked = {"capability": "scribe.note", "arguments": {"text": "milk"}, "can_elicit": True}
        await Clients(host).call("desk", asked | {"approved": True})
    assert [(request.caller, request.approved) for request in seen] == [("client/desk", True)]
