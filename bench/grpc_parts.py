"""What the measurements of the grpc tier stand on: echo plugins in a host, and the bare peer."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from loom_host import Host, load_settings
from loom_host.discovery import code_hash

from .bare_grpc import OPTIONS

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
