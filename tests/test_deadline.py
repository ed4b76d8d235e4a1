"""A deadline ends its own block, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from loom_host.deadline import Deadline


async def test_a_block_that_is_late_times_out() -> None:
    with pytest.raises(TimeoutError), Deadline(0.01):
        await asyncio.sleep(5)
    await asyncio.sleep(0)  # no cancellation is left over


async def test_a_block_in_time_goes_on() -> None:
    with Deadline(0.02):
        await asyncio.sleep(0)
    await asyncio.sleep(0.04)


async def test_an_error_of_the_block_is_its_own() -> None:
    with pytest.raises(KeyError), Deadline(1):
        raise KeyError
    with pytest.raises(KeyError), Deadline(0.01):
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            raise KeyError from None


async def test_the_inner_of_two_ends_alone() -> None:
    with Deadline(5):
        with pytest.raises(TimeoutError), Deadline(0.01):
            await asyncio.sleep(5)
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError), Deadline(0.01), Deadline(5):
        await asyncio.sleep(5)


async def test_a_cancellation_from_elsewhere_passes_through() -> None:
    inside = asyncio.Event()

    async def work() -> None:
        with Deadline(5):
            inside.set()
            await asyncio.sleep(5)

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


class Spent(Exception):
    """What a block is ended with."""


async def test_a_block_that_ends_itself_leaves_no_cancellation_behind() -> None:
    with pytest.raises(Spent), Deadline(5) as limit:
        limit.end(Spent())
    for _ in range(3):
        await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_block_that_ends_itself_goes_no_further_than_its_next_await() -> None:
    went_on = False
    with pytest.raises(Spent, match="first"), Deadline(5) as limit:
        limit.end(Spent("first"))
        limit.end(Spent("second"))
        await asyncio.sleep(0)
        went_on = True
    assert not went_on
    await asyncio.sleep(0)


async def test_what_ends_after_the_block_is_not_cancelled_by_it() -> None:
    with Deadline(5) as limit:
        pass
    limit.end(Spent())
    await asyncio.sleep(0)


async def test_a_block_that_another_task_ends_raises_its_error() -> None:
    with pytest.raises(Spent), Deadline(5) as limit:
        asyncio.get_running_loop().call_soon(limit.end, Spent())
        await asyncio.sleep(5)
    await asyncio.sleep(0)
