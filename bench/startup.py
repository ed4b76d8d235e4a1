"""From a fresh interpreter to a host that is ready."""

from __future__ import annotations

import compileall
import subprocess
import sys
import time

from loom_host.discovery import bundle

from .table import Row, row

ROUNDS = 7
NATIVE = """
import asyncio
from loom_host import Host, load_settings
async def main():
    names = ["audio-io", "vad", "wake-phrase", "voice-agent"]
    settings = load_settings(None, {"plugins": {name: {} for name in names}})
    async with Host(settings):
        print("ready", flush=True)
asyncio.run(main())
"""
VOICE = """
import asyncio
from loom_host import Host, load_settings
async def main():
    async with Host(load_settings(None, {"extends": "voice"})):
        print("ready", flush=True)
asyncio.run(main())
"""
IMPORTS = "import grpc, wasmtime; print('ready', flush=True)"


def ms_to_ready(code: str) -> float:
    """Milliseconds from spawning the interpreter until it prints `ready`."""
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        took = (time.perf_counter() - began) * 1000
        process.wait()
    if line.strip() != "ready":
        raise RuntimeError(f"the measured program failed:\n{code}")
    return took


def compile_bytecode() -> None:
    """What pip does for every package that it installs, grpc and wasmtime among them."""
    for folder in (bundle("loom_host"), bundle("plugins"), bundle("sdk")):
        compileall.compile_dir(folder, quiet=1)


def rows() -> list[Row]:
    compile_bytecode()
    native, voice, imports = [], [], []
    for _ in range(ROUNDS):
        native.append(ms_to_ready(NATIVE))
        imports.append(ms_to_ready(IMPORTS))
        voice.append(ms_to_ready(VOICE))
    return [
        row("start, native plugins only", native, "ms", target=150),
        row(
            "start, voice host; models load in the background",
            voice, "ms", peer="import grpc, wasmtime", floors=imports, target=1.6,
        ),
    ]  # fmt: skip
