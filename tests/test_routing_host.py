"""Routing, hybrid and failover of a whole host over real native plugins, one local, one cloud."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from loom_host import Host, load_settings
from loom_host.discovery import code_hash
from loom_host.status import plugin_rows
from loom_sdk.errors import ActionFailed, DeadlineExceeded, NoProvider

from .hosting import next_of, until

MANIFEST = """
[plugin]
id = "test/{name}"
version = "1"
api = "1"
type = "model_backend"
tier = "native"
entry = "{name}_of_routing:Answers"

[[capability]]
name = "answer.give"
effects = "none"

[[capability]]
name = "answer.stream"
effects = "none"

[[capability]]
name = "answer.once"
effects = "once"

[permissions]
network = {network}

[quotas]
concurrency = 4
"""
CODE = """
import asyncio

from loom_sdk import Plugin, capability
from loom_sdk.errors import ActionFailed

class Answers(Plugin):
    name = "{name}"

    async def start(self, ctx):
        self.done = 0

    async def _do(self, plan):
        how = dict(part.split("=") for part in plan.split()).get(self.name, "")
        if how == "fail":
            raise ActionFailed("no idea", code="NO_IDEA")
        await asyncio.sleep({{"late": 0.4, "hang": 30.0}}.get(how, 0.0))
        self.done += 1
        return {{"by": self.name, "done": self.done}}

    @capability("answer.give", effects="none")
    async def give(self, ctx, plan: str = "") -> dict:
        return await self._do(plan)

    @capability("answer.once", effects="once")
    async def once(self, ctx, plan: str = "") -> dict:
        return await self._do(plan)

    @capability("answer.stream", effects="none")
    async def stream(self, ctx, plan: str = "") -> dict:
        answer = await self._do(plan)
        for word in ("one", "two"):
            await ctx.emit(f"{{self.name}} {{word}}")
        return answer
"""
HYBRID = "Hybrid: local quick + cloud refine"


CONFIG = """
[host]
plugin_paths = ["plugins"]
data_dir = "data"
runtime_dir = "run"
stop_grace_ms = 500

[telemetry]
log_level = "error"

[plugins.near]
trusted = true
code = "{near}"
quality = {quality}
allow = {{ provide = ["answer.*"] }}

[plugins.far]
trusted = true
code = "{far}"
quality = {quality}
cost = 0.002
allow = {{ provide = ["answer.*"], network = ["https://far.test"] }}

[providers]
"answer.give" = ["near", "far"]
"answer.stream" = ["near", "far"]
"answer.once" = ["near", "far"]

[agents.voice]

[agents.hermit.parameters.routing]
privacy = "local-only"

[agents.calm.parameters.routing]
latency_budget_ms = 5000

[routing]
open_s = 0.3
first_item_ms = 100
"""


def write_config(folder: Path, quality: float = 0.7) -> Path:
    """A loom.toml with the plugins `near` (local) and `far` (cloud) beside it."""
    hashes = {}
    for name, network in (("near", "[]"), ("far", '["https://far.test"]')):
        own = folder / "plugins" / name
        own.mkdir(parents=True)
        (own / "plugin.toml").write_text(MANIFEST.format(name=name, network=network))
        (own / f"{name}_of_routing.py").write_text(CODE.format(name=name))
        hashes[name] = code_hash(own)
    path = folder / "loom.toml"
    path.write_text(CONFIG.format(quality=quality, **hashes))
    return path


@asynccontextmanager
async def host_of(folder: Path, quality: float = 0.7) -> AsyncIterator[Host]:
    async with Host(load_settings(write_config(folder, quality))) as host:
        yield host


async def give(host: Host, plan: str = "", agent: str = "voice", verb: str = "give") -> str:
    result = await host.invoke(f"answer.{verb}", {"plan": plan}, agent=agent)
    return str(result.output["by"])


async def test_hybrid_answers_with_the_refined_pass_or_in_time_with_the_quick_one(
    tmp_path: Path,
) -> None:
    async with host_of(tmp_path) as host:
        heard = host.bus.subscribe("agent.voice")
        assert await give(host, "far=late") == "near"
        events = [await next_of(heard) for _ in range(3)]
        assert [e.metadata.get("phase", e.type) for e in events] == [
            "routing_decision",
            "quick",
            "refine",
        ]
        assert {e.metadata["routing_reason"] for e in events[1:]} == {HYBRID}
        assert [json.loads(e.payload)["by"] for e in events[1:]] == ["near", "far"]
        assert await give(host, agent="calm") == "far"
        assert await give(host, "far=late", agent="hermit") == "near"


async def test_a_stream_is_the_quick_one_and_the_refined_answer_comes_as_event(
    tmp_path: Path,
) -> None:
    async with host_of(tmp_path) as host:
        heard = host.bus.subscribe("loom.routing", types=("action_result",))
        items = [item.output async for item in host.stream("answer.stream", {"plan": "far=late"})]
        assert items[:2] == ["near one", "near two"]
        told = [await next_of(heard) for _ in range(2)]
        assert [e.metadata["routing_target"] for e in told] == ["local", "cloud"]
        assert json.loads(told[1].payload)["by"] == "far"


async def test_what_has_effects_runs_once(tmp_path: Path) -> None:
    async with host_of(tmp_path) as host:
        answers = [await host.invoke("answer.once", {}, agent="calm") for _ in range(2)]
        assert [a.output for a in answers] == [{"by": "far", "done": n} for n in (1, 2)]
        with pytest.raises(ActionFailed):
            await give(host, "far=fail", verb="once")
        near = await host.invoke("answer.once", {}, agent="hermit")
        assert near.output == {"by": "near", "done": 1}


async def test_a_stalled_stream_goes_to_the_next_provider_and_stays_there_until_a_probe(
    tmp_path: Path,
) -> None:
    async with host_of(tmp_path, quality=0.9) as host:
        heard = host.bus.subscribe("loom.failover")

        async def stream(plan: str) -> str:
            found = [item.output async for item in host.stream("answer.stream", {"plan": plan})]
            return str(found[0]).split()[0]

        async with asyncio.timeout(3):
            assert await stream("near=hang") == "far"
        assert [(await next_of(heard)).type for _ in range(2)] == [
            "circuit.open",
            "provider.switch",
        ]
        rows = {row["name"]: row for row in plugin_rows(host)}
        assert (rows["near"]["circuit"], rows["far"]["circuit"]) == ("open", "closed")
        assert "near gave no item within 100 ms" in rows["near"]["circuit_reason"]
        assert await stream("") == "far"
        await asyncio.sleep(0.3)
        assert await stream("") == "near", "the probe"
        assert host.plugins["near"].circuit.state == "closed"


async def test_errors_that_the_other_did_not_have_lower_confidence(tmp_path: Path) -> None:
    async with host_of(tmp_path, quality=0.9) as host:
        assert host.broker.route("answer.give").route == "Local"
        assert await give(host, "near=fail") == "far"
        decision = host.broker.route("answer.give")
        assert decision.route == "Hybrid"
        assert decision.confidence == pytest.approx(0.72, abs=0.01)
        assert host.broker.route("answer.stream").route == "Local"


async def test_privacy_leaves_a_failing_local_provider_alone(tmp_path: Path) -> None:
    async with host_of(tmp_path) as host:
        with pytest.raises(ActionFailed, match="no idea"):
            await give(host, "near=fail", agent="hermit")
        await host.disable("near", "for the test")
        heard = host.bus.subscribe("agent.hermit")
        with pytest.raises(NoProvider, match=r"\(far: cloud\)"):
            await give(host, agent="hermit")
        told = (await next_of(heard)).metadata
        assert (told["route"], told["capability"]) == ("Drop", "answer.give")
        assert await give(host) == "far"


async def test_a_late_pass_ends_with_the_host(tmp_path: Path) -> None:
    async with host_of(tmp_path) as host:
        assert await give(host, "far=hang") == "near"
        await until(lambda: host.plugins["far"].inflight)
    assert not host.plugins["far"].inflight


async def test_a_deadline_ends_both_passes(tmp_path: Path) -> None:
    async with host_of(tmp_path) as host:
        with pytest.raises(DeadlineExceeded):
            await host.invoke("answer.give", {"plan": "near=hang far=hang"}, timeout_ms=300)
        await until(lambda: not any(h.inflight for h in host.plugins.values()))
