"""Events on their way into plugins: acknowledgement, redelivery, dead letters, order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from loom_host import supervisor as supervisor_module
from loom_host.quotas import Quotas
from loom_host.runtimes.fake import FakeInstance
from loom_host.settings import PluginSettings
from loom_sdk import Call, Event, QoS, Result
from loom_sdk.errors import ActionFailed, PluginCrashed
from loom_sdk.plugin import SubscriptionSpec
from loom_sdk.port import AsyncPort

from .hosting import Rig, dead_letters, handle_of, hears, next_of, offers, until


@pytest.fixture(autouse=True)
def quick_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "BACKOFF_FIRST_S", 0.002)


class Ear:
    """Notes what it hears, unless `first` raises, or crashes the plugin and says so by True."""

    def __init__(self, first: Callable[[Event], bool] = lambda event: False) -> None:
        self.first = first
        self.heard: list[tuple[str, int]] = []

    async def __call__(self, event: Event, services: AsyncPort) -> None:
        if self.first(event):
            await asyncio.sleep(9)
        self.heard.append((event.type, event.delivery_attempt))


def listening(ear: Ear, *specs: SubscriptionSpec, quotas: Quotas | None = None) -> Rig:
    handle = handle_of("p", subscribes=specs or (hears("notes"),), quotas=quotas)
    return Rig(handle, hear={"p": ear})


async def publish(rig: Rig, *types: str, topic: str = "notes") -> None:
    for kind in types:
        await rig.bus.publish(topic, Event(kind, kind.encode()))


async def test_events_arrive_in_order_and_are_acknowledged() -> None:
    ear = Ear()
    async with listening(ear) as rig:
        await publish(rig, *"abcde")
        await until(lambda: len(ear.heard) == 5)
        assert ear.heard == [(kind, 1) for kind in "abcde"]
        (subscription,) = rig.pumps[0].subscriptions
        await until(lambda: subscription.stats()["acked"] == 5)
        assert rig.handles["p"].counters.events == 5
        assert rig.handles["p"].inflight == {}


async def test_only_what_is_granted_is_subscribed() -> None:
    specs = (hears("audio.>"), hears("notes"), hears("query"))
    handle = handle_of(
        "p", subscribes=specs, allow={"subscribe": ("audio.mic", "audio.out", "notes")}
    )
    async with Rig(handle, hear={"p": Ear()}) as rig:
        assert [s.pattern for s in rig.pumps[0].subscriptions] == [
            "audio.mic", "audio.out", "notes",
        ]  # fmt: skip


async def test_what_another_subscription_asks_for_is_not_heard_twice() -> None:
    specs = (hears("audio.>"), hears("audio.mic"))
    handle = handle_of("p", subscribes=specs, allow={"subscribe": ("audio.mic",)})
    async with Rig(handle, hear={"p": Ear()}) as rig:
        assert [s.pattern for s in rig.pumps[0].subscriptions] == ["audio.mic"]


async def test_types_are_filtered() -> None:
    ear = Ear()
    async with listening(ear, SubscriptionSpec("notes", types=("b",))) as rig:
        await publish(rig, *"abc")
        await until(lambda: ear.heard)
        assert ear.heard == [("b", 1)]


async def test_one_at_a_time_unless_the_subscription_says_more() -> None:
    for concurrency, most in ((1, 1), (3, 3)):
        running, peak = 0, 0

        async def hear(event: Event, services: AsyncPort) -> None:
            nonlocal running, peak
            running += 1
            peak = max(peak, running)
            await asyncio.sleep(0.002)
            running -= 1

        handle = handle_of(
            "p", subscribes=[hears("notes", concurrency=concurrency)], quotas=Quotas(concurrency=4)
        )
        async with Rig(handle, hear={"p": hear}) as rig:
            await publish(rig, *"abcdef")
            counters = rig.handles["p"].counters
            await until(lambda c=counters: c.events == 6 and not running)  # type: ignore[misc]  # early binding
        assert peak == most


async def test_calls_and_events_share_the_plugins_concurrency() -> None:
    running, peak = 0, 0

    async def work() -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.002)
        running -= 1

    async def serve(call: Call, services: AsyncPort) -> Result:
        await work()
        return Result()

    async def hear(event: Event, services: AsyncPort) -> None:
        await work()

    handle = handle_of("p", offers("p.do"), subscribes=[hears("notes")])
    async with Rig(handle, serve={"p": {"p.do": serve}}, hear={"p": hear}) as rig:
        await publish(rig, *"abc")
        await asyncio.gather(*(rig.invoke("p.do") for _ in range(3)))
        await until(lambda: rig.handles["p"].counters.events == 3 and not running)
        assert peak == 1


@pytest.mark.parametrize("qos", [QoS.BATCHED, QoS.BACKGROUND])
async def test_after_a_crash_the_event_comes_again_first_and_in_order(qos: QoS) -> None:
    def crash_once(event: Event) -> bool:
        dies = event.type == "a" and event.delivery_attempt == 1
        if dies:
            rig.instance("p").crash("killed")
        return dies

    ear = Ear(crash_once)
    async with listening(ear, hears("notes", qos)) as rig:
        await publish(rig, *"abc")
        await until(lambda: len(ear.heard) == 3)
        assert ear.heard == [("a", 2), ("b", 1), ("c", 1)]
        assert rig.handles["p"].counters.restarts == 1


async def test_an_event_that_kills_three_times_is_a_dead_letter(
    caplog: pytest.LogCaptureFixture,
) -> None:
    attempts: list[int] = []

    def poison(event: Event) -> bool:
        if event.type != "poison":
            return False
        attempts.append(event.delivery_attempt)
        rig.instance("p").crash("poisoned")
        return True

    ear = Ear(poison)
    async with listening(ear) as rig:
        async with dead_letters(rig.bus) as dead:
            await publish(rig, "poison", "after")
            letter = await next_of(dead)
        assert attempts == [1, 2, 3]
        assert letter.payload == b"poison"
        assert letter.metadata["subscription"] == "p:notes"
        assert (
            letter.metadata["reason"]
            == "not acknowledged in 3 attempts (the last: the plugin ended: poisoned)"
        )
        await until(lambda: ("after", 1) in ear.heard)
        assert rig.handles["p"].counters.restarts == 3
        assert rig.handles["p"].counters.errors == 3
        assert caplog.messages.count("p:notes: the plugin ended: poisoned") == 3


async def test_a_realtime_event_is_not_worth_a_second_try() -> None:
    def crash(event: Event) -> bool:
        if event.type == "a":
            rig.instance("p").crash("killed")
        return event.type == "a"

    ear = Ear(crash)
    async with listening(ear, hears("notes", QoS.REALTIME)) as rig:
        async with dead_letters(rig.bus) as dead:
            await publish(rig, "a", "b")
            letter = await next_of(dead)
        assert letter.metadata["reason"].startswith("plugin ended: ")
        await until(lambda: ("b", 1) in ear.heard)


async def test_a_handlers_error_is_a_dead_letter_at_once(caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: Event) -> bool:
        if event.type == "bad":
            raise ActionFailed("cannot read this", code="X")
        if event.type == "worse":
            raise KeyError("a bug of a runtime")
        if event.type == "nested":
            raise PluginCrashed("q died", plugin_id="test/q")
        return False

    ear = Ear(fail)
    async with listening(ear) as rig:
        async with dead_letters(rig.bus) as dead:
            await publish(rig, "bad", "worse", "nested", "good")
            reasons = [(await next_of(dead)).metadata["reason"] for _ in range(3)]
        assert reasons == [
            "handler failed: cannot read this",
            "handler failed: KeyError: 'a bug of a runtime'",
            "handler failed: q died",
        ]
        await until(lambda: ear.heard == [("good", 1)])
        assert rig.handles["p"].counters.errors == 3
        assert rig.handles["p"].counters.restarts == 0
        assert "p:notes: cannot read this" in caplog.text


async def test_a_handler_has_a_deadline() -> None:
    async def hear(event: Event, services: AsyncPort) -> None:
        await asyncio.sleep(9)

    handle = handle_of("p", subscribes=[hears("notes")], quotas=Quotas(deadline_ms=20))
    async with Rig(handle, hear={"p": hear}) as rig, dead_letters(rig.bus) as dead:
        await publish(rig, "a")
        assert "did not handle notes within 20 ms" in (await next_of(dead)).metadata["reason"]
        assert handle.slots.active == 0


async def test_events_of_a_failed_plugin_are_dead_letters() -> None:
    async with listening(Ear()) as rig, dead_letters(rig.bus) as dead:
        rig.handles["p"].become("failed", "no disk")
        await publish(rig, "a")
        assert (await next_of(dead)).metadata["reason"] == "p is failed: no disk"


async def test_events_wait_for_a_plugin_that_is_starting() -> None:
    ear = Ear()
    handle = handle_of(
        "p", subscribes=[hears("notes")], settings=PluginSettings(start="background")
    )
    rig = Rig(handle, hear={"p": ear})
    rig.runtime.failures = [PluginCrashed("exited with 1", plugin_id="test/p")] * 2
    async with rig:
        await publish(rig, *"ab")
        await until(lambda: len(ear.heard) == 2)
        assert ear.heard == [("a", 1), ("b", 1)]


async def test_what_a_handler_publishes_is_below_it_in_the_trace() -> None:
    async def hear(event: Event, services: AsyncPort) -> None:
        await services.publish(Event("echo", topic="echo"), event.id)

    handle = handle_of("p", subscribes=[hears("notes")], publishes=["echo"])
    async with Rig(handle, hear={"p": hear}) as rig:
        root = rig.tracer.start("root")
        async with rig.bus.subscribe("echo") as echoes:
            await rig.bus.publish("notes", Event("a", traceparent=root.traceparent))
            echo = await next_of(echoes)
        await until(lambda: rig.tracer.finished(root.trace_id))
        (span,) = rig.tracer.finished(root.trace_id)
        assert (span.name, span.parent_id) == ("handle notes", root.span_id)
        assert echo.traceparent == span.traceparent


async def test_a_handler_over_its_quota_of_log_lines_does_not_end_the_pump() -> None:
    heard: list[str] = []

    class Chatty(FakeInstance):
        """Runs the handler in the task of the pump, as the native tier does."""

        async def handle_event(self, event: Event) -> int:
            heard.append(event.type)
            if event.type == "flood":
                for _ in range(50):
                    self.services.log("info", "x" * 100, {}, "")
            return 0

    handle = handle_of("p", subscribes=[hears("notes")], quotas=Quotas(log_bytes=500))
    async with Rig(handle) as rig, dead_letters(rig.bus) as dead:
        rig.instance("p").__class__ = Chatty
        await publish(rig, "flood", "after")
        assert "log_bytes" in (await next_of(dead)).metadata["reason"]
        await until(lambda: heard == ["flood", "after"])


async def test_an_event_that_waits_for_a_place_at_a_plugin_that_leaves_is_a_dead_letter() -> None:
    ear = Ear()
    async with listening(ear) as rig, dead_letters(rig.bus) as dead:
        handle, pump = rig.handles["p"], rig.pumps[0]
        await handle.slots.acquire()
        await publish(rig, "a")
        await until(lambda: handle.slots._waiting)
        await pump.retire(0.0, "it leaves")
        handle.yield_to(handle_of("q"), "replaced by q")
        letter = await next_of(dead)
        assert letter.metadata["reason"] == "p is draining: replaced by q"
        assert ear.heard == []
