"""A host with one wasm plugin in a worker process, for tests that kill the host.

wasm_host.py COMPONENT FOLDER    prints the pids of zygote and worker, then spins in the guest
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from loom_host.quotas import Quotas
from loom_host.runtimes.base import PluginSpec
from loom_host.runtimes.wasm import WasmRuntime
from loom_sdk import Call
from tests.support import AsyncFakePort, FakePort


def parent_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]


async def main() -> None:
    component, folder = Path(sys.argv[1]), Path(sys.argv[2])
    spec = PluginSpec(
        name="hostile", id="test/hostile", version="1", tier="wasm", entry=component.name,
        folder=component.parent, config={}, grants=(), quotas=Quotas(), data_dir=folder,
        cache_dir=folder, isolation="process",
    )  # fmt: skip
    runtime = WasmRuntime()
    instance = await runtime.start(spec, AsyncFakePort(FakePort()))
    pid = instance.usage().pid
    print(parent_of(pid), pid, flush=True)
    await instance.invoke(Call("t.spin", {}))


asyncio.run(main())
