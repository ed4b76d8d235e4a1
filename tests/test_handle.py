"""One plugin's slots and state: who waits, who goes first, what is told of it."""

from __future__ import annotations

import asyncio
import time

import pytest

from loom_host import slots as slots_module
from loom_host.handle import Slots
from loom_host.runtimes.fake import FakeInstance
from loom_sdk.errors import PluginUnhealthy, QuotaExceeded

from .hosting import Rig, handle_of, offers


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_slots_are_given_first_come_first_served() -> None:
    slots, order = Slots("a/p", 1, 0.0), list[int]()

    async def work(number: int) -> None:
        await slots.acquire()
        order.append(number)
        await asyncio.sleep(0)
        slots.release()

    await asyncio.gather(*(work(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4]
    assert slots.active == 0


async def test_a_cancelled_waiter_loses_no_slot() -> None:
    slots = Slots("a/p", 1, 0.0)
    await slots.acquire()
    waiting = [asyncio.create_task(slots.acquire()) for _ in range(3)]
    await settle()
    waiting[0].cancel()
    await settle()
    slots.release()  # goes to the second
    waiting[1].cancel()  # which is cancelled while the slot is on its way
    await settle()
    assert waiting[2].done()
    assert not waiting[2].cancelled()
    slots.release()
    assert slots.active == 0
    assert not slots.full


async def test_a_release_and_a_cancellation_at_once() -> None:
    slots = Slots("a/p", 1, 0.0)
    await slots.acquire()
    waiting = asyncio.create_task(slots.acquire())
    await settle()
    waiting.cancel()
    slots.release()
    await settle()
    assert waiting.cancelled()
    assert slots.active == 0


async def test_the_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots_module, "WAITING_MAX", 2)
    slots = Slots("a/p", 1, 0.0)
    await slots.acquire()
    waiting = [asyncio.create_task(slots.acquire()) for _ in range(2)]
    await settle()
    with pytest.raises(QuotaExceeded, match="2 calls wait for it already") as caught:
        await slots.acquire()
    assert caught.value.quota == "concurrency"
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize(("rate", "burst"), [(3.0, 3), (0.5, 1)])
def test_rate(monkeypatch: pytest.MonkeyPatch, rate: float, burst: int) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    slots = Slots("a/p", 1, rate)
    for _ in range(burst):
        slots.spend()
    with pytest.raises(QuotaExceeded) as caught:
        slots.spend()
    assert (caught.value.plugin_id, caught.value.quota, caught.value.limit) == ("a/p", "rate", rate)
    clock[0] += 1.001 / rate
    slots.spend()
    clock[0] += 3600
    for _ in range(burst):
        slots.spend()
    with pytest.raises(QuotaExceeded):
        slots.spend()


def test_no_rate_is_no_limit() -> None:
    slots = Slots("a/p", 1, 0.0)
    for _ in range(1000):
        slots.spend()


async def test_ready_waits_for_a_plugin_on_its_way_and_refuses_a_lost_one() -> None:
    handle = handle_of("p", offers("p.do"))
    waiting = asyncio.create_task(handle.ready())
    await settle()
    handle.become("starting")
    await settle()
    assert not waiting.done()
    async with Rig() as rig:
        handle.instance = FakeInstance("test/p", rig.services(handle), {}, None)
        handle.become("ready")
        assert await waiting is handle.instance
    handle.become("failed", "no disk")
    handle.log_lines.extend(["one", "two"])
    with pytest.raises(PluginUnhealthy, match="p is failed: no disk\n  \\| one\n  \\| two"):
        await handle.ready()


async def test_noticed_ends_with_the_change_or_after_a_moment() -> None:
    handle = handle_of("p")
    handle.become("ready")
    waiting = asyncio.create_task(handle.noticed())
    await settle()
    assert not waiting.done()
    handle.become("starting")
    await asyncio.wait_for(waiting, 0.05)
    handle.become("ready")
    await asyncio.wait_for(handle.noticed(), 1.0)


def test_what_a_plugin_says_of_its_end_shows_no_secret() -> None:
    handle = handle_of("p")
    handle.redactor.add(["s3cret"])
    handle.become("failed", "no login with s3cret")
    assert handle.reason == "no login with [redacted]"
    assert "s3cret" not in handle.explain()


def test_a_spent_quota_is_told_with_the_time_until_it_has_room_and_nothing_is_taken() -> None:
    slots = Slots("test/p", 1, 10.0)
    assert [slots.spent() for _ in range(20)] == [None] * 20
    for _ in range(10):
        slots.spend()
    spent = slots.spent()
    assert spent is not None
    assert spent.back_s is not None
    assert (spent.quota, spent.limit, spent.used) == ("rate", 10.0, 11.0)
    assert 0 < spent.back_s <= 0.1


async def test_a_plugin_that_too_many_wait_for_is_spent_for_nobody_knows_how_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slots_module, "WAITING_MAX", 1)
    slots = Slots("test/p", 1, 0.0)
    await slots.acquire()
    assert slots.spent() is None
    waiting = asyncio.create_task(slots.acquire())
    await asyncio.sleep(0)
    assert slots.spent() == ("concurrency", 1, 2, None)
    slots.release()
    await waiting
    assert slots.spent() is None
