"""Agents in a running host: mailbox, state, parameters, lifecycle, actions."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from loom_host import Event, Host, load_settings
from loom_host.bus import Subscription
from loom_sdk.errors import ConfigError, InvalidArguments

from .hosting import dead_letters, host_tables, next_of, until
from .support import ROOT

ALLOW: dict[str, Any] = {
    "provide": ["*"], "subscribe": ["chat.*", "alarm"], "publish": ["chatter"],
    "invoke": ["chatter.shout"], "storage": True,
}  # fmt: skip


def host_with(
    folder: Path, agents: Mapping[str, Any] | None = None, *, kept: bool = False, **chatter: Any
) -> Host:
    """A host with the test agent.

    Args:
        kept: whether storage is on disk, in `folder`.
    """
    tables = host_tables(folder, chatter={"allow": ALLOW, **chatter})
    tables["agents"] = {name: {"plugin": "chatter", **own} for name, own in (agents or {}).items()}
    if not kept:
        return Host(load_settings(None, tables))
    (folder / "loom.toml").touch()
    return Host.from_config(folder / "loom.toml", tables)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    """With two agents of one plugin that hear one room each."""
    agents = {
        "ann": {"subscribe": ["chat.ann"], "parameters": {"greeting": "hi"}},
        "bob": {"subscribe": ["chat.bob", "alarm"]},
    }
    async with host_with(tmp_path, agents) as running:
        yield running


async def say(host: Host, room: str, text: str, kind: str = "note", **fields: Any) -> int:
    return await host.bus.publish(f"chat.{room}", Event(kind, text.encode(), **fields))


async def heard(answers: Subscription, count: int = 1) -> list[dict[str, str]]:
    return [dict((await next_of(answers)).metadata) for _ in range(count)]


async def test_agents_of_one_plugin_have_parameters_and_state_of_their_own(host: Host) -> None:
    async with host.bus.subscribe("chatter") as answers:
        await say(host, "ann", "a")
        await say(host, "bob", "b")
        await say(host, "ann", "c")
        found = await heard(answers, 3)
    by_agent = sorted((a["agent"], a["greeting"], a["count"], a["version"]) for a in found)
    assert by_agent == [
        ("ann", "hi", "1", "0"),
        ("ann", "hi", "2", "1"),
        ("bob", "hello", "1", "0"),
    ]
    assert {a["agent"]: a["ephemeral"] for a in found} == {"ann": "2", "bob": "1"}


async def test_a_plugin_of_type_agent_without_a_table_is_one_agent(tmp_path: Path) -> None:
    async with host_with(tmp_path) as host:
        assert [(row["name"], row["origin"]) for row in host.agents.list()] == [
            ("chatter", "plugin")
        ]
        async with host.bus.subscribe("chatter") as answers:
            await say(host, "any", "a")
            assert (await heard(answers))[0]["agent"] == "chatter"


async def test_what_a_handler_that_raises_wrote_is_not_kept(host: Host) -> None:
    async with host.bus.subscribe("chatter") as answers, dead_letters(host.bus) as letters:
        await say(host, "ann", "first")
        await say(host, "ann", "torn", "torn")
        await say(host, "ann", "second")
        first, second = await heard(answers, 2)
        assert "half of it is missing" in (await next_of(letters)).metadata["reason"]
    assert (first["count"], second["count"], second["version"]) == ("1", "2", "1")
    await until(lambda: not host.busy())
    assert (await host.invoke("chatter.stored")).output == {"last/ann": "second"}


async def test_a_handler_reads_what_it_wrote_and_others_do_not_yet(host: Host) -> None:
    async with host.bus.subscribe("chatter") as answers:
        await say(host, "ann", "0.2", "slow")
        await until(lambda: host.plugins["chatter"].inflight)
        kept = host.agents._parts.pump.store.get(b"kv\0test/chatter\0last/ann")
        assert kept is None
        assert (await heard(answers))[0]["last"] == "0.2"
    await until(lambda: not host.busy())
    assert (await host.invoke("chatter.stored")).output == {"last/ann": "0.2"}


async def test_one_event_at_a_time_even_where_the_plugin_could_do_more(tmp_path: Path) -> None:
    async with (
        host_with(tmp_path, {"ann": {}, "bob": {}}, quotas={"concurrency": 8}) as host,
        host.bus.subscribe("chatter") as answers,
    ):
        for _ in range(3):
            await say(host, "x", "0.03", "slow")
        found = await heard(answers, 6)
    assert max(int(a["at_work"]) for a in found) == 2  # one of each agent
    for agent in ("ann", "bob"):
        assert [a["count"] for a in found if a["agent"] == agent] == ["1", "2", "3"]


async def test_higher_priority_overtakes_in_the_mailbox(host: Host) -> None:
    async with host.bus.subscribe("chatter") as answers:
        await say(host, "ann", "0.1", "slow")
        await until(lambda: host.plugins["chatter"].inflight)
        for text, priority in (("low", 10), ("high", 90), ("also high", 90)):
            await say(host, "ann", text, priority=priority)
        assert [a["last"] for a in await heard(answers, 4)] == ["0.1", "high", "also high", "low"]


async def test_a_full_mailbox_makes_publishers_wait_and_then_writes_dead_letters(
    tmp_path: Path,
) -> None:
    async with host_with(tmp_path, {"ann": {"mailbox": 2}}) as host:
        host.bus._wait_s = 0.05
        async with dead_letters(host.bus) as letters:
            await say(host, "x", "0.4", "slow")
            await until(lambda: host.plugins["chatter"].inflight)
            delivered = [await say(host, "x", str(number)) for number in range(3)]
            letter = await next_of(letters)
        assert (delivered, letter.metadata["reason"], letter.payload) == (
            [1, 1, 0], "publish_wait", b"2",
        )  # fmt: skip
        (stats,) = [s for s in host.bus.stats()["subscriptions"] if s["name"] == "ann:chat.*"]
        assert (stats["dropped"], stats["depth"], stats["matched"]) == ({"publish_wait": 1}, 2, 4)
        assert host.agents.list()[0]["waiting"] == 2


async def test_who_waits_for_a_full_mailbox_gets_in_whenever_there_is_room(tmp_path: Path) -> None:
    agents = {"ann": {"mailbox": 1}}
    async with host_with(tmp_path, agents) as host, host.bus.subscribe("chatter") as answers:
        for wave in ("a", "b"):  # between the two nobody waits
            await say(host, "x", "0.05", "slow")
            await until(lambda: host.plugins["chatter"].inflight)
            texts = [f"{wave}{number}" for number in range(4)]
            assert await asyncio.gather(*(say(host, "x", text) for text in texts)) == [1] * 4
            assert [a["last"] for a in await heard(answers, 5)] == ["0.05", *texts]


async def test_realtime_events_never_wait_and_the_oldest_are_dropped_and_counted(
    tmp_path: Path,
) -> None:
    async with host_with(tmp_path, {"ann": {"mailbox": 2}}) as host:
        await say(host, "x", "0.2", "slow")
        await until(lambda: host.plugins["chatter"].inflight)
        for number in range(5):
            await host.bus.publish("alarm", Event(str(number)))
        (stats,) = [s for s in host.bus.stats()["subscriptions"] if s["name"] == "ann:alarm"]
        assert (stats["dropped"], stats["depth"]) == ({"evicted": 3}, 2)


async def test_an_event_that_two_patterns_match_is_heard_once(tmp_path: Path) -> None:
    agents = {"ann": {"subscribe": ["chat.ann", "chat.*"]}}
    async with host_with(tmp_path, agents) as host, host.bus.subscribe("chatter") as answers:
        await say(host, "ann", "a")
        await say(host, "bob", "b")
        assert [a["count"] for a in await heard(answers, 2)] == ["1", "2"]


# -- lifecycle


async def test_nothing_is_done_to_an_agent_that_is_still_stopping(host: Host) -> None:
    host.agents.create("eve", "chatter", subscribe=["chat.eve"])
    host.agents.start("eve")
    await say(host, "eve", "0.2", "slow")
    await until(lambda: host.plugins["chatter"].inflight)
    stop = asyncio.create_task(host.agents.stop("eve"))
    await asyncio.sleep(0)
    for verb in (host.agents.start, host.agents.delete):
        with pytest.raises(InvalidArguments, match="eve is stopping"):
            verb("eve")
    assert (await stop)["state"] == "stopped"
    assert host.agents.delete("eve")["state"] == "deleted"


async def test_an_agent_is_created_started_stopped_and_deleted(host: Host) -> None:
    created = host.agents.create(
        "eve", "chatter", parameters={"greeting": "hey"}, subscribe=["chat.eve"]
    )
    assert (created["state"], created["hears"]) == ("created", [])
    assert await say(host, "eve", "too early") == 0
    assert host.agents.start("eve")["hears"] == ["chat.eve"]
    async with host.bus.subscribe("chatter") as answers:
        await say(host, "eve", "a")
        assert (await heard(answers))[0]["greeting"] == "hey"
        assert (await host.agents.stop("eve"))["state"] == "stopped"
        assert await say(host, "eve", "too late") == 0
        host.agents.start("eve")
        await say(host, "eve", "b")
        again = (await heard(answers))[0]
        assert (again["count"], again["ephemeral"]) == ("2", "1")
        await host.agents.stop("eve")
        assert host.agents.delete("eve")["state"] == "deleted"
        host.agents.create("eve", "chatter", subscribe=["chat.eve"])
        host.agents.start("eve")
        await say(host, "eve", "c")
        assert (await heard(answers))[0]["count"] == "1"


async def test_invalid_transitions_are_refused(host: Host) -> None:
    with pytest.raises(InvalidArguments, match="ann is running: to start it, it must be created"):
        host.agents.start("ann")
    with pytest.raises(InvalidArguments, match="ann is running: to delete it"):
        host.agents.delete("ann")
    host.agents.create("eve", "chatter")
    with pytest.raises(InvalidArguments, match="eve is created: to stop it, it must be running"):
        await host.agents.stop("eve")
    with pytest.raises(InvalidArguments, match=r"there is an agent eve \(created\)"):
        host.agents.create("eve", "chatter")
    with pytest.raises(InvalidArguments, match="no agent 'evee'; did you mean 'eve'"):
        host.agents.start("evee")
    with pytest.raises(InvalidArguments, match="no plugin 'chat' runs here"):
        host.agents.create("x", "chat")


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"parameters": {"greting": "x"}}, "unknown key 'greting'; did you mean 'greeting'"),
        ({"parameters": {"greeting": 1}}, r"parameters greeting: 1 is not of type"),
        ({"subscribe": ["query"]}, "test/chatter does not hear 'query'; it hears chat"),
        ({"subscribe": ["a..b"]}, "subscribe"),
        ({"mailbox": -1}, "must be finite and not negative"),
        ({"durable": "yes"}, "true or false"),
    ],
)
async def test_wrong_settings_are_told(tmp_path: Path, own: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        async with host_with(tmp_path, {"ann": own}):
            pass


async def test_created_agents_outlive_the_host(tmp_path: Path) -> None:
    async with host_with(tmp_path, {"ann": {}}, kept=True) as host:
        host.agents.create("eve", "chatter", subscribe=["chat.eve"])
        host.agents.start("eve")
        host.agents.create("idle", "chatter")
        async with host.bus.subscribe("chatter") as answers:
            await host.bus.publish("chat.eve", Event("note", b"a"))
            await heard(answers, 2)
    async with host_with(tmp_path, {"ann": {}}, kept=True) as host:
        rows = {row["name"]: row["state"] for row in host.agents.list()}
        assert rows == {"ann": "running", "eve": "running", "idle": "stopped"}
        async with host.bus.subscribe("chatter") as answers:
            await host.bus.publish("chat.eve", Event("note", b"b"))
            found = await heard(answers, 2)
    assert {(a["agent"], a["count"], a["ephemeral"]) for a in found} == {
        ("ann", "2", "1"), ("eve", "2", "1"),
    }  # fmt: skip


async def test_agents_come_back_with_a_plugin_that_was_disabled(host: Host) -> None:
    await host.disable("chatter", "a test")
    assert await say(host, "ann", "nobody") == 0
    await host.enable("chatter")
    async with host.bus.subscribe("chatter") as answers:
        await say(host, "ann", "a")
        assert (await heard(answers))[0]["agent"] == "ann"


async def test_a_swap_moves_the_agents(host: Host) -> None:
    await host.swap("chatter", config={"greeting": "good day"})
    async with host.bus.subscribe("chatter") as answers:
        await say(host, "ann", "a")
        await say(host, "bob", "b")
        found = {a["agent"]: a["greeting"] for a in await heard(answers, 2)}
    assert found == {"ann": "hi", "bob": "good day"}


# -- actions


async def test_actions_are_done_by_priority_and_told(host: Host) -> None:
    async with host.bus.subscribe("agent.ann") as results:
        await say(host, "ann", "go", "act")
        found = [await next_of(results) for _ in range(3)]
    said = [(e.type, e.metadata["status"], e.metadata["qos"], e.payload) for e in found]
    assert said == [
        ("action_result", "ok", "realtime", b'"GO90"'),
        ("action_result", "ok", "batched", b'"GO50"'),
        ("action_result", "ok", "background", b'"GO10"'),
    ]
    assert {e.metadata["action_type"] for e in found} == {"chatter.shout"}


async def test_a_failed_action_is_told_with_its_code(host: Host) -> None:
    async with host.bus.subscribe("agent.ann") as results:
        await say(host, "ann", "bad", "act")
        metadata = (await next_of(results)).metadata
    assert (metadata["status"], metadata["code"], metadata["message"]) == (
        "error", "HOARSE", "lost its voice",
    )  # fmt: skip


async def test_an_action_that_is_not_granted_fails_the_event(tmp_path: Path) -> None:
    allow = {**ALLOW, "invoke": []}
    host = host_with(tmp_path, {"ann": {}}, allow=allow)
    async with host, dead_letters(host.bus) as letters:
        await say(host, "x", "go", "act")
        reason = (await next_of(letters)).metadata["reason"]
    assert "may not invoke 'chatter.shout'" in reason


async def test_state_needs_the_grant_for_storage(tmp_path: Path) -> None:
    allow = {k: v for k, v in ALLOW.items() if k != "storage"}
    host = host_with(tmp_path, {"ann": {}}, allow=allow)
    async with host, dead_letters(host.bus) as letters:
        await host.bus.publish("alarm", Event("x"))
        reason = (await next_of(letters)).metadata["reason"]
    assert "may not use storage" in reason


async def test_a_thousand_agents_of_one_plugin(tmp_path: Path) -> None:
    names = [f"a{number}" for number in range(1000)]
    agents = {name: {"subscribe": [f"chat.{name}"]} for name in names}
    async with host_with(tmp_path, agents) as host, host.bus.subscribe("chatter") as answers:
        await asyncio.gather(*(say(host, name, name) for name in names))
        found = await heard(answers, 1000)
    assert {(a["agent"], a["last"], a["count"]) for a in found} == {(n, n, "1") for n in names}


def test_the_example_in_the_documents_runs(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "AGENTS.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", block],
        capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[b'1', b'2']\n"
