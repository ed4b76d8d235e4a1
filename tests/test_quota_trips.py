"""Every quota that the host holds a plugin to, tripped in every tier and in both isolations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loom_host import Host, load_settings
from loom_host.runtimes.wasm.cache import default_folder
from loom_sdk.errors import QuotaExceeded

from .hosting import host_tables

TIERS = ("native", "thread", "process", "grpc")
ALLOW = {"provide": ["greedy.*"], "publish": ["greedy"], "storage": True}


@pytest.fixture(params=TIERS)
def tier(request: pytest.FixtureRequest) -> str:
    """A tier; of wasm, each isolation."""
    return str(request.param)


@asynccontextmanager
async def greedy_host(tier: str, folder: Path, **quotas: Any) -> AsyncIterator[Host]:
    """A host with the greedy plugin, and a calculator as its neighbour."""
    where = {"tier": "wasm", "isolation": tier} if tier in ("thread", "process") else {"tier": tier}
    tables = host_tables(folder, greedy={**where, "allow": ALLOW, "quotas": quotas})
    tables["host"]["cache_dir"] = str(default_folder().parent)
    tables["plugins"]["calculator"] = {"tier": "native", "allow": {"provide": ["calculator.*"]}}
    async with Host(load_settings(None, tables)) as host:
        assert host.plugins["greedy"].state == "ready", host.plugins["greedy"].reason
        yield host


async def ask(host: Host, what: str, times: int, stubborn: bool = False) -> Any:
    arguments = {"what": what, "times": times, "stubborn": stubborn}
    return (await host.invoke("greedy.ask", arguments)).output


async def all_is_well(host: Host) -> None:
    answer = await host.invoke("calculator.evaluate", {"expression": "12 * 9"})
    assert answer.output["result"] == "108"
    assert (await host.invoke("greedy.idle")).output == "content"
    assert host.plugins["calculator"].counters.quota_hits == 0
    greedy = host.plugins["greedy"].instance
    assert greedy is not None
    async with asyncio.timeout(5):
        while await greedy.health():  # noqa: ASYNC110  # a thread that was given up may run on
            await asyncio.sleep(0.01)
    assert host.plugins["greedy"].inflight == {}


ONCE = [
    ("host_calls", 50, "get"),
    ("publish_rate", 20, "publish"),
    ("storage_bytes", 20_000, "put"),
    ("output_bytes", 20_000, "emit"),
    ("log_rate", 20, "log"),
    ("log_bytes", 20_000, "shout"),
    ("host_calls_per_call", 50, "emit"),
]
AGAIN = [("host_calls", 50, "get"), ("publish_rate", 20, "publish"), ("storage_bytes", 9000, "put")]


@pytest.mark.parametrize(
    ("quota", "limit", "what", "stubborn"),
    [(*case, False) for case in ONCE]
    + [pytest.param(*case, True, marks=pytest.mark.slow) for case in AGAIN],
)
async def test_a_call_that_goes_over_a_quota_ends_with_it(
    tier: str, tmp_path: Path, quota: str, limit: int, what: str, stubborn: bool
) -> None:
    async with greedy_host(tier, tmp_path, **{quota: limit}) as host:
        with pytest.raises(QuotaExceeded) as caught:
            await ask(host, what, 500, stubborn)
        error = caught.value
        assert (error.plugin_id, error.quota, error.limit) == ("test/greedy", quota, limit)
        assert error.used > limit
        assert host.plugins["greedy"].counters.quota_hits > 0
        await all_is_well(host)


async def test_a_refusal_that_the_plugin_handles_costs_it_nothing(
    tier: str, tmp_path: Path
) -> None:
    async with greedy_host(tier, tmp_path, host_calls_per_call=50) as host:
        assert await ask(host, "get", 55, stubborn=True) == 5
        assert host.plugins["greedy"].counters.quota_hits == 5
        await all_is_well(host)


async def test_calls_over_their_rate_are_refused(tier: str, tmp_path: Path) -> None:
    async with greedy_host(tier, tmp_path, rate=3) as host:
        calls = [host.invoke("greedy.idle") for _ in range(10)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
        refused = [end for end in ends if isinstance(end, QuotaExceeded)]
        assert {(end.quota, end.limit) for end in refused} == {("rate", 3)}
        assert len(refused) >= 6
        await asyncio.sleep(0.4)
        await all_is_well(host)


async def test_calls_beyond_the_concurrency_wait_and_then_are_refused(
    tier: str, tmp_path: Path
) -> None:
    async with greedy_host(tier, tmp_path, host_calls=0, host_calls_per_call=0) as host:
        long = asyncio.create_task(ask(host, "get", 1_000_000))
        while not host.plugins["greedy"].slots.active:  # noqa: ASYNC110  # it has no event
            await asyncio.sleep(0.001)
        with pytest.raises(QuotaExceeded) as caught:
            await host.invoke("greedy.idle", timeout_ms=100)
        assert (caught.value.quota, caught.value.limit) == ("concurrency", 1)
        long.cancel()
        with pytest.raises(asyncio.CancelledError):
            await long
        if tier != "native":  # there a thread cannot be ended
            await all_is_well(host)
