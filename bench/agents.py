"""1,000 agents of one plugin, 10 events/s each: from publish to handler, and from when an event
was due; memory per agent. Where the host is slower than the rate the second grows.
"""

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

AGENTS, RATE, SECONDS, ROUNDS = 1000, 10, 3, 5
STEP_S = 0.005
KINDS = {"tick": "", "keep": ", state kept after each"}
MEASURED = tuple(
    f"{since} to handler: {part}" for since in ("publish", "due") for part in ("p50", "p99")
)
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
        now = time.perf_counter()
        WAITED.append((now - float(event.metadata["at"]), now - float(event.metadata["due"])))
        ctx.ephemeral["count"] = ctx.ephemeral.get("count", 0) + 1
        if event.type == "keep":
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


async def drive(host: Host, waited: list[tuple[float, float]], kind: str) -> list[float]:
    """One round at the rate: p50 and p99 of ms since the publish, and since each was due."""
    waited.clear()
    total, sent, began = AGENTS * RATE * SECONDS, 0, time.perf_counter()
    while sent < total:
        due = min(total, int((time.perf_counter() - began) * AGENTS * RATE))
        for number in range(sent, due):
            stamps = {"at": time.perf_counter(), "due": began + number / (AGENTS * RATE)}
            event = Event(kind, metadata={name: repr(at) for name, at in stamps.items()})
            await host.bus.publish(f"room.{number % AGENTS}", event)
        sent = max(sent, due)
        await asyncio.sleep(STEP_S)
    while host.busy():  # noqa: ASYNC110  # it has no event
        await asyncio.sleep(STEP_S)
    assert len(waited) == total
    cuts = [statistics.quantiles(since, n=100) for since in zip(*waited, strict=True)]
    return [cut[place] * 1000 for cut in cuts for place in (49, 98)]


async def measure(folder: Path) -> tuple[dict[str, list[list[float]]], float]:
    """By kind of event what `drive` gives of each round, and KiB per agent."""
    async with make_host(folder) as host:
        await host.agents.stop("agent")
        before = psutil.Process().memory_info().rss
        for number in range(AGENTS):
            name = f"a{number}"
            host.agents.create(name, "agent", subscribe=[f"room.{number}"])
            host.agents.start(name)
        waited = importlib.import_module(MODULE).WAITED
        await drive(host, waited, "tick")  # every agent has had events when the memory is read
        waited.clear()
        memory = (psutil.Process().memory_info().rss - before) / 1024 / AGENTS
        found = {k: [await drive(host, waited, k) for _ in range(ROUNDS)] for k in KINDS}
    return found, memory


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as root:
        found, memory = asyncio.run(measure(Path(root)))
    table = []
    for kind, what in KINDS.items():
        name = f"{AGENTS} agents, {RATE} events/s each{what}"
        for number, measured in enumerate(MEASURED):
            values = [one[number] for one in found[kind]]
            target = 20 if measured == "publish to handler: p99" else None
            table.append(row(f"{name}, {measured}", values, "ms", target=target))
    return [*table, row("memory per native agent of one plugin", [memory], "KiB")]
