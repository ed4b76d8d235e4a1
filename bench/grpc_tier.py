"""`host.invoke` on a grpc plugin over a bare grpcio echo between the same two processes."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from . import go_plugin
from .grpc_parts import Send, bare, host_with, write_plugin
from .grpc_starts import idle, sandboxed, starts
from .table import Row, row

ROUNDS, CALLS = 11, 300
SIZES = {"16 B": 16, "1 KB": 1024, "32 KB": 32 * 1024}
UNARY_TARGETS = {"16 B": 0.85, "1 KB": 0.85, "32 KB": 1.0}
CALLERS = (8, 64)
ARGUMENTS = {"text": "hello"}


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


def rows() -> list[Row]:
    found: list[Row] = []
    for measure in (calls, starts, sandboxed, idle):
        with tempfile.TemporaryDirectory() as folder:
            found += asyncio.run(measure(Path(folder)))
    return found + go_plugin.rows()
