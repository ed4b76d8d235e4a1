"""`host.invoke` on an async native plugin, less the bare call of the same function."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from loom_host import Host, load_settings
from loom_host.discovery import code_hash

from .table import Row, row

ROUNDS, CALLS = 9, 2000
MANIFEST = """
[plugin]
id = "bench/echo"
version = "1"
api = "1"
type = "tool"
tier = "native"
entry = "bench_echo_plugin:Echo"
[[capability]]
name = "echo.say"
effects = "none"
"""
CODE = """
from loom_sdk import Plugin, capability

class Echo(Plugin):
    @capability("echo.say", effects="none")
    async def say(self, ctx, text: str) -> dict:
        return {"text": text}
"""
ARGUMENTS = {"text": "hello"}


async def bare(ctx: Any, text: str) -> dict[str, str]:
    """What the plugin does, without a host."""
    return {"text": text}


async def per_call_us(call: Callable[[], Awaitable[Any]]) -> float:
    began = time.perf_counter()
    for _ in range(CALLS):
        await call()
    return (time.perf_counter() - began) / CALLS * 1e6


async def overheads(folder: Path, sample_ratio: float) -> list[float]:
    """Microseconds of `host.invoke` above the bare call, one value per alternating round."""
    settings = load_settings(
        None,
        {
            "host": {"plugin_paths": [str(folder.parent)]},
            "telemetry": {"sample_ratio": sample_ratio, "log_level": "error"},
            "plugins": {
                "echo": {
                    "trusted": True,
                    "code": code_hash(folder),
                    "allow": {"provide": ["echo.say"]},
                }
            },
        },
    )
    async with Host(settings) as host:
        found = []
        for _ in range(ROUNDS):
            floor = await per_call_us(lambda: bare(None, **ARGUMENTS))
            found.append(await per_call_us(lambda: host.invoke("echo.say", ARGUMENTS)) - floor)
        return found


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "echo"
        folder.mkdir()
        (folder / "plugin.toml").write_text(MANIFEST)
        (folder / "bench_echo_plugin.py").write_text(CODE)
        unsampled = asyncio.run(overheads(folder, 0.0))
        sampled = asyncio.run(overheads(folder, 1.0))
    return [
        row(
            "host.invoke, native async, unsampled",
            unsampled,
            "us",
            peer="less the bare call",
            target=35,
        ),
        row(
            "host.invoke, native async, sampled trace",
            sampled,
            "us",
            peer="less the bare call",
            target=70,
        ),
    ]
