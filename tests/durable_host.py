"""A host of its own, to be killed: publishes numbers to a durable agent, says which were taken.

`python -m tests.durable_host FOLDER FIRST LAST`: prints `taken N` after each publish, and, once all
are handled, `state JSON`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from loom_host import Event, Host
from loom_host.desk import STATE_AT, VERSION_BYTES
from loom_host.storage import agent_state_key

from .hosting import until
from .test_agents import host_with


async def converse(folder: Path, first: int, last: int) -> None:
    async with host_with(folder, {"ann": {"durable": True}}, kept=True) as host:
        for number in range(first, last):
            assert await host.bus.publish("chat.x", Event("lag", b"%d" % number)) == 1
            print("taken", number, flush=True)
            await asyncio.sleep(0.002)  # the agent takes 3 ms: more and more waits for it
        await until(lambda: not host.busy(), 60)
        print("state", json.dumps(state_of(host, "ann")), flush=True)


def state_of(host: Host, agent: str) -> dict[str, object]:
    """What is in the store."""
    kept = host.store.get(agent_state_key(agent)) or b""
    state: dict[str, object] = json.loads(kept[STATE_AT:])["state"]
    return state | {"version": int.from_bytes(kept[:VERSION_BYTES], "big")}


if __name__ == "__main__":
    asyncio.run(converse(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
