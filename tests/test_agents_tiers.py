"""The same agent, byte for byte, passes the same test in every tier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loom_host import Event, Host

from .durable_host import state_of
from .hosting import dead_letters, host_tables, next_of, until
from .test_agents import ALLOW, heard, say

AGENTS: dict[str, Any] = {
    "ann": {"plugin": "chatter", "durable": True, "subscribe": ["chat.*"]},
    "bob": {
        "plugin": "chatter", "subscribe": ["chat.bob", "alarm"], "parameters": {"greeting": "hi"},
    },
}  # fmt: skip


def host_in(tier: str, folder: Path) -> Host:
    """A host whose storage is kept, with two agents of one plugin."""
    tables = host_tables(folder, chatter={"tier": tier, "allow": ALLOW})
    del tables["host"]["cache_dir"]  # a guest is built once for all tests
    tables["agents"] = AGENTS
    (folder / "loom.toml").touch()
    return Host.from_config(folder / "loom.toml", tables)


@pytest.mark.parametrize("tier", ["native", pytest.param("wasm", marks=pytest.mark.soak), "grpc"])
async def test_an_agent_keeps_its_state_in_every_tier(tier: str, tmp_path: Path) -> None:
    async with host_in(tier, tmp_path) as host:
        assert host.plugins["chatter"].spec.tier == tier
        async with host.bus.subscribe("chatter") as answers, dead_letters(host.bus) as letters:
            await say(host, "ann", "a")
            await say(host, "bob", "b")  # both hear it
            found = await heard(answers, 3)
            await say(host, "ann", "torn", "torn")
            assert "half of it" in (await next_of(letters, 30)).metadata["reason"]
            await host.bus.publish("alarm", Event("fire"))
            await say(host, "ann", "c")
            found += [a for a in await heard(answers, 2) if "count" in a]
        await until(lambda: not host.busy())
        stored = (await host.invoke("chatter.stored")).output
    by_agent = sorted((a["agent"], a["last"], a["count"], a["version"]) for a in found)
    assert by_agent == [
        ("ann", "a", "1", "0"), ("ann", "b", "2", "1"), ("ann", "c", "3", "2"),
        ("bob", "b", "1", "0"),
    ]  # fmt: skip
    assert {(a["agent"], a["greeting"]) for a in found} == {("ann", "hello"), ("bob", "hi")}
    assert stored == {"last/ann": "c", "last/bob": "b"}
    async with host_in(tier, tmp_path) as host:  # what is ephemeral is gone, the state is not
        async with host.bus.subscribe("chatter") as answers:
            await say(host, "ann", "d")
            (last,) = await heard(answers)
        assert (last["count"], last["version"], last["ephemeral"]) == ("4", "3", "1")
        await until(lambda: not host.busy())
        assert state_of(host, "ann")["said"] == ["a", "b", "c", "d"]
        assert state_of(host, "bob")["alarms"] == 1
        async with host.bus.subscribe("agent.ann") as results:
            await say(host, "ann", "go", "act")
            done = [(await next_of(results)).metadata["qos"] for _ in range(3)]
        assert done == ["realtime", "batched", "background"]
