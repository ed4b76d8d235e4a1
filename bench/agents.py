"""1,000 agents of one plugin, 10 events/s each: from mailbox to handler, and memory per agent."""

from __future__ import annotations

import asyncio
import importlib
import statistics
import tempfile
import time
from pathlib import Path

import psutil

from loom_host import Event, Host
from loom_host.discovery import code_hash

from .table import Row, row

AGENTS, RATE, SECONDS, ROUNDS = 1000, 10, 5, 5
STEP_S = 0.005
MODULE = "bench_agent_plugin"
MANIFEST = f"""
[plugin]
id = "bench/agent"
version = "1"
api = "1"
type = "agent"
tier = "native"
entry = "{MODULE}:Counter"
[[events.subscribes]]
topic = "room.*"
[permissions]
storage = true
[quotas]
concurrency = {AGENTS}
"""
CODE = """
import time
from loom_sdk import Agent, on_event

WAITED = []

class Counter(Agent):
    @on_event("room.*")
    async def heard(self, ctx, event):
        WAITED.append(time.perf_counter() - float(event.metadata["at"]))
        ctx.state["count"] = ctx.state.get("count", 0) + 1
"""


def make_host(folder: Path) -> Host:
    """With storage on disk, as for real."""
    plugin = folder / "plugins" / "agent"
    plugin.mkdir(parents=True)
    (plugin / "plugin.toml").write_text(MANIFEST)
    (plugin / f"{MODULE}.py").write_text(CODE)
    (folder / "loom.toml").touch()
    allow = {"subscribe": ["room.*"], "storage": True}
    agent = {"trusted": True, "code": code_hash(plugin), "allow": allow}
    places = {"plugin_paths": [str(plugin.parent)], "data_dir": str(folder / "data")}
    telemetry = {"sample_ratio": 0.0, "log_level": "error"}
    tables = {"host": places, "telemetry": telemetry, "plugins": {"agent": agent}}
    return Host.from_config(folder / "loom.toml", tables)


async def drive(host: Host, waited: list[float]) -> list[float]:
    """One round: publish at the rate; the seconds from publish to handler of each event."""
    waited.clear()
    total, sent, began = AGENTS * RATE * SECONDS, 0, time.perf_counter()
    while sent < total:
        due = min(total, int((time.perf_counter() - began) * AGENTS * RATE))
        for number in range(sent, due):
            event = Event("tick", metadata={"at": repr(time.perf_counter())})
            await host.bus.publish(f"room.{number % AGENTS}", event)
        sent = max(sent, due)
        await asyncio.sleep(STEP_S)
    while host.busy():  # noqa: ASYNC110  # it has no event
        await asyncio.sleep(STEP_S)
    return list(waited)


async def measure(folder: Path) -> tuple[list[float], list[float], float]:
    """p50 and p99 in ms by round, and KiB per agent."""
    async with make_host(folder) as host:
        await host.disable("agent", "the plugin itself shall not hear")
        before = psutil.Process().memory_info().rss
        await host.enable("agent")
        await host.agents.stop("agent")
        for number in range(AGENTS):
            name = f"a{number}"
            host.agents.create(name, "agent", subscribe=[f"room.{number}"])
            host.agents.start(name)
        waited = importlib.import_module(MODULE).WAITED
        middles, tails = [], []
        for _ in range(ROUNDS):
            found = await drive(host, waited)
            assert len(found) == AGENTS * RATE * SECONDS
            cuts = statistics.quantiles(found, n=100)
            middles.append(cuts[49] * 1000)
            tails.append(cuts[98] * 1000)
        waited.clear()
        memory = (psutil.Process().memory_info().rss - before) / 1024 / AGENTS
    return middles, tails, memory


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as root:
        middles, tails, memory = asyncio.run(measure(Path(root)))
    name = f"{AGENTS} agents, {RATE} events/s each, state kept"
    return [
        row(f"{name}: publish to handler p50", middles, "ms"),
        row(f"{name}: publish to handler p99", tails, "ms", target=20),
        row("memory per native agent, one plugin's code", [memory], "KiB"),
    ]
