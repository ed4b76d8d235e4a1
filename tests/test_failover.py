"""Circuits, probes, stalled streams and the events of a switch, over the fake tier."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import pytest

from loom_host.announce import Announcer
from loom_host.circuit import CLOSED, HALF_OPEN, OPEN
from loom_host.dispatch import Request
from loom_host.failover import Failover
from loom_host.handle import Replaced
from loom_host.manifest import Permissions
from loom_host.quotas import Quotas
from loom_host.registry import Offer
from loom_host.runtimes.fake import Serve
from loom_host.settings import Policy, RoutingSettings
from loom_sdk import Call, Item, Result
from loom_sdk.calls import Effects
from loom_sdk.errors import (
    ActionFailed,
    DeadlineExceeded,
    InvalidArguments,
    LoomError,
    NoProvider,
    OutcomeUnknown,
    PluginCrashed,
    PluginUnhealthy,
    QuotaExceeded,
)
from loom_sdk.port import AsyncPort

from .hosting import Rig, answering, failing, handle_of, next_of, offers, until

NO = ActionFailed("no", code="X")
GONE = PluginUnhealthy("a is not there", plugin_id="test/a")


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Switch:
    """Serves by `how`, which the test changes."""

    def __init__(self, how: Serve) -> None:
        self.how = how
        self.calls = 0

    async def __call__(self, call: Call, services: AsyncPort) -> Result:
        self.calls += 1
        return await self.how(call, services)


async def hang(call: Call, services: AsyncPort) -> Result:
    await asyncio.sleep(30)
    return Result()


def pair(
    a: Serve,
    b: Serve,
    effects: Effects = "none",
    clock: Clock | None = None,
    quotas: Quotas | None = None,
    **limits: Any,
) -> Rig:
    """Providers `a` and then `b` of `x.do`; a circuit stays open for 5 s of the clock."""
    offer = offers("x.do", effects)
    return Rig(
        handle_of("a", offer, quotas=quotas),
        handle_of("b", offer, quotas=quotas),
        serve={"a": {"x.do": a}, "b": {"x.do": b}},
        providers={"x.do": ("a", "b")},
        routing=RoutingSettings(**limits),
        clock=clock or Clock(),
    )


async def providers(rig: Rig, calls: int) -> str:
    return "".join([(await rig.invoke("x.do")).provider for _ in range(calls)])


# -- circuits


async def test_after_a_failover_calls_stay_away_until_a_probe_succeeds() -> None:
    clock, a = Clock(), Switch(failing(GONE))
    async with pair(a, answering("b"), clock=clock) as rig:
        circuit = rig.handles["a"].circuit
        assert await providers(rig, 5) == "bbbbb"
        assert (a.calls, circuit.state) == (1, OPEN)
        clock.now += 5.0
        assert await providers(rig, 3) == "bbb"
        assert a.calls == 2, "one probe, which failed"
        clock.now += 9.9
        assert await providers(rig, 1) == "b"
        assert a.calls == 2, "the second time is twice as long"
        a.how = answering("a")
        clock.now += 0.1
        assert await providers(rig, 3) == "aaa"
        assert circuit.state == CLOSED


async def test_errors_in_a_row_that_another_provider_did_not_have_open_the_circuit() -> None:
    a = Switch(failing(NO))
    async with pair(a, answering("b"), failures=3) as rig:
        assert await providers(rig, 5) == "bbbbb"
        assert a.calls == 3
        assert "no" in rig.broker.explain("x.do", Policy())["candidates"][0]["circuit_reason"]


async def test_an_answer_in_between_starts_the_count_again() -> None:
    a = Switch(failing(NO))
    async with pair(a, answering("b"), failures=2) as rig:
        for how, provider in ((failing(NO), "b"), (answering(1), "a"), (failing(NO), "b")):
            a.how = how
            assert await providers(rig, 1) == provider
        assert rig.handles["a"].circuit.state == CLOSED
        assert await providers(rig, 1) == "b"
        assert rig.handles["a"].circuit.state == OPEN


async def test_a_call_that_everybody_fails_is_nobodys_fault() -> None:
    async with pair(failing(NO), failing(NO), failures=1) as rig:
        for _ in range(3):
            with pytest.raises(ActionFailed):
                await rig.invoke("x.do")
        assert {h.circuit.state for h in rig.handles.values()} == {CLOSED}
        assert rig.broker.explain("x.do", Policy())["candidates"][0]["error_rate"] == 0


@pytest.mark.parametrize(
    "error",
    [
        InvalidArguments("odd"),
        QuotaExceeded(plugin_id="test/a", quota="output_bytes", limit=1, used=2),
        PluginCrashed("one that a called", plugin_id="test/z"),
        NoProvider("for what a called"),
    ],
)
async def test_what_is_not_the_providers_fault_does_not_open_its_circuit(error: LoomError) -> None:
    async with pair(failing(error), answering("b")) as rig:
        for _ in range(2):
            with contextlib.suppress(InvalidArguments):
                await rig.invoke("x.do")
        assert rig.handles["a"].circuit.state == CLOSED


async def test_a_caller_in_a_hurry_does_not_open_a_circuit_and_a_long_wait_does() -> None:
    async with pair(hang, answering("b"), first_item_ms=50) as rig:
        circuit = rig.handles["a"].circuit
        with pytest.raises(DeadlineExceeded):
            await rig.invoke("x.do", timeout_ms=20)
        assert circuit.state == CLOSED
        with pytest.raises(DeadlineExceeded):
            await rig.invoke("x.do", timeout_ms=80)
        assert circuit.state == OPEN
        assert await providers(rig, 1) == "b"


async def test_where_all_circuits_are_open_the_operators_order_is_tried_all_the_same() -> None:
    a, b = Switch(failing(GONE)), Switch(failing(PluginUnhealthy("gone", plugin_id="test/b")))
    async with pair(a, b) as rig:
        with pytest.raises(PluginUnhealthy):
            await rig.invoke("x.do")
        assert {h.circuit.state for h in rig.handles.values()} == {OPEN}
        a.how = answering("a")
        assert await providers(rig, 2) == "aa"
        assert rig.handles["a"].circuit.state == CLOSED


async def test_an_only_provider_is_called_whatever_its_circuit() -> None:
    handle = handle_of("p", offers("p.do"))
    handle.circuit.failed(0.0, RoutingSettings(), "it crashed", own=True)
    async with Rig(handle, serve={"p": {"p.do": answering(1)}}) as rig:
        assert (await rig.invoke("p.do")).output == 1
        assert handle.circuit.state == CLOSED


async def test_an_open_local_circuit_does_not_open_the_way_to_the_cloud() -> None:
    local = handle_of("a", offers("x.do"))
    cloud = handle_of("b", offers("x.do"), permissions=Permissions(network=("https://b.test",)))
    a, b = Switch(failing(GONE)), Switch(answering("b"))
    policies = {"hermit": Policy(privacy="local-only")}
    rig = Rig(
        local, cloud, serve={"a": {"x.do": a}, "b": {"x.do": b}},
        providers={"x.do": ("a", "b")}, policies=policies,
    )  # fmt: skip
    async with rig:
        for _ in range(2):
            with pytest.raises(PluginUnhealthy):
                await rig.invoke("x.do", agent="hermit")
        assert b.calls == 0
        assert (await rig.invoke("x.do")).provider == "b"


async def test_a_probe_whose_caller_leaves_tells_nothing() -> None:
    clock, a = Clock(), Switch(failing(GONE))
    async with pair(a, answering("b"), clock=clock) as rig:
        await rig.invoke("x.do")
        clock.now += 5
        a.how = hang
        probe = asyncio.create_task(rig.invoke("x.do"))
        await until(lambda: a.calls == 2)
        assert rig.handles["a"].circuit.state == HALF_OPEN
        assert await providers(rig, 1) == "b"
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        a.how = answering("a")
        assert await providers(rig, 1) == "a"


# -- effects once


async def test_no_call_with_effects_once_is_a_probe_where_another_can_serve_it() -> None:
    clock, a = Clock(), Switch(hang)
    async with pair(a, answering("b"), "once", clock) as rig:
        handle, instance = rig.handles["a"], rig.instance("a")
        handle.circuit.failed(clock.now, RoutingSettings(), "it crashed", own=True)
        clock.now += 5
        instance.sick = "no disk"
        assert await providers(rig, 1) == "b"
        await until(lambda: handle.circuit.state == OPEN)
        assert handle.circuit.reason == "no disk"
        instance.sick = ""
        clock.now += 10
        assert await providers(rig, 1) == "b"
        await until(lambda: handle.circuit.state == CLOSED)
        assert a.calls == 0, "its health was asked for, no call was risked"
        a.how = answering("a")
        assert await providers(rig, 1) == "a"


async def test_an_unknown_outcome_opens_the_circuit_and_is_told() -> None:
    rigs: list[Rig] = []

    async def crash(call: Call, services: AsyncPort) -> Result:
        rigs[0].instance("a").crash("killed")
        return await hang(call, services)

    rigs.append(pair(crash, answering("b"), "once"))
    async with rigs[0] as rig:
        with pytest.raises(OutcomeUnknown):
            await rig.invoke("x.do")
        assert rig.handles["a"].circuit.state == OPEN
        assert await providers(rig, 1) == "b"


# -- streams


async def test_a_first_item_that_does_not_come_is_a_failure_and_the_next_one_streams() -> None:
    async def two(call: Call, services: AsyncPort) -> Result:
        for number in range(2):
            await services.emit(call.id, Item(number))
        return Result("end")

    a = Switch(hang)
    async with pair(a, two, first_item_ms=30) as rig:
        async with asyncio.timeout(2):
            items = [i.output async for i in rig.broker.stream(Request("x.do", {}))]
        assert items == [0, 1, "end"]
        assert rig.handles["a"].circuit.state == OPEN
        assert rig.handles["a"].counters.quota_hits == 0, "it broke no quota"
        await rig.invoke("x.do")
        assert a.calls == 1


async def test_a_stream_that_has_begun_may_pause() -> None:
    async def slow(call: Call, services: AsyncPort) -> Result:
        await services.emit(call.id, Item(1))
        await asyncio.sleep(0.1)
        return Result("end")

    async with pair(slow, answering("b"), first_item_ms=30) as rig:
        items = [i.output async for i in rig.broker.stream(Request("x.do", {}))]
        assert items == [1, "end"]


@pytest.mark.parametrize("effects", ["once", "none"])
async def test_nobody_is_hurried_where_nobody_else_could_go_on(effects: Effects) -> None:
    async def slow(call: Call, services: AsyncPort) -> Result:
        await asyncio.sleep(0.08)
        return Result("late")

    first = slow if effects == "once" else failing(GONE)
    async with pair(first, slow, effects, first_item_ms=20) as rig:
        items = [i.output async for i in rig.broker.stream(Request("x.do", {}))]
        assert items == ["late"]


async def test_the_calls_deadline_holds_before_that_of_the_first_item() -> None:
    async with pair(hang, answering("b"), first_item_ms=5000) as rig:
        with pytest.raises(DeadlineExceeded, match="did not end within"):
            async for _ in rig.broker.stream(Request("x.do", {}, timeout_ms=30)):
                pass


async def test_the_latency_of_a_stream_is_that_of_its_first_item() -> None:
    async def long(call: Call, services: AsyncPort) -> Result:
        await services.emit(call.id, Item(1))
        await asyncio.sleep(0.2)
        return Result()

    async with pair(long, answering("b")) as rig:
        async for _ in rig.broker.stream(Request("x.do", {})):
            pass
        assert rig.broker.explain("x.do", Policy())["candidates"][0]["latency_ms"] < 150


# -- quotas


async def test_a_spent_quota_moves_the_call_on_without_a_failure() -> None:
    async with pair(answering("a"), answering("b"), "once", quotas=Quotas(rate=1)) as rig:
        assert await providers(rig, 2) == "ab"
        assert rig.handles["a"].circuit.state == CLOSED
        with pytest.raises(QuotaExceeded, match=r"x.do: Quotas are spent \(a: rate 1; b: rate 1\)"):
            await rig.invoke("x.do")
        assert rig.unrouted == ["x.do"]
        assert rig.handles["a"].counters.hits == {"rate": 1}


async def test_a_call_waits_for_a_quota_that_has_room_again_within_the_latency_budget() -> None:
    async with pair(answering("a"), answering("b"), quotas=Quotas(rate=20)) as rig:
        served = await providers(rig, 44)
        assert len(served) == 44
        assert "Defer" in {route for route, _ in rig.routes}
        with pytest.raises(QuotaExceeded):
            for _ in range(44):
                await rig.invoke("x.do", policy=Policy(latency_budget_ms=0))


# -- events


async def test_every_switch_and_every_change_of_a_circuit_is_an_event() -> None:
    clock, a = Clock(), Switch(failing(GONE))
    async with pair(a, answering("b"), clock=clock) as rig:
        heard = rig.bus.subscribe("loom.failover")
        await rig.invoke("x.do", agent="voice")
        opened, switched = [await next_of(heard) for _ in range(2)]
        assert (opened.type, opened.metadata["provider"]) == ("circuit.open", "a")
        assert switched.type == "provider.switch"
        assert dict(switched.metadata) == {
            "capability": "x.do", "from": "a", "to": "b", "code": "PLUGIN_UNHEALTHY",
            "reason": "a is not there", "agent": "voice", "privacy": "sensitive",
        }  # fmt: skip
        clock.now += 5
        a.how = answering("a")
        await rig.invoke("x.do")
        assert [(await next_of(heard)).type for _ in range(2)] == [
            "circuit.half-open",
            "circuit.closed",
        ]
        await rig.invoke("x.do")
        assert not heard.depth, "nothing switched, nothing is told"


async def test_a_call_whose_plugin_is_replaced_again_and_again_ends_at_its_deadline() -> None:
    async def replaced(offer: Offer, request: Request) -> Result:
        raise Replaced("a is draining", plugin_id="test/a")

    async with pair(answering("a"), answering("b")) as rig:
        (offer, _) = rig.broker.capabilities()["x.do"]

        async def again(request: Request) -> list[Offer]:
            return [offer]

        failover = Failover(replaced, RoutingSettings(), time.monotonic, Announcer(rig.bus))
        request = Request("x.do", {}, deadline=time.monotonic() + 0.05)
        async with asyncio.timeout(2):
            with pytest.raises(DeadlineExceeded, match="x.do: a was replaced again and again"):
                await failover.run(request, [offer], offer, again)
