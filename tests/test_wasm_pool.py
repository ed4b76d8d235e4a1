"""How many guests a wasm plugin has, when they begin and end, and on whose time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from wasmtime import wat2wasm

from loom_host import Host, load_settings
from loom_host.host_api import HostApi
from loom_host.runtimes.wasm import WasmInstance, WasmRuntime
from loom_host.runtimes.wasm.build import ensure_component
from loom_host.runtimes.wasm.cache import default_folder
from loom_sdk import Call
from loom_sdk.errors import (
    DeadlineExceeded,
    LoomError,
    PluginCrashed,
    PluginLoadError,
    PluginUnhealthy,
    QuotaExceeded,
)

from .hosting import host_tables, until
from .support import AsyncFakePort, FakePort, within
from .test_runtime_wasm import ENTRY, GUESTS, spec_of
from .test_wasm_worker import _held, _nothing_more

CORE = """
  (core module $M
    (table $t 10 funcref)
    (global $calls (mut i32) (i32.const 0))
    (func (export "count") (result i32)
      (global.set $calls (i32.add (global.get $calls) (i32.const 1))) (global.get $calls))
    (func (export "work") (param $n i32) (result i32)
      (loop $again
        (local.set $n (i32.sub (local.get $n) (i32.const 1)))
        (br_if $again (i32.ne (local.get $n) (i32.const 0))))
      (local.get $n))
    (func (export "grow") (param i32) (result i32)
      (table.grow $t (ref.null func) (local.get 0)))
    (func (export "trap") unreachable))
  (core instance $i (instantiate $M))"""
MILL = f"""(component {CORE}
  (func (export "count") (result u32) (canon lift (core func $i "count")))
  (func (export "work") (param "n" u32) (result u32) (canon lift (core func $i "work")))
  (func (export "grow") (param "n" u32) (result s32) (canon lift (core func $i "grow")))
  (func (export "trap") (canon lift (core func $i "trap"))))"""
"""`work` takes four instructions for each of `n`; 0 is 2**32 of them."""


@pytest.fixture(params=["thread", "process"])
def isolation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Plant:
    """An instance, most of them of the mill."""

    def __init__(self, instance: WasmInstance) -> None:
        self.instance = instance

    async def run(self, name: str, **arguments: Any) -> Any:
        return (await self.instance.invoke(Call(name, arguments))).output

    def __getattr__(self, name: str) -> int:
        return int(self.instance.usage().extra[name])


@asynccontextmanager
async def plant(
    tmp_path: Path,
    isolation: str,
    services: Any = None,
    component: Path | None = None,
    idle_s: float = 60.0,
    instances: str = "single",
    **quotas: Any,
) -> AsyncIterator[Plant]:
    if component is None:
        component = tmp_path / "mill.wasm"
        component.write_bytes(wat2wasm(MILL))
    spec = spec_of(tmp_path, component.name, component.parent)
    spec = replace(
        spec, id="test/mill", isolation=isolation, idle_s=idle_s, instances=instances,
        quotas=replace(spec.quotas, **quotas),
    )  # fmt: skip
    runtime = WasmRuntime()
    try:
        instance = await runtime.start(spec, services or AsyncFakePort(FakePort()))
        yield Plant(instance)
        await instance.aclose(1.0)
    finally:
        await runtime.aclose()


def python_guest() -> Path:
    return ensure_component(GUESTS, ENTRY, default_folder())


class Gate(AsyncFakePort):
    """Lets nobody through before `size` guests are at it."""

    def __init__(self, size: int) -> None:
        super().__init__(FakePort())
        self.size, self.waiting, self.open = size, 0, asyncio.Event()

    async def kv_get(self, key: str) -> bytes | None:
        self.waiting += 1
        if self.waiting == self.size:
            self.open.set()
        await self.open.wait()
        return None


# ---- How many -------------------------------------------------------------------------------


async def test_a_pool_serves_as_many_calls_at_once_as_it_may(
    tmp_path: Path, isolation: str
) -> None:
    pool: dict[str, Any] = {"instances": "pool", "concurrency": 3, "component": python_guest()}
    gate = Gate(3)
    async with plant(tmp_path, isolation, gate, **pool) as mill:
        assert mill.instances == 1
        async with asyncio.timeout(10):
            await asyncio.gather(*(mill.run("t.store", key="k") for _ in range(9)))
        assert (mill.instances, mill.renewals, mill.calls) == (3, 0, 9)


async def test_a_pool_grows_no_further_than_its_calls(tmp_path: Path, isolation: str) -> None:
    async with plant(tmp_path, isolation, instances="pool", concurrency=8) as mill:
        for _ in range(20):
            await mill.run("mill.count")
        assert mill.instances == 1
        calls = [mill.run("mill.work", n=1_000_000) for _ in range(40)]
        assert set(await asyncio.gather(*calls)) == {0}
        assert 2 <= mill.instances <= 8


async def test_single_is_one_guest_whatever_the_concurrency(tmp_path: Path, isolation: str) -> None:
    async with plant(tmp_path, isolation, concurrency=4) as mill:
        answers = await asyncio.gather(*(mill.run("mill.count") for _ in range(20)))
        assert sorted(answers) == list(range(1, 21))
        assert mill.instances == 1


async def test_an_idle_pool_shrinks_and_grows_again(tmp_path: Path, isolation: str) -> None:
    pool: dict[str, Any] = {"instances": "pool", "concurrency": 4, "idle_s": 0.2}
    async with plant(tmp_path, isolation, **pool) as mill:
        for _ in range(2):
            await asyncio.gather(*(mill.run("mill.work", n=3_000_000) for _ in range(12)))
            assert mill.instances >= 2
            left = 1 if isolation == "thread" else 0
            await until(lambda: mill.instances == left)
            assert (mill.instance.usage().pid == 0) or isolation == "thread"
        assert mill.workers_killed == 0


async def test_a_call_that_is_ended_takes_no_other_with_it(tmp_path: Path, isolation: str) -> None:
    async with plant(tmp_path, isolation, instances="pool", concurrency=3) as mill:
        spinning = [
            asyncio.create_task(
                mill.instance.invoke(Call("mill.work", {"n": 0}, remaining_ms=1000))
            )
            for _ in range(2)
        ]
        await asyncio.sleep(0.05)
        for _ in range(10):
            assert await mill.run("mill.work", n=1000) == 0
        with pytest.raises(PluginCrashed):
            await mill.run("mill.trap")
        assert await mill.run("mill.work", n=1000) == 0
        for call in spinning:
            with pytest.raises(DeadlineExceeded):
                await call
        await until(lambda: (mill.instances, mill.renewals) == (3, 3))


async def test_closing_a_pool_ends_its_calls(tmp_path: Path, isolation: str) -> None:
    async with plant(tmp_path, isolation, instances="pool", concurrency=2) as mill:
        calls = [asyncio.create_task(mill.run("mill.work", n=0)) for _ in range(3)]
        await asyncio.sleep(0.2)
        with within(600):
            await mill.instance.aclose(0.2)
        for call in calls:
            with pytest.raises((PluginCrashed, PluginUnhealthy)):
                await call


@pytest.mark.parametrize("count", [80, pytest.param(1000, marks=pytest.mark.soak)])
async def test_many_ends_of_a_pool_leave_nothing_behind(
    tmp_path: Path, isolation: str, count: int
) -> None:
    async def end(number: int) -> None:
        kinds = [("mill.trap", {}), ("mill.work", {"n": 0}), ("mill.count", {})]
        name, arguments = kinds[number % 3]
        try:
            await mill.instance.invoke(Call(name, arguments, remaining_ms=2000))
        except LoomError as error:
            assert isinstance(error, PluginCrashed | QuotaExceeded)

    pool: dict[str, Any] = {"instances": "pool", "concurrency": 4, "fuel": 1_000_000}
    async with plant(tmp_path, isolation, **pool) as mill:
        await asyncio.gather(*map(end, range(12)))
        await until(lambda: mill.instances == 4)
        before = _held()
        for at in range(0, count, 8):
            await asyncio.gather(*map(end, range(at, at + 8)))
        await until(lambda: mill.instances == 4)
        with contextlib.suppress(TimeoutError):
            await until(lambda: _nothing_more(before))
        assert _nothing_more(before), (_held(), before)
        assert (mill.abandoned_threads, mill.workers_killed) == (0, 0)
        assert mill.renewals >= count // 3


# ---- On whose time --------------------------------------------------------------------------


class SlowStart(AsyncFakePort):
    """Storage that takes longer than a call may; the notebook asks it when it starts."""

    async def kv_get(self, key: str) -> bytes | None:
        await asyncio.sleep(0.6)
        return None


@pytest.fixture(scope="module")
def notebook() -> Path:
    return ensure_component(
        Path(__file__).parent / "plugins" / "notebook", "notebook_plugin:Notebook", default_folder()
    )


async def test_a_start_that_takes_longer_than_the_deadline_is_no_calls_time(
    tmp_path: Path, isolation: str, notebook: Path
) -> None:
    services = SlowStart(FakePort())
    async with plant(tmp_path, isolation, services, notebook, deadline_ms=300) as slow:
        for _ in range(2):
            with within(300), pytest.raises(DeadlineExceeded):
                await slow.run("notebook.work", seconds=5, how="spin")
            assert slow.instance.asleep
            await slow.instance.wake()
            assert not slow.instance.asleep
            assert await slow.run("notebook.reverse", value=1) == {"value": 1}
        assert slow.renewals == 2


async def test_a_caller_waits_for_a_start_no_longer_than_it_said(
    tmp_path: Path, isolation: str, notebook: Path
) -> None:
    async with plant(tmp_path, isolation, SlowStart(FakePort()), notebook) as slow:
        work = {"seconds": 5, "how": "spin"}
        with pytest.raises(DeadlineExceeded):
            await slow.instance.invoke(Call("notebook.work", work, remaining_ms=100))
        with within(200), pytest.raises(DeadlineExceeded, match="not ready within"):
            await slow.instance.invoke(Call("notebook.reverse", {}, remaining_ms=200))


async def test_the_broker_gives_a_call_its_whole_deadline_after_a_start(
    tmp_path: Path, isolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three calls at once: the first is killed, the second waits in the queue meanwhile."""
    real = HostApi.kv_get

    async def slow(api: HostApi, key: str) -> bytes | None:
        if key == "starts":
            await asyncio.sleep(0.6)
        return await real(api, key)

    monkeypatch.setattr(HostApi, "kv_get", slow)
    table = {
        "tier": "wasm", "isolation": isolation, "quotas": {"deadline_ms": 500},
        "allow": {"provide": ["*"], "storage": True}, "config": {"owner": "bo"},
    }  # fmt: skip
    tables = host_tables(tmp_path, notebook=table)
    tables["host"]["cache_dir"] = str(default_folder().parent)
    async with Host(load_settings(None, tables)) as host:
        spin = {"seconds": 5, "how": "spin"}
        first = asyncio.create_task(host.invoke("notebook.work", spin, timeout_ms=300))
        await until(lambda: host.plugins["notebook"].slots.active == 1)
        second = host.invoke("notebook.reverse", {"value": 2}, timeout_ms=5000)
        third = host.invoke("notebook.reverse", {"value": 3}, timeout_ms=400)
        answers = await asyncio.gather(first, second, third, return_exceptions=True)
        assert isinstance(answers[0], DeadlineExceeded)
        assert not isinstance(answers[1], BaseException), answers[1]
        assert answers[1].output == {"value": 2}
        assert isinstance(answers[2], DeadlineExceeded | QuotaExceeded)
        assert (await host.invoke("notebook.reverse", {"value": 4})).output == {"value": 4}


# ---- Fuel and tables ------------------------------------------------------------------------


async def test_fuel_ends_a_call_and_is_reported(tmp_path: Path, isolation: str) -> None:
    async with plant(tmp_path, isolation, fuel=1_000_000) as mill:
        assert await mill.run("mill.work", n=100_000) == 0
        assert 300_000 < mill.fuel < 1_000_000
        with within(500), pytest.raises(QuotaExceeded) as caught:
            await mill.run("mill.work", n=0)
        error = caught.value
        assert (error.plugin_id, error.quota) == ("test/mill", "fuel")
        assert error.limit == 1_000_000 <= error.used
        assert mill.fuel >= 1_300_000
        assert await mill.run("mill.count") == 1
        assert mill.renewals == 1


async def test_without_the_quota_no_fuel_is_counted(tmp_path: Path, isolation: str) -> None:
    async with plant(tmp_path, isolation) as mill:
        assert await mill.run("mill.work", n=1_000_000) == 0
        assert mill.fuel == 0


async def test_a_python_guest_runs_on_fuel(tmp_path: Path, isolation: str) -> None:
    async with plant(tmp_path, isolation, component=python_guest(), fuel=50_000_000) as guest:
        assert await guest.run("t.count") == 1
        with pytest.raises(QuotaExceeded) as caught:
            await guest.run("t.spin")
        assert caught.value.quota == "fuel"
        assert await guest.run("t.count") == 1


async def test_a_table_grows_to_its_quota_and_no_further(tmp_path: Path, isolation: str) -> None:
    async with plant(tmp_path, isolation, tables=100) as mill:
        assert await mill.run("mill.grow", n=90) == 10
        assert await mill.run("mill.grow", n=1) == -1
        assert await mill.run("mill.count") == 1


async def test_a_table_over_the_quota_is_refused_at_load(tmp_path: Path, isolation: str) -> None:
    with pytest.raises(PluginLoadError, match="quota tables = 5 elements"):
        async with plant(tmp_path, isolation, tables=5):
            pass
