"""What a child costs: its start, its sandbox, and the host's memory while it is idle."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil

from loom_host.runtimes.base import PluginSpec
from loom_host.runtimes.grpc.runtime import GrpcRuntime

from .grpc_parts import bare, host_with, write_plugin
from .table import Row, row

SPAWNS = 9
IDLE = 8
PROFILES = ("standard", "strict")


async def starts(root: Path) -> list[Row]:
    """Spawn to answered Init, over a bare server spawned and asked once."""
    spec = await echo_spec(root)
    runtime = GrpcRuntime(root / "run")
    ours, floors = [], []
    for _ in range(SPAWNS):
        floors.append(await bare_start_ms(root))
        ours.append(await start_ms(runtime, spec))
    await runtime.aclose()
    return [
        row("spawn to ready, grpc, no sandbox", ours, "ms", peer="bare grpcio server, same stubs",
            floors=floors, target=1.3),
    ]  # fmt: skip


async def sandboxed(root: Path) -> list[Row]:
    """What each profile adds to a start, round by round."""
    spec = await echo_spec(root)
    runtime = GrpcRuntime(root / "run")
    added: dict[str, list[float]] = {profile: [] for profile in PROFILES}
    for _ in range(SPAWNS):
        plain = await start_ms(runtime, spec)
        for profile, values in added.items():
            values.append(await start_ms(runtime, replace(spec, sandbox=profile)) - plain)
    await runtime.aclose()
    return [
        row(f"start in the sandbox {profile}, over none", values, "ms more", target=25)
        for profile, values in added.items()
    ]


async def echo_spec(root: Path) -> PluginSpec:
    write_plugin(root, "echo")
    async with host_with(root, "echo") as host:
        return host.plugins["echo"].spec


async def start_ms(runtime: GrpcRuntime, spec: PluginSpec) -> float:
    services: Any = SimpleNamespace(log=lambda *_: None)
    began = time.perf_counter()
    instance = await runtime.start(spec, services)
    took = (time.perf_counter() - began) * 1000
    await instance.aclose(1)
    return took


async def bare_start_ms(root: Path) -> float:
    began = time.perf_counter()
    async with bare(root) as (unary, _):
        await unary(b"x")
        return (time.perf_counter() - began) * 1000


async def idle(root: Path) -> list[Row]:
    """Resident memory of the host that each further idle plugin takes."""
    names = [f"echo{n}" for n in range(IDLE + 1)]
    for name in names:
        write_plugin(root, name)
    process = psutil.Process()
    async with host_with(root, names[0]):
        few = process.memory_info().rss
    async with host_with(root, *names):
        many = process.memory_info().rss
    return [row("host memory per idle grpc plugin", [(many - few) / IDLE / 1024], "KB")]
