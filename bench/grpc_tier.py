"""`host.invoke` on a grpc plugin over a bare grpcio echo between the same two processes."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import psutil

from loom_host import Host, load_settings
from loom_host.discovery import code_hash
from loom_host.runtimes.grpc.runtime import GrpcRuntime

from .bare_grpc import OPTIONS
from .table import Row, row

ROUNDS, CALLS = 11, 300
SIZES = {"16 B": 16, "1 KB": 1024, "32 KB": 32 * 1024}
UNARY_TARGETS = {"16 B": 0.85, "1 KB": 0.85, "32 KB": 1.0}
CALLERS = (8, 64)
SPAWNS = 9
IDLE = 8
STUBS = "loom_sdk._proto.plugin_pb2_grpc"
"""What any grpcio server of plugin.proto imports, so the bare one does too."""
MANIFEST = """
[plugin]
id = "bench/NAME"
version = "1"
api = "1"
type = "tool"
tier = "grpc"
entry = "bench_grpc_plugin:Echo"
[[capability]]
name = "NAME.say"
effects = "none"
[[capability]]
name = "NAME.later"
effects = "none"
"""
CODE = """
from loom_sdk import Plugin, Result, capability

class Echo(Plugin):
    @capability("NAME.say", effects="none")
    def say(self, ctx, text: str) -> Result:
        return Result({"text": text}, ctx.payload)

    @capability("NAME.later", effects="none")
    async def later(self, ctx, text: str) -> Result:
        return Result({"text": text}, ctx.payload)
"""
ARGUMENTS = {"text": "hello"}
Send = Callable[[bytes], Awaitable[Any]]


def write_plugin(root: Path, name: str) -> Path:
    folder = root / name
    folder.mkdir()
    (folder / "plugin.toml").write_text(MANIFEST.replace("NAME", name))
    (folder / "bench_grpc_plugin.py").write_text(CODE.replace("NAME", name))
    return folder


@asynccontextmanager
async def host_with(root: Path, *names: str) -> AsyncIterator[Host]:
    """A host with echo plugins of these names: quotas on, one trace in ten recorded, no sandbox."""
    plugins = {
        name: {
            "trusted": True,
            "sandbox": "none",
            "code": code_hash(root / name),
            "allow": {"provide": [f"{name}.*"]},
            "quotas": {"concurrency": 64},
        }
        for name in names
    }
    tables = {
        "host": {"plugin_paths": [str(root)], "data_dir": str(root / "data")},
        "telemetry": {"sample_ratio": 0.1, "log_level": "error"},
        "plugins": plugins,
    }
    async with Host(load_settings(None, tables)) as host:
        yield host


@asynccontextmanager
async def bare(folder: Path) -> AsyncIterator[tuple[Send, Send]]:
    """The unary and the stream echo of a bare server in a child process."""
    path = folder / "bare.sock"
    path.unlink(missing_ok=True)
    child = await spawn_bare(path, STUBS)
    try:
        async with grpc.aio.insecure_channel(f"unix:{path}", options=OPTIONS) as channel:
            unary: Any = channel.unary_unary("/bare.Echo/Unary")
            stream: Any = channel.stream_stream("/bare.Echo/Stream")()

            async def over_stream(data: bytes) -> None:
                await stream.write(data)
                await stream.read()

            yield unary, over_stream
            stream.cancel()
    finally:
        child.kill()
        await child.wait()


async def spawn_bare(path: Path, *modules: str) -> asyncio.subprocess.Process:
    """Start the bare server; returns once it listens."""
    command = (sys.executable, "-s", "-u", "-m", "bench.bare_grpc", str(path), *modules)
    child = await asyncio.create_subprocess_exec(*command)
    while True:
        try:
            _, writer = await asyncio.open_unix_connection(path)
        except OSError:
            await asyncio.sleep(0.002)
        else:
            writer.close()
            return child


async def per_call_us(send: Send, data: bytes, callers: int = 1) -> float:
    """Microseconds of one call, or of the whole over the number of calls with many callers."""
    each = max(CALLS // callers, 20)

    async def caller() -> None:
        for _ in range(each):
            await send(data)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return (time.perf_counter() - began) / (each * callers) * 1e6


async def calls(root: Path) -> list[Row]:
    write_plugin(root, "echo")
    async with host_with(root, "echo") as host, bare(root) as (unary, stream):

        async def sync(data: bytes) -> None:
            await host.invoke("echo.say", ARGUMENTS, payload=data)

        async def later(data: bytes) -> None:
            await host.invoke("echo.later", ARGUMENTS, payload=data)

        sends = {"unary": unary, "stream": stream, "def": sync, "async def": later}
        rows: list[Row] = []
        for size, length in SIZES.items():
            found = await alternate(sends, bytes(length))
            rows += single_rows(size, found)
        del sends["stream"]  # a bare stream takes one caller at a time
        for callers in CALLERS:
            rows += concurrent_rows(callers, await alternate(sends, bytes(16), callers))
        return rows


async def alternate(
    sends: dict[str, Send], data: bytes, callers: int = 1
) -> dict[str, list[float]]:
    """Microseconds per call of each, one value per round, after one round to warm up."""
    found: dict[str, list[float]] = {name: [] for name in sends}
    for _ in range(ROUNDS + 1):
        for name, send in sends.items():
            found[name].append(await per_call_us(send, data, callers))
    return {name: values[1:] for name, values in found.items()}


def single_rows(size: str, found: dict[str, list[float]]) -> list[Row]:
    name = f"host.invoke, grpc, {size}"
    sync, later = found["def"], found["async def"]
    return [
        row(name, sync, "us", peer="bare aio unary echo", floors=found["unary"],
            target=UNARY_TARGETS[size]),
        row(name, sync, "us", peer="bare aio stream echo", floors=found["stream"], target=1.6),
        row(f"{name}, async def", later, "us", peer="bare aio unary echo", floors=found["unary"]),
    ]  # fmt: skip


def concurrent_rows(callers: int, found: dict[str, list[float]]) -> list[Row]:
    per_second = {name: [1e6 / value for value in values] for name, values in found.items()}
    name = f"host.invoke, grpc, 16 B, {callers} callers"
    return [
        row(name, per_second["def"], "calls/s", peer="bare aio unary echo",
            floors=per_second["unary"], target=1.3, at_least=True),
        row(f"{name}, async def", per_second["async def"], "calls/s",
            peer="bare aio unary echo", floors=per_second["unary"]),
    ]  # fmt: skip


async def starts(root: Path) -> list[Row]:
    """Spawn to answered Init, over a bare server spawned and asked once."""
    write_plugin(root, "echo")
    async with host_with(root, "echo") as host:
        spec = host.plugins["echo"].spec
    services: Any = SimpleNamespace(log=lambda *_: None)
    runtime = GrpcRuntime(root / "run")
    ours, floors = [], []
    for _ in range(SPAWNS):
        floors.append(await bare_start_ms(root))
        began = time.perf_counter()
        instance = await runtime.start(spec, services)
        ours.append((time.perf_counter() - began) * 1000)
        await instance.aclose(1)
    await runtime.aclose()
    return [
        row("spawn to ready, grpc, no sandbox", ours, "ms", peer="bare grpcio server, same stubs",
            floors=floors, target=1.3),
    ]  # fmt: skip


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


def rows() -> list[Row]:
    found: list[Row] = []
    for measure in (calls, starts, idle):
        with tempfile.TemporaryDirectory() as folder:
            found += asyncio.run(measure(Path(folder)))
    return found
