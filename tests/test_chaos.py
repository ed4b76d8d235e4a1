"""Ten children under load, of which one is killed every second: nobody waits, nothing is lost."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import psutil
import pytest

from loom_host import supervisor
from loom_sdk.errors import DeadlineExceeded

from .chaos import CALLERS, Chaos
from .chaos_host import NAMES, make_host
from .footprint import Footprint, footprint
from .hosting import until

GROWTH_MB = 8.0
"""Of resident memory that still counts as none: what allocators hold varies by as much."""


@pytest.mark.slow
@pytest.mark.alone
async def test_ten_plugins_survive_half_a_minute_of_chaos(tmp_path: Path) -> None:
    await _survive(tmp_path, warm_s=10, seconds=20)


@pytest.mark.soak
async def test_ten_plugins_survive_three_minutes_of_chaos(tmp_path: Path) -> None:
    await _survive(tmp_path, warm_s=60, seconds=120)


async def _survive(folder: Path, warm_s: int, seconds: int) -> None:
    """The first phase warms up what is filled once: caches, rings of spans, pools of threads."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    host = make_host(folder)
    tasks, children = asyncio.all_tasks(), psutil.Process().children(recursive=True)
    async with host:
        chaos = Chaos(host, seed)
        async with chaos.listening():
            await chaos.phase(warm_s)
            before = await footprint()
            await chaos.phase(seconds)
            after = await footprint()
        states = {name: (handle.state, handle.reason) for name, handle in host.plugins.items()}
    print(chaos.report(), before, after, sep="\n")
    assert states == dict.fromkeys(NAMES, ("ready", ""))
    _assert_served(chaos, warm_s + seconds)
    _assert_flat(before, after)
    assert asyncio.all_tasks() == tasks
    assert set(psutil.Process().children(recursive=True)) <= set(children)
    _assert_nothing_left(chaos, folder)


def _assert_served(chaos: Chaos, seconds: int) -> None:
    found = chaos.found
    assert found.late == []
    assert found.wrong == []
    assert {name: len(numbers) for name, numbers in chaos.open.items() if numbers} == {}
    # That it was chaos, and under load, of which much is refused while plugins are away.
    kills = sum(found.kills[name] for name in NAMES)
    assert kills >= 0.9 * seconds
    assert {"SIGKILL", "SIGSEGV", "SIGSTOP"} <= found.kills.keys()
    assert found.answers["ok"] >= seconds * len(NAMES) * CALLERS / 2
    assert found.published["batched"] >= seconds * len(NAMES)


def _assert_flat(before: Footprint, after: Footprint) -> None:
    assert after.open_files <= before.open_files
    assert after.tasks <= before.tasks
    assert after.objects == before.objects
    assert after.rss_mb - before.rss_mb < GROWTH_MB


def _assert_nothing_left(chaos: Chaos, folder: Path) -> None:
    assert list((folder / "run").rglob("*")) == []
    assert chaos.left_groups() == []


async def test_a_stopped_child_that_nobody_calls_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Health checks alone notice it: three that are not answered."""
    monkeypatch.setattr(supervisor, "HEALTH_EVERY_S", 0.1)
    monkeypatch.setattr(supervisor, "HEALTH_TIMEOUT_S", 0.3)
    async with make_host(tmp_path, NAMES[:1]) as host:
        handle = host.plugins[NAMES[0]]
        assert handle.instance is not None
        pid = handle.instance.usage().pid
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: handle.counters.restarts == 1, 10)
        assert handle.reason == "3 health checks missed"
        await until(lambda: handle.serves, 10)
        answer = await host.invoke(f"{handle.name}.echo", {"number": 1})
        assert answer.output == {"plugin": handle.name, "number": 1}
    assert not psutil.pid_exists(pid)


async def test_a_stopped_child_is_replaced_once_a_call_is_out_of_time(tmp_path: Path) -> None:
    """Long before health checks would notice."""
    async with make_host(tmp_path, NAMES[:1]) as host:
        handle = host.plugins[NAMES[0]]
        assert handle.instance is not None
        os.kill(handle.instance.usage().pid, signal.SIGSTOP)
        with pytest.raises(DeadlineExceeded):
            await host.invoke(f"{handle.name}.nap", {"number": 1}, timeout_ms=100)
        await until(lambda: handle.counters.restarts == 1 and handle.serves, 10)
        await host.invoke(f"{handle.name}.nap", {"number": 2})
