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
