"""Session with real children: the SDK's own, and one that breaks a rule per capability."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from loom_host.runtimes.grpc.asks import BACKLOG
from loom_host.runtimes.grpc.inbox import Inbox
from loom_host.runtimes.grpc.instance import GrpcInstance
from loom_host.runtimes.grpc.session import Session
from loom_sdk import Call, Event, Item
from loom_sdk.errors import (
    ActionFailed,
    DeadlineExceeded,
    LoomError,
    PluginCrashed,
    PluginError,
    ProtocolMismatch,
    QuotaExceeded,
)
from loom_sdk.frames import WINDOW

from .test_runtime_grpc import AsyncServices, Bench, timed, until, with_deadline

ROGUE = (sys.executable, "rogue_session.py", "1")


class SlowServices(AsyncServices):
    """Takes items only while `open` is set; answers large values."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.port)
        self.open = asyncio.Event()
        self.taken = 0

    async def emit(self, call_id: str, item: Item) -> None:
        await self.open.wait()
        self.taken += 1

    async def kv_get(self, key: str) -> bytes | None:
        return bytes(100_000) if key == "large" else self._port.store.get(key)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.runtime.aclose()


@asynccontextmanager
async def rogue(bench: Bench, **options: Any) -> AsyncIterator[GrpcInstance]:
    async with bench.plugin(ROGUE, **options) as instance:
        yield instance


def inbox_of(instance: GrpcInstance) -> Inbox:
    link = instance._link
    assert isinstance(link, Session)
    return link.inbox


async def said(instance: GrpcInstance, mode: str) -> Any:
    return (await instance.invoke(Call(f"rogue.{mode}", {}))).output


# ---- What it carries -------------------------------------------------------------------------


async def test_3_mb_travel_both_ways_in_frames(bench: Bench) -> None:
    async with bench.plugin("Echo", output_bytes=16_000_000) as echo:
        sound = os.urandom(3_000_000)
        answer = await echo.invoke(Call("echo.payload", {}, sound, "audio/pcm"))
        assert answer.payload == sound[::-1]
        text = "ä" * 1_500_000
        answer = await echo.invoke(Call("echo.json", {"value": text}))
        assert answer.output["value"] == text
        event = Event("chunk", sound, topic="audio.mic")
        assert await echo.handle_event(event) > 0
        assert bench.port.published[-1].payload == sound


async def test_a_large_call_does_not_hold_up_a_small_one(bench: Bench) -> None:
    async with bench.plugin("Crowd", concurrency=2, output_bytes=64_000_000) as crowd:
        large = asyncio.create_task(crowd.invoke(Call("crowd.back", {}, bytes(20_000_000))))
        await asyncio.sleep(0)
        small = await crowd.invoke(Call("crowd.back", {}, b"small"))
        assert small.payload == b"small"
        assert not large.done()
        assert len((await large).payload) == 20_000_000


async def test_64_calls_at_once_each_get_their_own_answer(bench: Bench) -> None:
    async with bench.plugin("Crowd", concurrency=64, memory=0) as crowd:
        calls = [
            Call("crowd.late" if n % 2 else "crowd.back", {"n": n} if n % 2 else {}, b"%d" % n)
            for n in range(64)
        ]
        answers = await asyncio.gather(*(crowd.invoke(call) for call in calls))
        assert [answer.payload for answer in answers] == [b"%d" % n for n in range(64)]


async def test_events_are_acknowledged_one_by_one_and_in_the_order_of_their_handling(
    bench: Bench,
) -> None:
    async with bench.plugin("Echo") as echo:
        acknowledged: list[str] = []

        async def deliver(name: str) -> None:
            await echo.handle_event(Event(name, name.encode(), topic="audio.mic"))
            acknowledged.append(name)

        names = [f"e{n}" for n in range(20)]
        await asyncio.gather(*map(deliver, names))
        assert [event.payload.decode() for event in bench.port.published] == names
        assert acknowledged == names
        again = Event("again", topic="audio.mic", delivery_attempt=2)
        first, second = await asyncio.gather(echo.handle_event(again), echo.handle_event(again))
        assert min(first, second) > 0  # the same event twice is two deliveries


async def test_1000_items_reach_a_slow_consumer_within_bounds(bench: Bench) -> None:
    services = bench.services = SlowServices(bench)
    async with bench.plugin("Crowd", output_bytes=100_000_000) as crowd:
        call = Call("crowd.pour", {"count": 1000, "size": 10_000})
        pouring = asyncio.create_task(crowd.invoke(call))
        await asyncio.sleep(0.5)
        waiting = inbox_of(crowd).pending[call.id]
        assert waiting.size <= (WINDOW + 1) * 11_000  # 10 MB are there to be had
        poured = len(list((bench.folder / "data").glob("poured-*")))
        assert 0 < poured <= WINDOW + 10
        services.open.set()
        assert (await pouring).output == {"count": 1000}
        assert services.taken == 1000


async def test_a_slow_consumer_of_large_items_holds_up_nobody_else(bench: Bench) -> None:
    services = bench.services = SlowServices(bench)
    async with bench.plugin("Crowd", concurrency=2, output_bytes=100_000_000) as crowd:
        pouring = asyncio.create_task(
            crowd.invoke(Call("crowd.pour", {"count": 100, "size": 200_000}))
        )
        await asyncio.sleep(0.3)
        assert (await crowd.invoke(Call("crowd.back", {}, b"x"))).payload == b"x"
        assert await crowd.health() == ""
        services.open.set()
        assert (await pouring).output == {"count": 100}
        assert services.taken == 100


async def test_logs_come_before_the_result_that_they_precede(bench: Bench) -> None:
    async with bench.plugin("Crowd", log_bytes=10**9) as crowd:
        await crowd.invoke(Call("crowd.talk", {"lines": 500}))
        spoken = [line for line in bench.port.logs if line.startswith("info: line ")]
        assert spoken == [f"info: line {n}" for n in range(500)]
        await crowd.invoke(Call("crowd.talk", {"lines": 1, "size": 300_000}))
        assert any(len(line) > 8_000 for line in bench.port.logs)  # shortened, not lost


async def test_nested_calls_streams_and_host_calls_in_crowds(bench: Bench) -> None:
    async with bench.plugin("Crowd") as crowd:
        answer = await crowd.invoke(Call("crowd.asks", {"times": 200}))
        assert answer.output == {"values": 200, "nested": [1, 2]}
        assert inbox_of(crowd).malformed == 0


# ---- Cancellation ----------------------------------------------------------------------------


async def test_a_sync_handler_is_told_that_nobody_waits(bench: Bench) -> None:
    async with bench.plugin("Crowd") as crowd:
        _, error = await timed(with_deadline(crowd, Call("crowd.patient", {}), 0.1))
        assert isinstance(error, TimeoutError)
        await until(lambda: "info: told to stop, 0 ms left" in bench.port.logs)
        assert (await crowd.invoke(Call("crowd.back", {}, b"x"))).payload == b"x"


async def test_a_stream_that_is_cancelled_in_the_middle_stops(bench: Bench) -> None:
    services = bench.services = SlowServices(bench)
    async with bench.plugin("Crowd", output_bytes=10**9) as crowd:
        call = Call("crowd.pour", {"count": 100_000, "size": 100_000})
        _, error = await timed(with_deadline(crowd, call, 0.3))
        assert isinstance(error, TimeoutError)
        services.open.set()
        assert (await crowd.invoke(Call("crowd.back", {}, b"x"))).payload == b"x"
        await until(lambda: not inbox_of(crowd).pending)


async def test_a_large_call_that_is_cancelled_on_its_way_leaves_nothing(bench: Bench) -> None:
    async with bench.plugin("Crowd", output_bytes=64_000_000) as crowd:
        for wait in (0, 0.001, 0.01, 0.05):
            call = asyncio.create_task(crowd.invoke(Call("crowd.back", {}, bytes(30_000_000))))
            await asyncio.sleep(wait)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        assert (await crowd.invoke(Call("crowd.back", {}, b"x"))).payload == b"x"
        await until(lambda: not inbox_of(crowd).pending)
        assert await crowd.health() == ""


async def test_an_answer_that_nobody_took_in_time_is_not_given_to_the_next(bench: Bench) -> None:
    async with bench.plugin("Crowd", concurrency=4) as crowd:
        for n in range(20):
            late = asyncio.create_task(crowd.invoke(Call("crowd.late", {"n": n}, b"late")))
            await asyncio.sleep(0.002 * (n % 5))
            late.cancel()
            assert (await crowd.invoke(Call("crowd.back", {}, b"%d" % n))).payload == b"%d" % n


# ---- A child that breaks the rules -----------------------------------------------------------


async def test_frames_for_what_is_not_in_flight_are_ignored_and_counted(bench: Bench) -> None:
    async with rogue(bench) as child:
        assert await said(child, "other_id") == "mine"
        assert inbox_of(child).ignored == 3
        assert await said(child, "twice") == "once"
        assert await said(child, "honest") == "well"
        assert inbox_of(child).ignored == 4
        assert bench.port.items == []


async def test_answers_may_come_in_any_order(bench: Bench) -> None:
    async with rogue(bench) as child:
        first = asyncio.create_task(said(child, "waits"))
        await asyncio.sleep(0.05)
        assert await said(child, "out_of_order") == "second"
        assert await first == "first"


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("garbage", "cannot be read"),
        ("oversize", "at most 65536 are allowed"),
        ("beyond_credit", "nobody had taken yet"),
        ("mixed_chunks", "belongs to something else"),
        ("chunks_of_garbage", "are no frame"),
    ],
)
async def test_a_broken_frame_ends_its_call_and_not_the_stream(
    bench: Bench, mode: str, text: str
) -> None:
    bench.services = SlowServices(bench)
    if mode != "beyond_credit":
        bench.services.open.set()
    async with rogue(bench) as child:
        call = asyncio.create_task(said(child, mode))
        if mode == "beyond_credit":
            await asyncio.sleep(0.2)
            bench.services.open.set()
        with pytest.raises(PluginError, match=text):
            await call
        assert await said(child, "honest") == "well"
        assert inbox_of(child).malformed >= 1


async def test_frames_of_no_known_kind_change_nothing(bench: Bench) -> None:
    async with rogue(bench) as child:
        assert await said(child, "nothing") == "still here"
        assert await said(child, "senseless") == "ignored"
        assert await said(child, "oversize_of_other") == "unharmed"
        assert inbox_of(child).malformed == 5


async def test_an_answer_without_end_meets_the_output_quota(bench: Bench) -> None:
    async with rogue(bench, output_bytes=1_000_000) as child:
        with pytest.raises(QuotaExceeded) as caught:
            await said(child, "endless_chunks")
        assert (caught.value.quota, caught.value.limit) == ("output_bytes", 1_000_000)
        assert await said(child, "honest") == "well"


async def test_a_parent_that_the_child_does_not_serve_is_refused(bench: Bench) -> None:
    async with rogue(bench) as child:
        assert await said(child, "forged_parent") == ["PERMISSION_DENIED"] * 4
        assert bench.port.calls == []
        assert bench.port.published == []


async def test_more_host_calls_than_allowed_are_refused(bench: Bench) -> None:
    async with rogue(bench) as child:
        assert await said(child, "flood") == ["QUOTA_EXCEEDED"] * 6


async def test_a_child_that_never_reads_costs_its_own_calls_only(bench: Bench) -> None:
    bench.services = SlowServices(bench)
    async with rogue(bench) as child, bench.plugin("Crowd") as crowd:
        before = psutil.Process().memory_info().rss
        deaf = asyncio.create_task(child.invoke(Call("rogue.deaf", {}, remaining_ms=600)))
        await asyncio.sleep(0.5)
        link = child._link
        assert isinstance(link, Session)
        assert len(link._outbox) <= BACKLOG + WINDOW
        assert psutil.Process().memory_info().rss - before < 150_000_000
        assert (await crowd.invoke(Call("crowd.back", {}, b"x"))).payload == b"x"
        deaf.cancel()
        await asyncio.gather(deaf, return_exceptions=True)
        assert "did not stop" in await child.wait_exit()


async def test_a_child_that_ends_its_stream_is_ended(bench: Bench) -> None:
    async with rogue(bench) as child:
        with pytest.raises(LoomError):
            await said(child, "ends")
        assert "ended its Session" in await child.wait_exit()
        await asyncio.wait_for(asyncio.shield(child.child.exited), 1)
        assert not psutil.pid_exists(child.child.pid)


async def test_another_version_is_a_mismatch_that_says_what_to_upgrade(bench: Bench) -> None:
    for version, upgrade in (("2", "upgrade loom-host"), ("0", "upgrade the plugin")):
        spec = bench.spec((sys.executable, "rogue_session.py", version))
        with pytest.raises(ProtocolMismatch, match=f"chose api '{version}', the host .* {upgrade}"):
            await bench.runtime.start(spec, bench.services)


# ---- The child's end -------------------------------------------------------------------------


async def test_a_killed_child_ends_all_its_calls_at_once(bench: Bench) -> None:
    async with bench.plugin("Hostile", concurrency=8) as hostile:
        calls = [asyncio.create_task(hostile.invoke(Call("hostile.wait", {}))) for _ in range(8)]
        await asyncio.sleep(0.1)
        hostile.child.kill("killed by the test")
        answers = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 1)
        assert {type(answer) for answer in answers} == {PluginCrashed}


async def test_errors_keep_their_type_and_a_long_text_is_cut(bench: Bench) -> None:
    async with bench.plugin("Crowd") as crowd:
        with pytest.raises(ActionFailed) as caught:
            await crowd.invoke(Call("crowd.wail", {"size": 500_000}))
        assert 1000 < len(caught.value.message) < 20_000
        with pytest.raises(DeadlineExceeded):
            await crowd.invoke(Call("crowd.expire", {}))
