"""Durable agents: what was published is handled, whatever happens to plugin or host in between."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from loom_host import Event
from loom_host.agent_check import check_agent
from loom_host.agents.journal import Journal
from loom_host.manifest import load_manifest
from loom_host.settings import AgentSettings
from loom_host.storage import Batch, MemoryStore, agent_prefix
from loom_sdk.errors import ConfigError

from .durable_host import state_of
from .hosting import PLUGINS, dead_letters, next_of, until
from .support import ROOT
from .test_agents import heard, host_with, say

DURABLE = {"ann": {"durable": True}}


# -- the log


def test_the_log_goes_on_with_its_numbers_in_the_next_life() -> None:
    store = MemoryStore()
    journal = Journal(store, "ann")
    assert journal.load() == []
    events = [Event(str(number)) for number in range(3)]
    assert [journal.append(event) for event in events] == [1, 2, 3]
    for number in (1, 2):
        journal.drop(number)
    again = Journal(store, "ann")
    assert again.load() == [(3, events[2])]
    batch = Batch()
    again.settle(batch, 3)
    store.write(batch)
    empty = Journal(store, "ann")
    assert empty.load() == []
    assert empty.append(events[0]) == 4


# -- in one host's life


async def test_what_is_forgotten_leaves_the_logs_of_agents_too(tmp_path: Path) -> None:
    async with host_with(tmp_path, DURABLE, kept=True) as host:
        await say(host, "x", "0.3", "slow")
        for user in ("ann", "bob", "ann"):
            await host.bus.publish("chat.x", Event("say", b"hello", {"user": user}))
        answer = await host.invoke("loom.forget", {"metadata": {"user": "ann"}})
        assert answer.output == {"events": 2}
        logged = [key for key, _ in host.store.scan(agent_prefix("ann")) if b"/log/" in key]
        assert len(logged) == 2
        await until(lambda: not host.busy())
        assert state_of(host, "ann")["said"] == ["0.3", "hello", "hello", "hello"]  # of the mailbox


async def test_with_fsync_a_publisher_waits_until_the_disk_has_its_event(tmp_path: Path) -> None:
    async with host_with(tmp_path, DURABLE, kept=True) as host:
        settled = asyncio.Event()
        host.bus.settle = settled.wait
        publish = asyncio.create_task(say(host, "x", "a"))
        await asyncio.sleep(0.05)
        assert not publish.done()
        assert await host.bus.publish("nobody", Event("e")) == 0  # which no log took
        settled.set()
        assert await publish == 1


async def test_events_are_in_the_log_before_publish_returns(tmp_path: Path) -> None:
    async with host_with(tmp_path, DURABLE, kept=True) as host:
        await say(host, "x", "0.2", "slow")
        await say(host, "x", "b")
        logged = [key for key, _ in host.store.scan(agent_prefix("ann")) if b"/log/" in key]
        assert len(logged) == 2
        await until(lambda: not host.busy())
        assert [key for key, _ in host.store.scan(agent_prefix("ann")) if b"/log/" in key] == []
        assert state_of(host, "ann")["said"] == ["0.2", "b"]


async def test_what_was_not_handled_waits_for_the_next_start(tmp_path: Path) -> None:
    async with host_with(tmp_path, DURABLE, kept=True) as host:
        await say(host, "x", "3", "slow")
        await until(lambda: host.plugins["chatter"].inflight)
        for text in "abc":
            await say(host, "x", text)
    async with host_with(tmp_path, DURABLE, kept=True) as host:
        async with host.bus.subscribe("chatter") as answers:
            await say(host, "x", "d")
            found = await heard(answers, 5)
        assert [a["last"] for a in found] == ["3", "a", "b", "c", "d"]
        assert [a["attempt"] for a in found] == ["2", "1", "1", "1", "1"]
        await until(lambda: not host.busy())
        assert state_of(host, "ann")["said"] == ["3", "a", "b", "c", "d"]


async def test_an_event_in_the_hand_of_a_plugin_that_fails_for_good_stays_in_the_log(
    tmp_path: Path,
) -> None:
    options: dict[str, Any] = {"kept": True, "tier": "grpc", "restarts": 0, "sandbox": "none"}
    async with host_with(tmp_path, DURABLE, **options) as host:
        chatter = host.plugins["chatter"]
        await say(host, "x", "2", "slow")
        await until(lambda: chatter.inflight)
        instance: Any = chatter.instance
        os.kill(instance.child.pid, signal.SIGKILL)
        await until(lambda: chatter.state == "failed")
        await say(host, "x", "b")
        await asyncio.sleep(0.3)
    async with host_with(tmp_path, DURABLE, **options) as host:
        await until(lambda: not host.busy(), 10)
        assert state_of(host, "ann")["said"] == ["2", "b"]


async def test_a_durable_agent_keeps_its_log_while_it_is_stopped(tmp_path: Path) -> None:
    async with host_with(tmp_path, DURABLE, kept=True) as host:
        await say(host, "x", "0.2", "slow")
        await until(lambda: host.plugins["chatter"].inflight)
        await say(host, "x", "b")
        await host.agents.stop("ann")
        host.agents.start("ann")
        await until(lambda: not host.busy())
        assert state_of(host, "ann")["said"] == ["0.2", "b"]


async def test_a_failed_event_is_a_dead_letter_once_and_leaves_the_log(tmp_path: Path) -> None:
    async with host_with(tmp_path, DURABLE, kept=True) as host:
        async with dead_letters(host.bus) as letters:
            await say(host, "x", "torn", "torn")
            assert (await next_of(letters)).payload == b"torn"
        await say(host, "x", "b")
        await until(lambda: not host.busy())
    async with host_with(tmp_path, DURABLE, kept=True) as host:
        await until(lambda: not host.busy())
        state = state_of(host, "ann")
        assert (state["said"], state["version"]) == (["b"], 1)


async def test_delete_removes_state_and_log(tmp_path: Path) -> None:
    async with host_with(tmp_path, DURABLE, kept=True) as host:
        await say(host, "x", "a")
        await until(lambda: not host.busy())
        await host.agents.stop("ann")
        assert list(host.store.scan(agent_prefix("ann")))
        host.agents.delete("ann")
        assert list(host.store.scan(agent_prefix("ann"))) == []


def test_a_plugin_that_takes_several_events_at_once_cannot_be_durable() -> None:
    voice = load_manifest(ROOT / "plugins" / "native" / "voice-agent" / "plugin.toml")
    check_agent("voice", AgentSettings("voice-agent"), voice)
    with pytest.raises(ConfigError, match="concurrency above 1"):
        check_agent("voice", AgentSettings("voice-agent", durable=True), voice)


# -- killed hosts


class Conversation:
    """Numbers that are said to an agent, through as many hosts as it takes."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self.taken: list[int] = []
        """Numbers whose publish returned."""
        self.state: dict[str, Any] = {}

    @property
    def next(self) -> int:
        return self.taken[-1] + 1 if self.taken else 0

    def go_on(self, kill_after: int | None, pause_s: float) -> None:
        """In a host of its own, to its end or killed so long after so many publishes."""
        arguments = [str(self.folder), str(self.next), str(self.count)]
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.durable_host", *arguments],
            stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert child.stdout is not None
        began = len(self.taken)
        for line in child.stdout:
            self._note(line)
            if kill_after is not None and len(self.taken) - began >= kill_after:
                time.sleep(pause_s)
                child.send_signal(signal.SIGKILL)
                kill_after = None
        child.stdout.close()
        child.wait(timeout=30)

    def _note(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "taken" and rest.endswith("\n"):
            self.taken.append(int(rest))
        elif word == "state" and rest.endswith("\n"):
            self.state = json.loads(rest)


def chain_of(texts: list[str]) -> str:
    """What an uninterrupted run leaves."""
    spec = importlib.util.spec_from_file_location(
        "chatter_link", PLUGINS / "chatter" / "chatter_plugin.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    chain = ""
    for text in texts:
        chain = module.link(chain, text)
    return chain


def check_survives(folder: Path, kills: int, count: int) -> None:
    rng = random.Random(kills)
    talk = Conversation(folder, count)
    for number in range(kills):
        room = max(1, (count - talk.next) // (kills - number + 1))
        talk.go_on(rng.randint(1, room), rng.random() * 0.02)
        assert talk.state == {}
    talk.go_on(None, 0)
    said = talk.state["said"]
    # A number whose publish was cut short may have been taken: its publisher says it again.
    assert talk.taken == list(range(count))
    once = [text for place, text in enumerate(said) if place == 0 or said[place - 1] != text]
    assert once == [str(number) for number in range(count)]
    assert len(said) - count <= kills
    assert talk.state["count"] == talk.state["version"] == len(said)
    assert talk.state["chain"] == chain_of(said)


def test_a_durable_agent_goes_on_after_its_last_handled_event_when_the_host_is_killed(
    tmp_path: Path,
) -> None:
    check_survives(tmp_path, kills=3, count=150)


@pytest.mark.slow
def test_a_durable_agent_survives_twenty_kills(tmp_path: Path) -> None:
    check_survives(tmp_path, kills=20, count=1000)
