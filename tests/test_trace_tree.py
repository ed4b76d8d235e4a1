"""One trace through a real host: native plugins, a wasm guest and a grpc child, span by span."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from loom_host import Event, Host, load_settings
from loom_host.discovery import code_hash
from loom_host.telemetry import Span
from loom_sdk.errors import ActionFailed

from .hosting import host_tables, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIERS = {"ear": "native", "desk": "native", "guest": "wasm", "child": "grpc"}
MANIFEST = """
[plugin]
id = "test/NAME"
version = "1.0.0"
api = "1"
type = "agent"
tier = "TIER"
entry = "NAME_plugin:Worker"

[config]
asks = { type = "array", default = [] }
tells = { type = "string", default = "" }

[[capability]]
name = "NAME.work"

[[events.subscribes]]
topic = "for.NAME"

[events]
publishes = ["for.*"]

[permissions]
invoke = ["*.work"]

[quotas]
memory = "96MiB"
concurrency = 8
"""
SOURCE = """
from loom_sdk import Context, Event, Plugin, capability, on_event


class Worker(Plugin):
    def work_on(self, ctx: Context, task: str, then: list[str]) -> list[str]:
        with ctx.span("NAME thinks", task=task):
            ctx.log(f"NAME thinks of {task}", task=task)
            if task == "trouble":
                raise ValueError("NAME cannot think of that")
        if not then:
            return ["NAME"]
        return ["NAME", *ctx.invoke(then[0], {"task": task, "then": then[1:]}).output]

    @capability("NAME.work")
    def work(self, ctx: Context, task: str, then: list[str]) -> list[str]:
        return self.work_on(ctx, task, then)

    @on_event("for.NAME")
    def heard(self, ctx: Context, event: Event) -> None:
        task = event.metadata["task"]
        for chain in self.config["asks"]:
            self.work_on(ctx, task, chain)
        for topic in filter(None, self.config["tells"].split()):
            ctx.publish(topic, "told", metadata={"task": task})
        self.work_on(ctx, task, [])
"""
CHAINS = [["guest.work", "child.work", "desk.work"], ["child.work", "guest.work", "desk.work"]]
CONFIG: dict[str, dict[str, Any]] = {
    "ear": {"asks": CHAINS, "tells": "for.guest for.child"},
    "guest": {"asks": [["child.work"]]},
    "child": {"asks": [["guest.work"]]},
}
TREE = """
publish for.ear
  handle for.ear @ear
    ear thinks @ear
    ear thinks @ear
    ear thinks @ear
    invoke child.work @child
      child thinks @child
      invoke guest.work @guest
        guest thinks @guest
        invoke desk.work @desk
          desk thinks @desk
    invoke guest.work @guest
      guest thinks @guest
      invoke child.work @child
        child thinks @child
        invoke desk.work @desk
          desk thinks @desk
    publish for.child
      handle for.child @child
        child thinks @child
        child thinks @child
        invoke guest.work @guest
          guest thinks @guest
    publish for.guest
      handle for.guest @guest
        guest thinks @guest
        guest thinks @guest
        invoke child.work @child
          child thinks @child
"""


def lay_out(folder: Path) -> None:
    """The same plugin four times, under four names and in three tiers."""
    for name, tier in TIERS.items():
        own = folder / name
        own.mkdir(parents=True)
        (own / "plugin.toml").write_text(MANIFEST.replace("NAME", name).replace("TIER", tier))
        (own / f"{name}_plugin.py").write_text(SOURCE.replace("NAME", name))


def host_over(folder: Path, sample_ratio: float = 1.0) -> Host:
    lay_out(folder / "plugins")
    tables = host_tables(folder)
    del tables["host"]["cache_dir"]  # the guest is built once for all runs
    tables["host"]["plugin_paths"] = [str(folder / "plugins")]
    tables["telemetry"] = {"log_level": "info", "sample_ratio": sample_ratio}
    for name in TIERS:
        tables["plugins"][name] = {
            "trusted": True,
            "code": code_hash(folder / "plugins" / name),
            "config": CONFIG.get(name, {}),
            "allow": {
                "provide": [f"{name}.work"],
                "subscribe": [f"for.{name}"],
                "publish": ["for.*"],
                "invoke": ["*.work"],
            },
        }
    return Host(load_settings(None, tables))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Host]:
    async with host_over(tmp_path_factory.mktemp("traced")) as running:
        assert {h.name: h.spec.tier for h in running.plugins.values()} == TIERS
        assert [h.explain() for h in running.plugins.values() if h.state != "ready"] == []
        yield running


async def utter(host: Host, task: str) -> Span:
    """Publish one event below a root of its own, and wait until nothing more comes of it."""
    with host.telemetry.tracer.start("utterance", attributes={"task": task}) as root:
        event = Event("spoken", metadata={"task": task}, traceparent=root.traceparent)
        await host.bus.publish("for.ear", event)
    return root


async def spans_of(host: Host, root: Span) -> list[Span]:
    """The trace, once its every handler has ended."""

    def ended() -> bool:
        names = [s.name for s in host.telemetry.tracer.finished(root.trace_id)]
        return {"handle for.ear", "handle for.guest", "handle for.child"} <= set(names)

    await until(ended, 30)
    return host.telemetry.tracer.finished(root.trace_id)


def drawn(spans: list[Span], parent: str, depth: int = 0) -> list[str]:
    """What is below a span, as text with the plugins' names; siblings by name, since a child's
    clock is not the host's."""
    lines = []
    for span in sorted(spans, key=lambda s: s.name):
        if span.parent_id == parent:
            who = f" @{span.attributes['plugin']}" if "plugin" in span.attributes else ""
            lines.append("  " * depth + span.name + who)
            lines += drawn(spans, span.span_id, depth + 1)
    return lines


async def test_every_tiers_own_spans_and_nested_calls_are_below_the_call(host: Host) -> None:
    root = await utter(host, "sums")
    spans = await spans_of(host, root)
    assert drawn(spans, root.span_id) == TREE.strip().splitlines()
    assert [span.name for span in spans if not span.parent_id] == ["utterance"]


async def test_a_span_lies_in_the_time_of_its_parent(host: Host) -> None:
    root = await utter(host, "times")
    spans = {span.span_id: span for span in await spans_of(host, root)}
    below = [s for s in spans.values() if s.name.startswith(("invoke", "publish for.guest"))]
    own = [s for s in spans.values() if s.name.endswith("thinks")]
    assert len(own) == TREE.count("thinks")
    for span in below + own:
        parent = spans[span.parent_id]
        assert parent.start_ns <= span.start_ns <= span.end_ns <= parent.end_ns, span.name
    assert all(span.attributes["task"] == "times" for span in own)


async def test_two_utterances_at_once_are_two_traces(host: Host) -> None:
    first, second = await asyncio.gather(utter(host, "one"), utter(host, "two"))
    assert first.trace_id != second.trace_id
    for root, task in ((first, "one"), (second, "two")):
        spans = await spans_of(host, root)
        assert drawn(spans, root.span_id) == TREE.strip().splitlines()
        assert {s.attributes["task"] for s in spans if "task" in s.attributes} == {task}


async def test_every_tiers_log_lines_name_the_call_they_belong_to(host: Host) -> None:
    root = await utter(host, "lines")
    spans = {span.span_id: span for span in await spans_of(host, root)}
    assert host.telemetry.logs is not None
    found = []
    for name in TIERS:
        for entry in host.telemetry.logs.recent(name, 1000):
            if entry["message"] == f"{name} thinks of lines":
                assert entry["trace_id"] == root.trace_id
                assert entry["extra"] == {"attributes": {"task": "lines"}}
                call = spans[entry["span_id"]]
                assert call.attributes["plugin"] == name
                found.append((name, call.name))
    own = [s for s in spans.values() if s.name.endswith("thinks")]
    expected = [(str(s.attributes["plugin"]), spans[s.parent_id].name) for s in own]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("name", TIERS)
async def test_a_failure_is_told_by_the_plugins_own_span_and_by_the_call(
    name: str, host: Host
) -> None:
    with host.telemetry.tracer.start("failing") as root, pytest.raises(ActionFailed):
        arguments = {"task": "trouble", "then": []}
        await host.invoke(f"{name}.work", arguments, traceparent=root.traceparent)
    spans = {span.name: span for span in host.telemetry.tracer.finished(root.trace_id)}
    call, own = spans[f"invoke {name}.work"], spans[f"{name} thinks"]
    assert (own.parent_id, own.error) == (call.span_id, "ValueError")
    assert f"{name} cannot think of that" in call.error
    assert call.attributes["tier"] == TIERS[name]


async def test_an_unsampled_trace_leaves_no_span_in_any_tier_but_its_id_in_the_logs(
    tmp_path: Path,
) -> None:
    async with host_over(tmp_path, sample_ratio=0.0) as host:
        root = await utter(host, "quiet")
        assert not root.sampled
        await until(lambda: host.plugins["guest"].counters.events, 30)
        await until(lambda: host.plugins["child"].counters.events, 30)
        await until(lambda: not host.busy(), 30)
        assert host.telemetry.tracer.finished() == []
        assert host.telemetry.logs is not None
        trace_id = root.traceparent.split("-")[1]
        for name in TIERS:
            entries = host.telemetry.logs.recent(name, 1000)
            told = [e for e in entries if e["message"] == f"{name} thinks of quiet"]
            assert told
            assert {entry["trace_id"] for entry in told} == {trace_id}
