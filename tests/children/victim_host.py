"""A host for tests to kill, in every phase: prints what it is at, then does that for ever.

    python -m tests.children.victim_host FOLDER PHASE

PHASE: starting, idle, load, stopping.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from dataclasses import replace
from pathlib import Path

from loom_sdk import Call
from tests.test_runtime_grpc import Bench


async def main(folder: Path, phase: str) -> None:
    bench = Bench(folder)
    spec = replace(bench.spec("", sandbox="strict"), entry="attacker:Attacker")
    if phase == "starting":
        print("ready", flush=True)
    instance = await bench.runtime.start(spec, bench.services)
    await instance.invoke(Call("attack.daemon", {}))
    if phase != "starting":
        print("ready", flush=True)
    for number in itertools.count():
        if phase in ("starting", "stopping"):
            await instance.aclose(0.5)
            other = replace(spec, id=f"test/{number}")
            instance = await bench.runtime.start(other, bench.services)
            await instance.invoke(Call("attack.daemon", {}))
        elif phase == "load":
            await instance.invoke(Call("attack.burn", {"seconds": 0.01}))
        else:
            await asyncio.sleep(1)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
