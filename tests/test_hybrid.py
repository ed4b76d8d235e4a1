"""Hybrid: two passes at once, one answer, two events. Over the fake tier."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from loom_host.bus import Subscription
from loom_host.circuit import CLOSED, OPEN
from loom_host.dispatch import Request
from loom_host.manifest import Permissions
from loom_host.runtimes.fake import Serve
from loom_host.settings import PluginSettings, Policy, RoutingSettings
from loom_sdk import Call, Event, Item, Result
from loom_sdk.calls import Effects
from loom_sdk.errors import ActionFailed, PluginUnhealthy
from loom_sdk.port import AsyncPort

from .hosting import Rig, answering, failing, handle_of, next_of, offers, until

WAY_OUT = Permissions(network=("https://far.test",))
NO = ActionFailed("no", code="X")
WIDE = Policy(latency_budget_ms=2000)
SHORT = Policy(latency_budget_ms=100)


class Held:
    """Serves when it is let go."""

    def __init__(self, output: Any, error: Exception | None = None) -> None:
        self.go = asyncio.Event()
        self.output, self.error = output, error
        self.calls = self.ended = self.cancelled = 0

    async def __call__(self, call: Call, services: AsyncPort) -> Result:
        self.calls += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.ended += 1
        if self.error:
            raise self.error
        return Result(self.output)


def two(near: Serve, far: Serve, effects: Effects = "none", **policies: Policy) -> Rig:
    """`near` in the machine, `far` in the cloud, of qualities that make the route Hybrid."""
    offer = offers("x.do", effects)
    return Rig(
        handle_of("near", offer, settings=PluginSettings(quality=0.7)),
        handle_of("far", offer, settings=PluginSettings(quality=0.95), permissions=WAY_OUT),
        serve={"near": {"x.do": near}, "far": {"x.do": far}},
        providers={"x.do": ("near", "far")},
        policies={"wide": WIDE, "short": SHORT, **policies},
        routing=RoutingSettings(failures=1, first_item_ms=300),
    )


async def phases(subscription: Subscription, count: int = 2) -> dict[str, Event]:
    found = [await next_of(subscription) for _ in range(count)]
    return {event.metadata["phase"]: event for event in found}


async def test_both_passes_run_at_once_and_the_refined_answer_is_the_callers() -> None:
    near, far = Held("quick"), Held("refined")
    async with two(near, far) as rig:
        call = asyncio.create_task(rig.invoke("x.do", agent="wide"))
        await until(lambda: near.calls and far.calls)
        near.go.set()
        await until(lambda: near.ended)
        assert not call.done(), "the budget is not over"
        far.go.set()
        result = await call
        assert (result.output, result.provider) == ("refined", "far")
        assert (near.calls, far.calls) == (1, 1)
        assert rig.routes == [("Hybrid", "Hybrid: local quick + cloud refine")]


async def test_a_late_refined_answer_is_not_waited_for_and_still_published() -> None:
    far = Held("refined")
    async with two(answering("quick"), far) as rig:
        heard = rig.bus.subscribe("agent.short", types=("action_result",))
        result = await rig.invoke("x.do", agent="short")
        assert (result.output, result.provider) == ("quick", "near")
        assert (await next_of(heard)).metadata["phase"] == "quick"
        assert not heard.depth
        far.go.set()
        refined = await next_of(heard)
        assert refined.metadata["phase"] == "refine"
        assert json.loads(refined.payload) == "refined"


async def test_both_answers_are_events_of_the_agent_with_their_phase_and_the_decision() -> None:
    async with two(answering({"a": 1}), answering({"a": 2})) as rig:
        heard = rig.bus.subscribe("agent.wide", types=("action_result",))
        await rig.invoke("x.do", agent="wide")
        found = await phases(heard)
        common = {
            "action_type": "x.do", "status": "ok", "content_type": "application/json",
            "routing_decision": "Hybrid", "privacy": "sensitive",
            "routing_reason": "Hybrid: local quick + cloud refine",
        }  # fmt: skip
        assert dict(found["quick"].metadata) == common | {
            "phase": "quick", "routing_target": "local", "provider": "near",
        }  # fmt: skip
        assert dict(found["refine"].metadata) == common | {
            "phase": "refine", "routing_target": "cloud", "provider": "far", "refine": "true",
        }  # fmt: skip
        assert [json.loads(found[p].payload) for p in ("quick", "refine")] == [{"a": 1}, {"a": 2}]


async def test_without_an_agent_the_events_are_on_loom_routing() -> None:
    async def binary(call: Call, services: AsyncPort) -> Result:
        return Result({"rate": 8}, b"pcm", "audio/x")

    async with two(binary, answering(2)) as rig:
        heard = rig.bus.subscribe("loom.routing")
        await rig.invoke("x.do", policy=WIDE)
        decided = await next_of(heard)
        assert (decided.type, decided.metadata["route"]) == ("routing_decision", "Hybrid")
        quick = (await phases(heard))["quick"]
        assert (quick.payload, quick.metadata["content_type"]) == (b"pcm", "audio/x")


async def test_where_neither_came_in_time_the_first_one_that_comes_is_the_answer() -> None:
    for first in ("near", "far"):
        held = {"near": Held("quick"), "far": Held("refined")}
        async with two(held["near"], held["far"]) as rig:
            call = asyncio.create_task(rig.invoke("x.do", policy=Policy(latency_budget_ms=100)))
            await asyncio.sleep(0.12)
            assert not call.done()
            held[first].go.set()
            assert (await call).provider == first


@pytest.mark.parametrize(("bad", "good"), [("near", "far"), ("far", "near")])
async def test_where_one_pass_fails_the_others_answer_is_the_calls(bad: str, good: str) -> None:
    serve: dict[str, Serve] = {bad: failing(NO), good: answering(good)}
    async with two(serve["near"], serve["far"]) as rig:
        results = rig.bus.subscribe("agent.wide", types=("action_result",))
        switches = rig.bus.subscribe("loom.failover", types=("provider.switch",))
        assert (await rig.invoke("x.do", agent="wide")).output == good
        told = {e.metadata["routing_target"]: e.metadata for e in (await phases(results)).values()}
        failed = told["local" if bad == "near" else "cloud"]
        assert (failed["status"], failed["code"], failed["message"]) == ("error", "X", "no")
        switch = await next_of(switches)
        assert (switch.metadata["from"], switch.metadata["to"]) == (bad, good)
        assert rig.handles[bad].circuit.state == OPEN
        assert rig.handles[good].circuit.state == CLOSED


async def test_a_pass_that_fails_after_the_call_was_answered_is_at_fault_too() -> None:
    far = Held("", error=NO)
    async with two(answering("quick"), far) as rig:
        assert (await rig.invoke("x.do", agent="short")).output == "quick"
        far.go.set()
        await until(lambda: rig.handles["far"].circuit.state == OPEN)
        assert (await rig.invoke("x.do", agent="short")).provider == "near"
        assert far.calls == 1


async def test_where_both_fail_the_error_is_told_and_nobody_is_at_fault() -> None:
    async with two(failing(NO), failing(ActionFailed("nor I", code="Y"))) as rig:
        with pytest.raises(ActionFailed, match="nor I"):
            await rig.invoke("x.do", agent="wide")
        assert {h.circuit.state for h in rig.handles.values()} == {CLOSED}


async def test_a_call_with_effects_once_never_runs_twice() -> None:
    near, far = Held("near"), Held("far")
    async with two(near, far, "once") as rig:
        call = asyncio.create_task(rig.invoke("x.do", agent="wide"))
        await until(lambda: near.calls or far.calls)
        await asyncio.sleep(0.02)
        near.go.set()
        far.go.set()
        await call
        assert near.calls + far.calls == 1
        assert rig.routes[0][0] == "Cloud"


async def test_idempotent_calls_may_run_twice() -> None:
    async with two(answering("quick"), answering("refined"), "idempotent") as rig:
        assert (await rig.invoke("x.do", agent="wide")).output == "refined"
        assert rig.routes[0][0] == "Hybrid"


@pytest.mark.parametrize("privacy", ["private", "local-only"])
async def test_nothing_private_is_refined_in_the_cloud(privacy: str) -> None:
    far = Held("refined")
    async with two(answering("quick"), far, hermit=Policy(privacy=privacy)) as rig:
        assert (await rig.invoke("x.do", agent="hermit")).output == "quick"
        assert far.calls == 0


async def test_the_same_id_runs_each_pass_once() -> None:
    near, far = Held("quick"), Held("refined")
    near.go.set()
    far.go.set()
    async with two(near, far) as rig:
        answers = [await rig.invoke("x.do", agent="wide", id="1") for _ in range(2)]
        assert [a.output for a in answers] == ["refined", "refined"]
        assert (near.calls, far.calls) == (1, 1)


async def test_a_caller_that_leaves_stops_both_passes() -> None:
    near, far = Held("quick"), Held("refined")
    async with two(near, far) as rig:
        call = asyncio.create_task(rig.invoke("x.do", agent="wide"))
        await until(lambda: near.calls and far.calls)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (near.cancelled, far.cancelled) == (1, 1)


async def test_closing_the_broker_stops_a_pass_that_nobody_waits_for() -> None:
    far = Held("refined")
    async with two(answering("quick"), far) as rig:
        await rig.invoke("x.do", agent="short")
        before = asyncio.all_tasks()
        await rig.broker.aclose()
        assert far.cancelled == 1
        assert len(asyncio.all_tasks()) < len(before)


# -- streams


async def counting(call: Call, services: AsyncPort) -> Result:
    for number in range(3):
        await services.emit(call.id, Item(number))
    return Result("end")


async def test_a_stream_is_that_of_the_quick_pass_and_the_refined_answer_an_event() -> None:
    far = Held("refined")
    async with two(counting, far) as rig:
        heard = rig.bus.subscribe("agent.wide", types=("action_result",))
        stream = rig.broker.stream(Request("x.do", {}, agent="wide"))
        assert [item.output async for item in stream] == [0, 1, 2, "end"]
        assert (await next_of(heard)).metadata["phase"] == "quick"
        far.go.set()
        refined = await next_of(heard)
        assert (refined.metadata["phase"], json.loads(refined.payload)) == ("refine", "refined")


async def test_the_refined_answer_is_the_stream_where_the_quick_one_never_began() -> None:
    gone = PluginUnhealthy("near is gone", plugin_id="test/near")
    async with two(failing(gone), counting) as rig:
        stream = rig.broker.stream(Request("x.do", {}, agent="wide"))
        assert [item.output async for item in stream] == [0, 1, 2, "end"]


async def test_a_quick_stream_that_breaks_off_is_not_patched_with_the_refined_one() -> None:
    async def broken(call: Call, services: AsyncPort) -> Result:
        await services.emit(call.id, Item(0))
        raise NO

    async with two(broken, counting) as rig:
        seen = []
        with pytest.raises(ActionFailed, match=r"no \(after 1 item\(s\)\)"):
            async for item in rig.broker.stream(Request("x.do", {}, agent="wide")):
                seen.append(item.output)
        assert seen == [0]


async def test_a_quick_stream_that_stalls_is_a_failure_and_the_refined_one_goes_on() -> None:
    near = Held("quick")
    async with two(near, counting) as rig:
        async with asyncio.timeout(3):
            stream = rig.broker.stream(Request("x.do", {}, agent="wide"))
            assert [item.output async for item in stream] == [0, 1, 2, "end"]
        assert near.cancelled == 1
        assert rig.handles["near"].circuit.state == OPEN
