"""The supervisor: order, restarts, circuit, health, stop; one plugin takes no other with it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from loom_host import supervisor as module
from loom_host.manifest import Permissions
from loom_host.runtimes.base import Declaration, PluginSpec
from loom_host.runtimes.fake import FakeInstance
from loom_host.settings import PluginSettings
from loom_host.start_order import check_declaration, dependencies, start_order
from loom_host.supervisor import (
    BACKOFF_FIRST_S,
    BACKOFF_MOST_S,
    backoff_s,
)
from loom_sdk.errors import PluginCrashed, PluginLoadError, ProtocolMismatch
from loom_sdk.port import AsyncPort

from .hosting import Rig, answering, handle_of, hears, offers, until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_FIRST_S", 0.002)
    monkeypatch.setattr(module, "HEALTH_EVERY_S", 0.01)
    monkeypatch.setattr(module, "HEALTH_TIMEOUT_S", 0.05)


def user_of(name: str, *others: str) -> Any:
    invoke = tuple(f"{other}.do" for other in others)
    return handle_of(name, offers(f"{name}.do"), permissions=Permissions(invoke=invoke))


def on_start(rig: Rig, before: Callable[[PluginSpec], Any]) -> None:
    """Let `before` run, and be awaited, ahead of every start."""
    start = rig.runtime.start

    async def wrapped(spec: PluginSpec, services: AsyncPort) -> FakeInstance:
        waiting = before(spec)
        if waiting is not None:
            await waiting
        return await start(spec, services)

    rig.runtime.start = wrapped  # type: ignore[method-assign]  # a probe on the fake


# -- pure parts


def test_dependencies_follow_the_invoke_grants() -> None:
    handles = [user_of("a", "b", "c"), user_of("b", "c", "b"), user_of("c")]
    assert dependencies(handles) == {"a": {"b", "c"}, "b": {"c"}, "c": set()}


def test_a_circle_starts_all_at_once() -> None:
    graph = {"a": {"b"}, "b": {"a"}, "c": {"a"}}
    assert start_order(graph) == {"a": set(), "b": set(), "c": set()}
    line = {"a": {"b"}, "b": set[str]()}
    assert start_order(line) == line


def test_backoff_doubles_with_jitter_up_to_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_FIRST_S", BACKOFF_FIRST_S)
    for attempt in range(1, 12):
        plain = min(BACKOFF_FIRST_S * 2 ** (attempt - 1), BACKOFF_MOST_S)
        delays = [backoff_s(attempt) for _ in range(20)]
        assert all(plain <= delay <= plain * 1.5 for delay in delays)
        assert len(set(delays)) > 1


# -- start


async def test_a_plugin_starts_after_those_it_invokes() -> None:
    order: list[str] = []
    rig = Rig(user_of("a", "b"), user_of("b", "c"), user_of("c"))
    on_start(rig, lambda spec: order.append(spec.name))
    async with rig:
        assert order == ["c", "b", "a"]
        assert all(h.state == "ready" for h in rig.handles.values())


async def test_independent_plugins_start_at_the_same_time() -> None:
    together = asyncio.Barrier(3)
    rig = Rig(*(handle_of(name) for name in "abc"))
    on_start(rig, lambda spec: together.wait())
    async with asyncio.timeout(2), rig:
        assert together.n_waiting == 0


async def test_nobody_waits_for_a_plugin_in_the_background() -> None:
    gate = asyncio.Event()
    slow = handle_of("slow", settings=PluginSettings(start="background"))
    rig = Rig(slow, handle_of("quick"))
    on_start(rig, lambda spec: gate.wait() if spec.name == "slow" else None)
    async with rig:
        assert rig.handles["quick"].state == "ready"
        await asyncio.sleep(0)
        assert slow.state == "starting"
        settled = asyncio.create_task(rig.supervisor.settled())
        await asyncio.sleep(0.01)
        assert not settled.done()
        gate.set()
        await asyncio.wait_for(settled, 1)
        assert slow.state == "ready"


@pytest.mark.parametrize(
    "error",
    [
        PluginLoadError("no such module"),
        ProtocolMismatch("too new"),
        ValueError("a bug of the runtime"),
    ],
)
async def test_a_plugin_that_cannot_start_takes_no_other_with_it(error: Exception) -> None:
    rig = Rig(handle_of("bad"), user_of("good", "bad"))

    def fail(spec: PluginSpec) -> None:
        if spec.name == "bad":
            raise error

    on_start(rig, fail)
    async with asyncio.timeout(2), rig:
        bad, good = rig.handles["bad"], rig.handles["good"]
        assert (bad.state, good.state) == ("failed", "ready")
        assert str(error) in bad.reason
        assert bad.counters.restarts == 0
    assert bad.state == "failed"
    assert good.state == "stopped"


async def test_a_missing_tier_is_told() -> None:
    async with Rig(handle_of("p", tier="grpc")) as rig:
        assert rig.handles["p"].reason == "p: this host has no grpc tier"


async def test_a_start_that_hangs_is_ended_and_tried_again_while_the_host_goes_on() -> None:
    starts = 0

    def hang_once(spec: PluginSpec) -> Any:
        nonlocal starts
        if spec.name == "slow":
            starts += 1
        return asyncio.sleep(9) if spec.name == "slow" and starts == 1 else None

    rig = Rig(handle_of("slow", start_timeout_s=0.05), handle_of("good"))
    on_start(rig, hang_once)
    began = time.monotonic()
    async with rig:
        assert time.monotonic() - began < 2
        slow = rig.handles["slow"]
        await until(lambda: slow.state == "ready")
        assert (starts, slow.counters.restarts) == (2, 1)


async def test_a_start_that_always_hangs_opens_the_circuit_but_does_not_hold_the_host() -> None:
    rig = Rig(handle_of("slow", start_timeout_s=0.03), handle_of("good"))
    on_start(rig, lambda spec: asyncio.sleep(9) if spec.name == "slow" else None)
    async with rig:
        slow = rig.handles["slow"]
        assert slow.state == "starting"
        assert rig.handles["good"].state == "ready"
        await until(lambda: slow.state == "failed")
        assert "6 failures in 60 s, the last: slow was not ready within 0.03 s" in slow.reason


# -- restart


async def test_a_crash_restarts_with_the_state_in_between(caplog: pytest.LogCaptureFixture) -> None:
    async with Rig(handle_of("p", offers("p.do")), serve={"p": {"p.do": answering(1)}}) as rig:
        first = rig.instance("p")
        with caplog.at_level(logging.WARNING, "loom.supervisor"):
            first.crash("killed by signal 9")
            await until(lambda: rig.handles["p"].state == "starting")
            assert rig.handles["p"].reason == "killed by signal 9"
            await until(lambda: rig.handles["p"].state == "ready")
        assert rig.handles["p"].instance is rig.instance("p") is not first
        assert rig.handles["p"].counters.restarts == 1
        assert "p ended (killed by signal 9), restart in 0.0" in caplog.text


async def test_too_many_crashes_open_the_circuit() -> None:
    async with Rig(handle_of("p"), handle_of("other")) as rig:
        handle = rig.handles["p"]
        handle.log_lines.append("out of disk")
        for count in range(PluginSettings().restarts + 1):
            await until(lambda: handle.state == "ready")
            assert handle.counters.restarts == count
            rig.instance("p").crash("boom")
            await until(lambda: handle.state != "ready")
        await until(lambda: handle.state == "failed")
        assert handle.reason == "6 failures in 60 s, the last: boom"
        assert handle.explain().endswith("the last: boom\n  | out of disk")
        assert handle.counters.restarts == PluginSettings().restarts
        assert rig.handles["other"].state == "ready"


async def test_the_operator_says_how_many_restarts_there_are() -> None:
    strict = handle_of("strict", settings=PluginSettings(restarts=0))
    async with Rig(strict, handle_of("other")) as rig:
        rig.instance("strict").crash("boom")
        rig.instance("other").crash("boom")
        await until(lambda: strict.state == "failed")
        assert strict.reason == "1 failures in 60 s, the last: boom"
        await until(lambda: rig.handles["other"].counters.restarts == 1)


async def test_old_crashes_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CIRCUIT_WINDOW_S", 0.0)
    async with Rig(handle_of("p")) as rig:
        for _ in range(PluginSettings().restarts + 3):
            await until(lambda: rig.handles["p"].state == "ready")
            rig.instance("p").crash()
            await until(lambda: rig.handles["p"].state != "ready")
        await until(lambda: rig.handles["p"].state == "ready")


async def test_a_crash_while_starting_is_tried_again() -> None:
    rig = Rig(handle_of("p"))
    rig.runtime.failures = [PluginCrashed("exited with 1")] * 2
    async with rig:
        await until(lambda: rig.handles["p"].state == "ready")
        assert rig.handles["p"].counters.restarts == 2


async def test_what_has_been_ready_is_tried_again_when_a_restart_fails() -> None:
    async with Rig(handle_of("p")) as rig:
        rig.runtime.failures = [PluginLoadError("killed by SIGKILL at start")] * 2
        rig.instance("p").crash()
        await until(lambda: rig.handles["p"].counters.restarts == 3)
        await until(lambda: rig.handles["p"].state == "ready")


async def test_a_restart_that_always_fails_opens_the_circuit() -> None:
    async with Rig(handle_of("p", settings=PluginSettings(restarts=2))) as rig:
        rig.runtime.failures = [PluginLoadError("no model")] * 9
        rig.instance("p").crash()
        await until(lambda: rig.handles["p"].state == "failed")
        assert rig.handles["p"].reason == "3 failures in 60 s, the last: no model"


# -- health


async def test_a_sick_plugin_is_degraded_until_it_is_well() -> None:
    async with Rig(handle_of("p")) as rig:
        handle, instance = rig.handles["p"], rig.instance("p")
        instance.sick = "disk almost full"
        await until(lambda: handle.state == "degraded")
        assert handle.reason == "disk almost full"
        instance.sick = ""
        await until(lambda: handle.state == "ready")
        assert handle.reason == ""
        assert handle.counters.restarts == 0


@pytest.mark.parametrize("how", ["raise", "hang"])
async def test_missed_health_checks_restart(how: str) -> None:
    async def health() -> str:
        if how == "raise":
            raise PluginCrashed("no answer")
        await asyncio.sleep(9)
        return ""

    async with Rig(handle_of("p")) as rig:
        rig.instance("p").health = health  # type: ignore[method-assign]  # a sick fake
        await until(lambda: rig.handles["p"].counters.restarts == 1)
        await until(lambda: rig.handles["p"].state == "ready")
        assert ("p", "starting") in rig.states


# -- stop


async def test_stop_asks_in_reverse_start_order() -> None:
    order: list[tuple[str, float]] = []
    async with Rig(user_of("a", "b"), user_of("b", "c"), user_of("c")) as rig:
        for name in "abc":

            async def aclose(grace_s: float, name: str = name) -> None:
                order.append((name, grace_s))

            rig.instance(name).aclose = aclose  # type: ignore[method-assign]  # a probe
    assert order == [("a", 0.2), ("b", 0.2), ("c", 0.2)]
    assert [state for name, state in rig.states if name == "a"][-2:] == ["draining", "stopped"]


async def test_a_stop_that_fails_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with Rig(handle_of("a"), handle_of("b")) as rig:

        async def aclose(grace_s: float) -> None:
            raise TimeoutError

        rig.instance("b").aclose = aclose  # type: ignore[method-assign]  # a probe
    assert {h.state for h in rig.handles.values()} == {"stopped"}
    assert "b did not stop cleanly: TimeoutError" in caplog.text


async def test_stopping_in_the_middle_of_a_start_or_a_restart() -> None:
    rig = Rig(handle_of("p"), handle_of("q", settings=PluginSettings(start="background")))
    on_start(rig, lambda spec: asyncio.sleep(9) if spec.name == "q" else None)
    async with rig:
        rig.runtime.failures = [PluginCrashed("x")] * 9
        rig.instance("p").crash()
        await until(lambda: rig.handles["p"].state == "starting")
    assert [h.state for h in rig.handles.values()] == ["stopped", "stopped"]
    await rig.supervisor.aclose()


# -- what the code says must agree with the manifest


def declared(*capabilities: str, topics: tuple[str, ...] = ()) -> Any:
    class Said:
        declaration = Declaration(tuple(map(offers, capabilities)), tuple(map(hears, topics)))

    return Said()


def test_the_declaration_must_agree_with_the_manifest() -> None:
    handle = handle_of("p", offers("p.a"), offers("p.b"), subscribes=[hears("notes")])
    check_declaration(handle, declared("p.a", "p.b", topics=("notes",)))
    check_declaration(handle, declared())
    for said, told in (
        (declared("p.a", "p.b", "p.c"), r"offers p.c, .* add it under \[\[capability\]\]"),
        (declared(topics=("query",)), r"subscribes to query, .*\[\[events.subscribes\]\]"),
        (declared("p.a"), "lists p.b in plugin.toml but its code does not offer it"),
    ):
        with pytest.raises(PluginLoadError, match=told):
            check_declaration(handle, said)


async def test_a_plugin_that_says_otherwise_is_closed_and_failed() -> None:
    rig = Rig(handle_of("p", offers("p.a")), serve={"p": {"p.z": answering(1)}})
    async with rig:
        assert rig.handles["p"].state == "failed"
        assert "offers p.z" in rig.handles["p"].reason
        assert rig.instance("p")._exit.cancelled()
