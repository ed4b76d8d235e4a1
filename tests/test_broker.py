"""The broker: validation, order, deadlines, idempotency, effects, failover, streams."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest

from loom_host import failover as failover_module
from loom_host import kept as kept_module
from loom_host import supervisor as supervisor_module
from loom_host.broker import MAX_DEPTH
from loom_host.dispatch import Request
from loom_host.manifest import Permissions
from loom_host.quotas import Quotas
from loom_host.runtimes.base import NotReached
from loom_host.runtimes.fake import Serve
from loom_host.settings import PluginSettings, Policy
from loom_sdk import Call, Item, Result
from loom_sdk.calls import Effects
from loom_sdk.errors import (
    ActionFailed,
    CapabilityNotFound,
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

from .hosting import Rig, answering, failing, handle_of, offers, until

NUMBER = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
WAY_OUT = Permissions(network=("https://c.test",))


@pytest.fixture(autouse=True)
def quick_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "BACKOFF_FIRST_S", 0.01)


def alone(
    serve: Serve, effects: Effects = "none", quotas: Quotas | None = None, **fields: Any
) -> Rig:
    """One plugin `p` that offers `p.do`."""
    handle = handle_of("p", offers("p.do", effects, **fields), quotas=quotas)
    return Rig(handle, serve={"p": {"p.do": serve}})


def several(effects: Effects = "none", resumable: bool = False, **serves: Serve) -> Rig:
    """Several plugins that all offer `x.do`, in the order given."""
    offer = offers("x.do", effects, resumable=resumable)
    return Rig(
        *(handle_of(name, offer) for name in serves),
        serve={name: {"x.do": serve} for name, serve in serves.items()},
        providers={"x.do": tuple(serves)},
    )


class Counted:
    """Serves with a list of behaviours, one per call; the last one stays."""

    def __init__(self, *behaviours: Callable[[Call, AsyncPort], Any]) -> None:
        self.behaviours = list(behaviours)
        self.calls: list[Call] = []

    async def __call__(self, call: Call, services: AsyncPort) -> Result:
        self.calls.append(call)
        behaviour = self.behaviours[min(len(self.calls), len(self.behaviours)) - 1]
        result: Result = await behaviour(call, services)
        return result


async def nap(call: Call, services: AsyncPort) -> Result:
    await asyncio.sleep(5)
    return Result()


async def three_items(call: Call, services: AsyncPort) -> Result:
    for number in range(3):
        await services.emit(call.id, Item(number, bytes([number])))
    return Result("end")


# -- looking up and validating


async def test_a_call_is_answered_with_its_provider() -> None:
    async with alone(answering({"a": 1})) as rig:
        result = await rig.invoke("p.do")
        assert (result.output, result.provider) == ({"a": 1}, "p")
        assert rig.observed == [("p.do", "p", "ok")]
        assert rig.handles["p"].counters.calls == 1


async def test_what_nobody_offers_is_told_with_what_is() -> None:
    async with alone(answering(1)) as rig:
        with pytest.raises(
            CapabilityNotFound, match=r"'p.don'; did you mean 'p.do'\? offered: p.do"
        ):
            await rig.invoke("p.don")
    async with Rig() as rig:
        with pytest.raises(CapabilityNotFound, match="offered: none"):
            await rig.invoke("p.do")


async def test_what_is_not_granted_is_not_offered() -> None:
    handle = handle_of("p", offers("p.do"), offers("p.more"), allow={"provide": ("p.do",)})
    async with Rig(handle, serve={"p": {"p.do": answering(1), "p.more": answering(2)}}) as rig:
        assert set(rig.broker.capabilities()) == {"p.do"}


async def test_arguments_are_checked_before_the_plugin_sees_them() -> None:
    serve = Counted(answering(1))
    async with alone(serve, input_schema=NUMBER) as rig:
        for arguments, told in (
            ({}, '"n" is a required property'),
            ({"n": "1"}, "n: "),
            ({"n": 1, "m": 2}, "'m' was unexpected"),
            ([1], "must be a JSON object"),
        ):
            with pytest.raises(InvalidArguments, match="p.do") as caught:
                await rig.invoke("p.do", arguments=arguments)
            assert told in caught.value.message
        assert serve.calls == []
        assert (await rig.invoke("p.do", arguments={"n": 1})).output == 1


async def test_a_wrong_schema_is_told_by_the_capability() -> None:
    with pytest.raises(InvalidArguments, match="p.do: the input schema is wrong"):
        async with alone(answering(1), input_schema={"type": "sentence"}) as rig:
            await rig.invoke("p.do")


async def test_what_the_code_says_completes_the_manifest() -> None:
    async with alone(answering(1)) as rig:
        handle = rig.handles["p"]
        rig.instance("p").declaration = type(rig.instance("p").declaration)(
            (offers("p.do", description="Does.", input_schema=NUMBER, tool=True, version="9"),)
        )
        rig.broker.register(handle)
        (offer,) = rig.broker.capabilities()["p.do"]
        assert (offer.spec.description, offer.spec.input_schema) == ("Does.", NUMBER)
        assert (offer.spec.tool, offer.spec.version) == (False, "9")
        with pytest.raises(InvalidArguments):
            await rig.invoke("p.do")


async def test_versions() -> None:
    handles = [
        handle_of("old", offers("x.do", version="1.9")),
        handle_of("new", offers("x.do", version="1.10")),
        handle_of("odd", offers("x.do"), version="0.1-beta"),
    ]
    serve: dict[str, dict[str, Serve]] = {h.name: {"x.do": answering(h.name)} for h in handles}
    async with Rig(*handles, serve=serve) as rig:
        assert (await rig.invoke("x.do")).output == "new"
        assert (await rig.invoke("x.do@1.9")).output == "old"
        assert (await rig.invoke("x.do@0.1-beta")).output == "odd"
        with pytest.raises(CapabilityNotFound, match=r"no allowed provider offers 'x.do@2'"):
            await rig.invoke("x.do@2")


async def test_the_operators_list_orders_and_excludes() -> None:
    handles = [handle_of(name, offers("x.do")) for name in "abc"]
    serve: dict[str, dict[str, Serve]] = {h.name: {"x.do": answering(h.name)} for h in handles}
    async with Rig(*handles, serve=serve, providers={"x.do": ("c", "a", "gone")}) as rig:
        assert [o.handle.name for o in rig.broker.capabilities()["x.do"]] == ["c", "a"]
        assert (await rig.invoke("x.do")).provider == "c"
    async with Rig(*handles, serve=serve, providers={"x.do": ("gone",)}) as rig:
        with pytest.raises(CapabilityNotFound, match=r"see \[providers\]"):
            await rig.invoke("x.do")


async def test_a_policy_that_leaves_nobody_is_no_provider() -> None:
    cloud = handle_of("c", offers("x.do"), permissions=WAY_OUT)
    policies = {"voice": Policy(privacy="local-only")}
    async with Rig(cloud, serve={"c": {"x.do": answering(1)}}, policies=policies) as rig:
        assert (await rig.invoke("x.do")).output == 1
        with pytest.raises(NoProvider, match=r"local-only processing \(c: cloud\)"):
            await rig.invoke("x.do", agent="voice")
        with pytest.raises(NoProvider):
            await rig.invoke("x.do", policy=policies["voice"])
        assert rig.broker.policy_of("voice") is policies["voice"]
        assert rig.broker.policy_of("other") == Policy()
        assert rig.broker.route("x.do").route == "Cloud"
        assert rig.broker.route("x.do", policies["voice"]).route == "Drop"


# -- time


async def test_a_call_ends_at_its_deadline_and_the_plugin_is_told_to_stop() -> None:
    ended = asyncio.Event()

    async def serve(call: Call, services: AsyncPort) -> Result:
        try:
            await asyncio.sleep(5)
        finally:
            ended.set()
        return Result()

    async with alone(serve) as rig:
        with pytest.raises(DeadlineExceeded, match=r"did not end within \d+ ms \(p\)") as caught:
            await rig.invoke("p.do", timeout_ms=30)
        assert caught.value.plugin_id == "test/p"
        assert rig.observed == [("p.do", "p", "DEADLINE_EXCEEDED")]
        await asyncio.wait_for(ended.wait(), 1)
        assert rig.handles["p"].slots.active == 0
        assert rig.handles["p"].inflight == {}


async def test_the_plugins_own_quota_is_a_deadline_too() -> None:
    async with alone(nap, quotas=Quotas(deadline_ms=20)) as rig:
        with pytest.raises(DeadlineExceeded, match="within 20 ms"):
            await rig.invoke("p.do")


async def test_no_time_left_is_a_deadline() -> None:
    async with alone(nap) as rig:
        with pytest.raises(DeadlineExceeded, match="within 0 ms"):
            await rig.invoke("p.do", timeout_ms=0)


async def test_a_nested_call_has_the_time_that_remains() -> None:
    left: list[int] = []

    async def outer(call: Call, services: AsyncPort) -> Result:
        left.append(call.remaining_ms)
        await asyncio.sleep(0.05)
        return await services.invoke(Call("b.do", {}, parent_call_id=call.id))

    async def inner(call: Call, services: AsyncPort) -> Result:
        left.append(call.remaining_ms)
        await asyncio.sleep(5)
        return Result()

    a = handle_of("a", offers("a.do"), permissions=Permissions(invoke=("b.do",)))
    rig = Rig(a, handle_of("b", offers("b.do")), serve={"a": {"a.do": outer}, "b": {"b.do": inner}})
    async with rig:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await rig.invoke("a.do", timeout_ms=200)
        assert time.monotonic() - began < 1
        assert 150 < left[0] <= 200
        assert left[1] <= 150
        await until(lambda: not rig.handles["b"].slots.active)


async def test_a_call_waits_for_a_plugin_that_is_starting() -> None:
    async with alone(answering(1)) as rig:
        handle = rig.handles["p"]
        instance, handle.instance = handle.instance, None
        handle.become("starting")
        with pytest.raises(DeadlineExceeded):
            await rig.invoke("p.do", timeout_ms=20)
        waiting = asyncio.create_task(rig.invoke("p.do"))
        await asyncio.sleep(0)
        handle.instance = instance
        handle.become("ready")
        assert (await waiting).output == 1


async def test_a_failed_plugin_is_told_with_its_reason() -> None:
    async with alone(answering(1)) as rig:
        rig.handles["p"].become("failed", "no disk")
        with pytest.raises(PluginUnhealthy, match="p is failed: no disk"):
            await rig.invoke("p.do")


async def test_cancelling_the_caller_cancels_the_plugin() -> None:
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def serve(call: Call, services: AsyncPort) -> Result:
        began.set()
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return Result()

    async with alone(serve) as rig:
        call = asyncio.create_task(rig.invoke("p.do"))
        await began.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(cancelled.wait(), 1)
        assert rig.handles["p"].slots.active == 0


# -- quotas


async def test_one_at_a_time_and_the_rest_waits_its_turn() -> None:
    running, most = 0, 0

    async def serve(call: Call, services: AsyncPort) -> Result:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002)
        running -= 1
        return Result(call.arguments["n"])

    for limit in (1, 3):
        most = 0
        async with alone(serve, quotas=Quotas(concurrency=limit)) as rig:
            calls = [rig.invoke("p.do", arguments={"n": n}) for n in range(6)]
            assert [r.output for r in await asyncio.gather(*calls)] == list(range(6))
            assert most == limit


async def test_who_waits_in_vain_is_told_of_the_quota_not_of_the_deadline() -> None:
    async with alone(nap) as rig:
        busy = asyncio.create_task(rig.invoke("p.do", timeout_ms=500))
        await asyncio.sleep(0)
        with pytest.raises(QuotaExceeded, match="p was busy with 1 call") as caught:
            await rig.invoke("p.do", timeout_ms=30)
        assert (caught.value.quota, caught.value.limit, caught.value.used) == ("concurrency", 1, 2)
        busy.cancel()
        await asyncio.gather(busy, return_exceptions=True)


async def test_rate() -> None:
    async with alone(answering(1), quotas=Quotas(rate=2)) as rig:
        for _ in range(2):
            await rig.invoke("p.do")
        with pytest.raises(QuotaExceeded) as caught:
            await rig.invoke("p.do")
        assert caught.value.quota == "rate"
        assert rig.handles["p"].counters.quota_hits == 1


async def test_emitting_over_the_output_quota_ends_the_call() -> None:
    async with alone(three_items, quotas=Quotas(output_bytes=5)) as rig:
        with pytest.raises(QuotaExceeded) as caught:
            await rig.invoke("p.do")
        assert (caught.value.quota, caught.value.limit) == ("output_bytes", 5)


def ring(size: int, depth: int) -> Rig:
    """`size` plugins that call each other in a ring until `depth` is reached."""

    def serve_of(index: int) -> Serve:
        async def serve(call: Call, services: AsyncPort) -> Result:
            left = call.arguments["left"]
            if left <= 1:
                return Result(depth)
            following = f"p{(index + 1) % size}.do"
            return await services.invoke(
                Call(following, {"left": left - 1}, parent_call_id=call.id)
            )

        return serve

    handles = [
        handle_of(f"p{i}", offers(f"p{i}.do"), permissions=Permissions(invoke=("*",)))
        for i in range(size)
    ]
    return Rig(*handles, serve={f"p{i}": {f"p{i}.do": serve_of(i)} for i in range(size)})


async def test_calls_nest_eight_deep_and_no_deeper() -> None:
    async with ring(10, MAX_DEPTH) as rig:
        result = await rig.invoke("p0.do", arguments={"left": MAX_DEPTH})
        assert result.output == MAX_DEPTH == 8
    async with ring(10, MAX_DEPTH + 1) as rig:
        with pytest.raises(QuotaExceeded, match=r"p0 -> p1 -> .* -> p7 -> p8.do") as caught:
            await rig.invoke("p0.do", arguments={"left": MAX_DEPTH + 1})
        assert (caught.value.quota, caught.value.limit, caught.value.used) == ("depth", 8, 9)


async def test_a_circle_at_the_concurrency_limit_fails_at_once_with_its_chain() -> None:
    async with ring(2, 3) as rig:
        began = time.monotonic()
        with pytest.raises(QuotaExceeded, match="p0 -> p1 -> p0") as caught:
            await rig.invoke("p0.do", arguments={"left": 3})
        assert time.monotonic() - began < 1
        assert caught.value.quota == "concurrency"


# -- idempotency


async def test_the_same_id_joins_the_running_call_and_then_keeps_its_result() -> None:
    async def slow(call: Call, services: AsyncPort) -> Result:
        await asyncio.sleep(0.02)
        return Result(len(serve.calls))

    serve = Counted(slow)
    async with alone(serve, "once") as rig:
        both = await asyncio.gather(*(rig.invoke("p.do", id="1") for _ in range(2)))
        later = await rig.invoke("p.do", id="1")
        assert [r.output for r in (*both, later)] == [1, 1, 1]
        assert len(serve.calls) == 1
        assert (await rig.invoke("p.do", id="2")).output == 2
        assert (await rig.invoke("p.do")).output == 3


async def test_whoever_gets_a_kept_result_may_change_it() -> None:
    async with alone(answering({"list": [1]}), "once") as rig:
        for _ in range(3):
            result = await rig.invoke("p.do", id="1")
            assert result.output == {"list": [1]}
            result.output["list"].append(2)


async def test_a_joining_call_waits_no_longer_than_its_own_deadline() -> None:
    go_on = asyncio.Event()

    async def slow(call: Call, services: AsyncPort) -> Result:
        await go_on.wait()
        return Result("done")

    async with alone(slow, "once") as rig:
        first = asyncio.create_task(rig.invoke("p.do", id="1"))
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded, match="within 20 ms: the call joined by id '1' goes"):
            await rig.invoke("p.do", id="1", timeout_ms=20)
        go_on.set()
        assert (await first).output == "done"


async def test_an_id_is_scoped_by_its_caller() -> None:
    serve = Counted(answering(1))
    async with alone(serve) as rig:
        for caller in ("a", "b", "a"):
            await rig.invoke("p.do", id="1", caller=caller)
        assert len(serve.calls) == 2


@pytest.mark.parametrize("other", [{"arguments": {"n": 2}}, {"payload": b"2"}])
async def test_an_id_with_other_arguments_is_an_error(other: dict[str, Any]) -> None:
    async with alone(answering(1)) as rig:
        await rig.invoke("p.do", arguments={"n": 1}, id="1")
        with pytest.raises(InvalidArguments, match=r"id '1' was already used.*draw a new id"):
            await rig.invoke("p.do", **({"arguments": {"n": 1}, "id": "1"} | other))


async def test_an_id_with_another_capability_is_an_error() -> None:
    handle = handle_of("p", offers("p.a"), offers("p.b"))
    async with Rig(handle, serve={"p": {"p.a": answering("a"), "p.b": answering("b")}}) as rig:
        await rig.invoke("p.a", id="1")
        with pytest.raises(InvalidArguments):
            await rig.invoke("p.b", id="1")


async def test_errors_and_timeouts_are_never_kept() -> None:
    serve = Counted(failing(ActionFailed("first", code="X")), nap, answering(3))
    async with alone(serve, "once") as rig:
        with pytest.raises(ActionFailed):
            await rig.invoke("p.do", id="1")
        with pytest.raises(DeadlineExceeded):
            await rig.invoke("p.do", id="1", timeout_ms=10)
        assert (await rig.invoke("p.do", id="1")).output == 3


async def test_who_joined_a_call_that_fails_gets_its_error() -> None:
    async with alone(Counted(failing(ActionFailed("no", code="X"))), "once") as rig:
        first = asyncio.create_task(rig.invoke("p.do", id="1"))
        await asyncio.sleep(0)
        with pytest.raises(ActionFailed):
            await rig.invoke("p.do", id="1")
        with pytest.raises(ActionFailed):
            await first


async def test_a_joined_call_goes_on_until_the_last_one_gives_up() -> None:
    gone = asyncio.Event()

    async def slow(call: Call, services: AsyncPort) -> Result:
        try:
            await asyncio.sleep(0.05 if call.arguments else 30)
        except asyncio.CancelledError:
            gone.set()
            raise
        return Result(call.arguments)

    serve = Counted(slow)
    async with alone(serve, "once") as rig:
        first = asyncio.create_task(rig.invoke("p.do", arguments={"n": 1}, id="1"))
        second = asyncio.create_task(rig.invoke("p.do", arguments={"n": 1}, id="1"))
        await asyncio.sleep(0.01)
        first.cancel()
        assert (await second).output == {"n": 1}
        both = [asyncio.create_task(rig.invoke("p.do", id="2")) for _ in range(2)]
        await asyncio.sleep(0.01)
        for task in both:
            assert not gone.is_set()
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)
        assert gone.is_set()
    assert len(serve.calls) == 2


async def test_a_running_call_is_not_forgotten_for_newer_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kept_module, "KEPT_RESULTS", 1)
    serve = Counted(nap_or_answer)
    async with alone(serve, quotas=Quotas(concurrency=2)) as rig:
        slow = asyncio.create_task(rig.invoke("p.do", arguments={"slow": True}, id="slow"))
        await asyncio.sleep(0)
        for id in ("a", "b"):
            await rig.invoke("p.do", id=id)
        joined = await rig.invoke("p.do", arguments={"slow": True}, id="slow")
        assert joined.output == (await slow).output
    assert len(serve.calls) == 3


async def nap_or_answer(call: Call, services: AsyncPort) -> Result:
    if call.arguments:
        await asyncio.sleep(0.05)
    return Result(1)


async def test_kept_results_are_bounded_and_the_last_used_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kept_module, "KEPT_RESULTS", 2)
    serve = Counted(answering(1))
    async with alone(serve) as rig:
        for id in ("a", "b", "a", "c", "a"):
            await rig.invoke("p.do", id=id)
        assert len(serve.calls) == 3
        await rig.invoke("p.do", id="b")
        assert len(serve.calls) == 4


async def test_a_call_that_fails_after_its_place_was_taken_is_told_its_own_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kept_module, "KEPT_RESULTS", 1)

    async def slow_failure(call: Call, services: AsyncPort) -> Result:
        await asyncio.sleep(0.02)
        raise ActionFailed("mine", code="X")

    serve = Counted(slow_failure, answering(1))
    async with alone(serve, quotas=Quotas(concurrency=2)) as rig:
        slow = asyncio.create_task(rig.invoke("p.do", id="slow"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await rig.invoke("p.do", id="quick")
        with pytest.raises(ActionFailed, match="mine"):
            await slow


# -- effects


def crashing(rig_of: list[Rig]) -> Serve:
    """Dies in the middle of the first call, as a process would."""

    async def serve(call: Call, services: AsyncPort) -> Result:
        rig_of[0].instance("p").crash("killed by signal 9")
        await asyncio.sleep(5)
        return Result()

    return serve


@pytest.mark.parametrize("effects", ["none", "idempotent"])
async def test_a_crash_is_survived_where_a_repeat_is_harmless(effects: Effects) -> None:
    rigs: list[Rig] = []
    serve = Counted(crashing(rigs), answering("again"))
    rigs.append(alone(serve, effects))
    async with rigs[0] as rig:
        assert (await rig.invoke("p.do")).output == "again"
        assert len(serve.calls) == 2
        assert rig.handles["p"].counters.restarts == 1
        assert len(rig.runtime.started["p"]) == 2


async def test_a_crash_in_a_call_with_effects_once_leaves_the_outcome_unknown() -> None:
    rigs: list[Rig] = []
    serve = Counted(crashing(rigs), answering("again"))
    rigs.append(alone(serve, "once"))
    async with rigs[0] as rig:
        with pytest.raises(OutcomeUnknown, match=r"may or may not have happened.*signal 9"):
            await rig.invoke("p.do")
        assert len(serve.calls) == 1
        await until(lambda: rig.handles["p"].state == "ready")
        assert (await rig.invoke("p.do")).output == "again"


async def test_a_call_that_waited_for_its_slot_survives_the_crash_of_another() -> None:
    rigs: list[Rig] = []
    serve = Counted(crashing(rigs), answering("again"))
    rigs.append(alone(serve, "once"))
    async with rigs[0] as rig:
        first, second = (asyncio.create_task(rig.invoke("p.do")) for _ in range(2))
        with pytest.raises(OutcomeUnknown):
            await first
        assert (await second).output == "again"


async def test_a_plugin_that_crashes_every_time_is_given_up() -> None:
    rigs: list[Rig] = []
    serve = Counted(crashing(rigs))
    rigs.append(alone(serve))
    async with rigs[0] as rig:
        with pytest.raises(PluginCrashed, match="signal 9"):
            await rig.invoke("p.do")
        assert len(serve.calls) == failover_module.MAX_ATTEMPTS


async def test_the_crash_of_a_plugin_that_was_called_is_a_known_outcome() -> None:
    crash = PluginCrashed("b died", plugin_id="test/b")
    async with alone(failing(crash), "once") as rig:
        with pytest.raises(PluginCrashed, match="b died"):
            await rig.invoke("p.do")


async def test_a_plain_failure_is_not_retried() -> None:
    serve = Counted(failing(ActionFailed("no", code="X")))
    async with alone(serve) as rig:
        with pytest.raises(ActionFailed):
            await rig.invoke("p.do")
        assert len(serve.calls) == 1
        assert rig.handles["p"].counters.errors == 1


# -- failover

NO = ActionFailed("no", code="X")


@pytest.mark.parametrize("effects", ["none", "idempotent"])
async def test_the_second_provider_answers_where_the_first_fails(effects: Effects) -> None:
    async with several(effects, a=failing(NO), b=answering("b")) as rig:
        assert (await rig.invoke("x.do")).provider == "b"
        assert rig.observed == [("x.do", "a", "CAPABILITY_ERROR"), ("x.do", "b", "ok")]


@pytest.mark.parametrize(("effects", "calls"), [("none", 2), ("idempotent", 2), ("once", 1)])
async def test_an_only_provider_that_just_ended_is_tried_again_where_that_is_safe(
    effects: Effects, calls: int
) -> None:
    gone = PluginUnhealthy("test/p is not running", plugin_id="test/p")
    serve = Counted(failing(gone), answering("back"))
    async with alone(serve, effects) as rig:
        if calls == 1:
            with pytest.raises(OutcomeUnknown):
                await rig.invoke("p.do")
        else:
            assert (await rig.invoke("p.do")).output == "back"
    assert len(serve.calls) == calls


async def test_effects_once_go_on_where_the_runtime_says_that_the_call_reached_nobody() -> None:
    gone = NotReached("test/p is not running", plugin_id="test/p")
    serve = Counted(failing(gone), answering("back"))
    async with alone(serve, "once") as rig:
        assert (await rig.invoke("p.do")).output == "back"
    assert len(serve.calls) == 2


async def test_effects_once_do_not_go_on_where_another_plugin_was_not_reached() -> None:
    serve = Counted(failing(NotReached("deeper", plugin_id="test/other")), answering("back"))
    async with alone(serve, "once") as rig:
        with pytest.raises(PluginUnhealthy, match="deeper"):
            await rig.invoke("p.do")
    assert len(serve.calls) == 1


async def test_effects_once_are_never_failed_over_after_dispatch() -> None:
    second = Counted(answering("b"))
    for error in (NO, PluginUnhealthy("c is gone", plugin_id="test/c")):
        async with several("once", a=failing(error), b=second) as rig:
            with pytest.raises(type(error)):
                await rig.invoke("x.do")
    assert second.calls == []


async def test_effects_once_are_failed_over_before_dispatch() -> None:
    async with several("once", a=answering("a"), b=answering("b")) as rig:
        rig.handles["a"].become("failed", "no disk")
        assert (await rig.invoke("x.do")).provider == "b"
    handles = [handle_of("a", offers("x.do", "once"), quotas=Quotas(rate=1))]
    handles.append(handle_of("b", offers("x.do", "once")))
    serve: dict[str, dict[str, Serve]] = {h.name: {"x.do": answering(h.name)} for h in handles}
    async with Rig(*handles, serve=serve, providers={"x.do": ("a", "b")}) as rig:
        assert [(await rig.invoke("x.do")).provider for _ in range(2)] == ["a", "b"]


async def test_wrong_arguments_are_not_failed_over() -> None:
    second = Counted(answering("b"))
    async with several(a=failing(InvalidArguments("n must be even")), b=second) as rig:
        with pytest.raises(InvalidArguments, match="even"):
            await rig.invoke("x.do")
    assert second.calls == []


async def test_the_second_providers_own_schema_is_checked_too() -> None:
    second = Counted(answering("b"))
    handles = [handle_of("a", offers("x.do")), handle_of("b", offers("x.do", input_schema=NUMBER))]
    serve: dict[str, dict[str, Serve]] = {"a": {"x.do": failing(NO)}, "b": {"x.do": second}}
    async with Rig(*handles, serve=serve, providers={"x.do": ("a", "b")}) as rig:
        with pytest.raises(InvalidArguments):
            await rig.invoke("x.do")
        assert second.calls == []
        assert (await rig.invoke("x.do", arguments={"n": 1})).provider == "b"


async def test_every_provider_is_tried_and_the_last_error_told() -> None:
    a, b, c, d = (failing(ActionFailed(name, code="X")) for name in "abcd")
    async with several(a=a, b=b, c=c, d=d) as rig:
        with pytest.raises(ActionFailed, match="d"):
            await rig.invoke("x.do")
        assert [provider for _, provider, _ in rig.observed] == list("abcd")


async def test_the_deadline_ends_failover() -> None:
    async def slow_failure(call: Call, services: AsyncPort) -> Result:
        await asyncio.sleep(0.03)
        raise NO

    second = Counted(answering("b"))
    async with several(a=nap, b=second) as rig:
        with pytest.raises(DeadlineExceeded):
            await rig.invoke("x.do", timeout_ms=20)
    assert second.calls == []


async def test_a_provider_that_must_be_restarted_comes_last() -> None:
    async with several(a=answering("a"), b=answering("b")) as rig:
        a = rig.handles["a"]
        a.become("starting")
        a.counters.restarts = 1
        assert (await rig.invoke("x.do")).provider == "b"
        a.become("ready")
        assert (await rig.invoke("x.do")).provider == "a"


async def test_quality_and_cost_reach_the_router() -> None:
    handle = handle_of("a", offers("x.do"), settings=PluginSettings(quality=0.9, cost=0.5))
    async with Rig(handle, serve={"a": {"x.do": answering(1)}}) as rig:
        decision = rig.broker.route("x.do")
        assert (decision.confidence, decision.estimated_cost) == (0.9, 0.5)
        await rig.invoke("x.do")
        assert rig.broker.route("x.do").estimated_ms < 50.0


# -- streams


async def collect(rig: Rig, capability: str, **fields: Any) -> list[Any]:
    stream = rig.broker.stream(Request(capability, {}, **fields))
    return [item.output async for item in stream]


async def test_items_come_as_they_are_emitted_and_the_output_last() -> None:
    go_on = asyncio.Event()

    async def serve(call: Call, services: AsyncPort) -> Result:
        await services.emit(call.id, Item(1, b"one", "x/y"))
        await go_on.wait()
        return Result("end", b"z", "x/z")

    async with alone(serve) as rig:
        stream = rig.broker.stream(Request("p.do", {}))
        first = await anext(stream)
        assert (first.output, first.payload, first.content_type) == (1, b"one", "x/y")
        go_on.set()
        last = await anext(stream)
        assert (last.output, last.payload, last.content_type) == ("end", b"z", "x/z")
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_an_empty_output_is_no_item() -> None:
    async with alone(answering(None)) as rig:
        assert await collect(rig, "p.do") == []


async def test_without_a_consumer_the_items_are_in_the_result() -> None:
    async with alone(three_items) as rig:
        result = await rig.invoke("p.do")
        assert [item.output for item in result.items] == [0, 1, 2]
        assert result.output == "end"


async def three_and_fail(call: Call, services: AsyncPort) -> Result:
    await three_items(call, services)
    raise NO


async def test_failover_ends_with_the_first_item() -> None:
    second = Counted(answering("b"))
    async with several(a=failing(NO), b=three_items) as rig:
        assert await collect(rig, "x.do") == [0, 1, 2, "end"]
    seen: list[Any] = []
    async with several(a=three_and_fail, b=second) as rig:
        with pytest.raises(ActionFailed, match=r"no \(after 3 item\(s\)\)") as caught:
            async for item in rig.broker.stream(Request("x.do", {})):
                seen.append(item.output)
        assert "(after 3" in str(caught.value)
    assert (seen, second.calls) == ([0, 1, 2], [])


async def test_a_resumable_stream_goes_on_with_the_second_provider() -> None:
    async with several(resumable=True, a=three_and_fail, b=answering("b")) as rig:
        assert await collect(rig, "x.do") == [0, 1, 2, "b"]


async def test_items_of_a_failed_attempt_are_not_in_the_result() -> None:
    async with several(a=three_and_fail, b=answering("b")) as rig:
        result = await rig.invoke("x.do")
        assert (result.output, result.items) == ("b", [])


async def test_leaving_a_stream_stops_the_plugin_also_when_the_queue_is_full() -> None:
    stopped = asyncio.Event()

    async def endless(call: Call, services: AsyncPort) -> Result:
        try:
            while True:
                await services.emit(call.id, Item(1))
        finally:
            stopped.set()

    async with alone(endless) as rig:
        before = asyncio.all_tasks()
        stream = rig.broker.stream(Request("p.do", {}))
        await anext(stream)
        await asyncio.sleep(0.01)
        await stream.aclose()  # type: ignore[attr-defined]  # it is an async generator
        await asyncio.wait_for(stopped.wait(), 1)
        await until(lambda: asyncio.all_tasks() <= before)
        assert rig.handles["p"].slots.active == 0


async def test_emitting_for_a_call_that_is_not_served_is_refused() -> None:
    async def serve(call: Call, services: AsyncPort) -> Result:
        await services.emit("somebody-elses", Item(1))
        return Result()

    async with alone(serve) as rig:
        with pytest.raises(LoomError, match="p emitted for 'somebody-elses'"):
            await rig.invoke("p.do")


# -- telemetry


async def test_a_nested_call_is_below_its_caller_in_the_trace() -> None:
    async with ring(3, 3) as rig:
        await rig.invoke("p0.do", arguments={"left": 3})
        spans = {span.name: span for span in rig.tracer.last_trace()}
        assert set(spans) == {"invoke p0.do", "invoke p1.do", "invoke p2.do"}
        assert spans["invoke p0.do"].parent_id == ""
        assert spans["invoke p1.do"].parent_id == spans["invoke p0.do"].span_id
        assert spans["invoke p2.do"].parent_id == spans["invoke p1.do"].span_id
        assert spans["invoke p2.do"].attributes == {
            "plugin": "p2",
            "tier": "native",
            "route": "Local",
            "reason": "Only provider",
        }


async def test_a_failed_call_is_an_error_in_the_trace() -> None:
    async with alone(failing(NO)) as rig:
        with pytest.raises(ActionFailed):
            await rig.invoke("p.do")
        assert rig.tracer.last_trace()[0].error == NO.message


async def test_the_only_cloud_provider_is_held_to_the_cost_cap() -> None:
    settings = PluginSettings(cost=0.5)
    dear = handle_of("c", offers("x.do"), settings=settings, permissions=WAY_OUT)
    policies = {"rich": Policy(cost_cap=1.0)}
    async with Rig(dear, serve={"c": {"x.do": answering(1)}}, policies=policies) as rig:
        with pytest.raises(NoProvider, match="Cloud cost exceeds budget"):
            await rig.invoke("x.do")
        assert (await rig.invoke("x.do", agent="rich")).output == 1


@pytest.mark.parametrize(
    ("claim", "told"),
    [
        (PluginUnhealthy("I never saw it", plugin_id="test/a"), OutcomeUnknown),
        (QuotaExceeded(plugin_id="test/a", quota="rate", limit=1, used=2), QuotaExceeded),
    ],
)
async def test_a_plugin_cannot_claim_that_it_never_saw_the_call(
    claim: LoomError, told: type[LoomError]
) -> None:
    other = Counted(answering(1))
    async with several("once", a=failing(claim), b=other) as rig:
        with pytest.raises(told):
            await rig.invoke("x.do")
    assert not other.calls


async def test_a_call_cut_off_as_its_plugin_is_stopped_may_have_happened() -> None:
    async with alone(nap, "once") as rig:
        call = asyncio.create_task(rig.invoke("p.do"))
        handle = rig.handles["p"]
        await until(lambda: handle.inflight)
        await rig.supervisor.unwatch(handle)
        await rig.supervisor.retire(handle, "enough")
        with pytest.raises(OutcomeUnknown, match="was stopped while it served: enough"):
            await call


async def test_a_start_that_cannot_be_broken_off_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor_module, "UNWATCH_S", 0.05)
    async with alone(nap, "none") as rig:
        handle, over = rig.handles["p"], asyncio.Event()

        async def stubborn() -> None:
            while not over.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await over.wait()

        await rig.supervisor.unwatch(handle)
        task = rig.supervisor._tasks[handle.name] = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        await asyncio.wait_for(rig.supervisor.unwatch(handle), 5)
        over.set()
        await task
