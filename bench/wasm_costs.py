"""What wasm guests cost: time until a Python guest is ready, memory of instances and workers."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from loom_host.discovery import bundle
from loom_host.quotas import Quotas
from loom_host.runtimes.base import PluginSpec
from loom_host.runtimes.wasm import WasmInstance, WasmRuntime
from loom_host.runtimes.wasm.build import ensure_component
from loom_host.runtimes.wasm.cache import default_folder
from loom_host.runtimes.wasm.engine import Engine
from loom_host.runtimes.wasm.host_imports import call_record
from loom_host.runtimes.wasm.keeper import Keeper
from loom_host.runtimes.wasm.ticket import Ticket
from loom_host.runtimes.wasm.traps import Limits
from loom_sdk import Call

from .table import Row, row
from .wasm_guests import GUESTS, NoPort

ROUNDS, INSTANCES, CALLS = 9, 100, 100
BINARY_CALLS, BINARY = 3000, 32 * 1024
"""`make soak` makes 100,000 such calls."""
CALCULATOR, ENTRY = bundle("plugins") / "wasm" / "calculator", "calculator_plugin:Calculator"
MIB = 1024**2
TESTED = Path(__file__).resolve().parents[1] / "tests" / "guests"


class NoServices:
    """A host that offers nothing: these guests ask for nothing."""


def pss(pid: int | str) -> int:
    """Proportional set size of a process, in bytes."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def spec_of(folder: Path, entry: str, isolation: str, data: Path) -> PluginSpec:
    return PluginSpec(
        name="bench", id="bench/python", version="1", tier="wasm", entry=entry, folder=folder,
        config={}, grants=(), quotas=Quotas(memory=64 * MIB), data_dir=data, cache_dir=data,
        isolation=isolation, idle_s=0,
    )  # fmt: skip


@asynccontextmanager
async def started(runtime: WasmRuntime, spec: PluginSpec) -> AsyncIterator[WasmInstance]:
    instance = await runtime.start(spec, NoServices())  # type: ignore[arg-type]
    try:
        yield instance
    finally:
        await instance.aclose(0.1)


async def ready_ms(isolation: str) -> float:
    """Milliseconds of a new runtime's first start: the entry is read, authenticated and loaded."""
    with tempfile.TemporaryDirectory() as data:
        runtime = WasmRuntime()
        spec = spec_of(CALCULATOR, ENTRY, isolation, Path(data))
        try:
            began = time.perf_counter()
            async with started(runtime, spec):
                return (time.perf_counter() - began) * 1000
        finally:
            await runtime.aclose()


async def worker_costs(folder: Path, entry: str, call: Call) -> tuple[list[float], list[float]]:
    """Milliseconds until another worker is ready, its code being authenticated, and its MB."""
    times, sizes = [], []
    with tempfile.TemporaryDirectory() as data:
        runtime = WasmRuntime()
        spec = spec_of(folder, entry, "process", Path(data))
        try:
            async with started(runtime, spec) as instance:
                for _ in range(ROUNDS):
                    seat = instance._pool.seats[0]
                    began = time.perf_counter()
                    seat.cell._process.kill()  # type: ignore[attr-defined]
                    await seat.renew()
                    times.append((time.perf_counter() - began) * 1000)
                    await instance.invoke(call)
                    sizes.append(pss(instance.usage().pid) / 1e6)
        finally:
            await runtime.aclose()
    return times, sizes


def instance_mb() -> float:
    """Megabytes of each of 100 instances in one process after 100 calls each."""
    engine = Engine(default_folder())
    loaded = engine.load(ensure_component(CALCULATOR, ENTRY, default_folder()))
    limits = Limits("bench/python", 64 * MIB, MIB)
    request = {"api-versions": ["1"], "plugin-id": "", "config": "{}", "grants": [], "quotas": []}
    record = call_record(Call("calculator.evaluate", {"expression": "12 * 9"}))

    def new() -> Keeper:
        keeper = Keeper(engine, loaded, limits, NoPort)
        keeper.run("init", request, Ticket(""))
        for _ in range(CALLS):
            keeper.run("invoke", record, Ticket(""))
        return keeper

    kept = [new()]  # what the first one needs is shared
    before = pss("self")
    kept += [new() for _ in range(INSTANCES)]
    grown = pss("self") - before
    for keeper in kept:
        keeper.close()
    engine.close()
    return grown / INSTANCES / 1e6


def in_a_new_process(name: str) -> float:
    command = [sys.executable, "-m", "bench.wasm_costs", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


async def binary_growth_mb(isolation: str, calls: int) -> float:
    """MB by which host and worker grew while a Python guest returned 32 KB of binary each time.

    A guest grows until it is renewed, so the largest size of the first third is compared with the
    largest of the last. Raises where a call fails or answers with less.
    """
    with tempfile.TemporaryDirectory() as data:
        runtime = WasmRuntime()
        spec = spec_of(TESTED, "hostile_guest:Hostile", isolation, Path(data))
        spec = replace(spec, quotas=replace(spec.quotas, memory=32 * MIB))
        call = Call("t.big", {"size": BINARY})
        try:
            async with started(runtime, spec) as instance:

                def size() -> int:
                    pid = instance.usage().pid
                    return pss("self") + (pss(pid) if pid else 0)

                sizes = []
                for number in range(calls):
                    assert len((await instance.invoke(call)).payload) == BINARY
                    if number % 25 == 0:
                        sizes.append(size())
                third = len(sizes) // 3
                return (max(sizes[-third:]) - max(sizes[:third])) / 1e6
        finally:
            await runtime.aclose()


def rows() -> list[Row]:
    asyncio.run(ready_ms("thread"))  # builds and compiles where nothing is cached
    ready = [asyncio.run(ready_ms("thread")) for _ in range(ROUNDS)]
    evaluate = Call("calculator.evaluate", {"expression": "12 * 9"})
    times, sizes = asyncio.run(worker_costs(CALCULATOR, ENTRY, evaluate))
    echo = GUESTS / "echo", "main.c", Call("bench.echo", {})
    times_c, sizes_c = asyncio.run(worker_costs(*echo))
    instances = [in_a_new_process("instances") for _ in range(5)]
    growth = [in_a_new_process(isolation) for isolation in ("thread", "process")]
    return [
        row("wasm, Python calculator ready, warm cache", ready, "ms", target=60),
        row("wasm, worker process with a C guest ready", times_c, "ms", target=50),
        row("wasm, worker process with a C guest, PSS", sizes_c, "MB", target=15),
        row("wasm, worker process with the calculator ready", times, "ms", target=50),
        row("wasm, worker process with the calculator, PSS", sizes, "MB", target=15),
        row(f"wasm, each of {INSTANCES} Python instances, PSS", instances, "MB", target=1.5),
        row(f"wasm, growth over {BINARY_CALLS} results of 32 KB", growth, "MB", target=20),
    ]


def main(what: str) -> None:
    print(
        instance_mb() if what == "instances" else asyncio.run(binary_growth_mb(what, BINARY_CALLS))
    )


if __name__ == "__main__":
    main(sys.argv[1])
