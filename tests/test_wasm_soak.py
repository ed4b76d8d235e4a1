"""Many calls of one Python guest, each returning binary: nothing fails, and nothing grows.

componentize-py keeps every `list<u8>` that a guest returns, so a guest that is not renewed in time
would end in its memory quota after a few thousand calls.
"""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

import psutil
import pytest

from loom_sdk import Call

from .test_wasm_pool import plant, python_guest

MIB = 1024**2
SIZE = 32 * 1024
WARM = 600
"""Calls before the first look: more than one guest's life."""
GROWTH = 20 * MIB


def resident(pid: int | None) -> int:
    gc.collect()
    return int(psutil.Process(pid).memory_info().rss) if pid != 0 else 0


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(5_000, marks=pytest.mark.slow),
        pytest.param(100_000, marks=pytest.mark.soak),
    ],
)
@pytest.mark.parametrize(
    "shape",
    [
        {"instances": "single", "memory": 32 * MIB},
        {"instances": "pool", "concurrency": 2, "memory": 256 * MIB},
    ],
    ids=["single", "pool"],
)
@pytest.mark.parametrize("isolation", ["thread", "process"])
async def test_returning_binary_for_hours_grows_nothing(
    tmp_path: Path, isolation: str, shape: dict[str, Any], count: int
) -> None:
    async with plant(tmp_path, isolation, component=python_guest(), **shape) as guest:

        async def call() -> None:
            result = await guest.instance.invoke(Call("t.big", {"size": SIZE}))
            assert result.payload == bytes(SIZE)

        for _ in range(WARM):
            await call()
        host, worker = resident(None), resident(guest.instance.usage().pid)
        for _ in range(count - WARM):
            await call()
        await asyncio.sleep(0)
        usage = guest.instance.usage()
        assert resident(None) - host < GROWTH
        assert usage.pid == 0 or resident(usage.pid) - worker < GROWTH
        assert usage.extra["calls"] == count
        assert usage.extra["renewals"] >= count * SIZE // (shape["memory"] + GROWTH)
        assert (usage.extra["workers_killed"], usage.extra["abandoned_threads"]) == (0, 0)
