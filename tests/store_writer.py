"""A host that writes and tells of each write that was acknowledged, until it is killed.

    python -m tests.store_writer DATA_DIR [fsync]

Each number n goes, in this order: to an agent's state and cursor in one batch, to a plugin's
storage, and to the log as an event. Then a line with n is written to standard output.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from loom_host import Host, load_settings
from loom_host.storage import Batch, PluginStore, agent_cursor_key, agent_state_key
from loom_sdk import Event

AGENT, PLUGIN, TOPIC = "scribe/1", "test/writer", "crash.test"


def state_of(number: int) -> bytes:
    """As large as it is different from others; of more than one block at times."""
    return b"%d:" % number + bytes([number % 251]) * (number * 37 % 5000)


async def main(data_dir: Path, fsync: bool) -> None:
    tables = {
        "host": {"data_dir": str(data_dir), "runtime_dir": str(data_dir / "run")},
        "storage": {"fsync": fsync},
    }
    config = data_dir / "loom.toml"
    config.touch()
    async with Host(load_settings(config, tables)) as host:
        # The last number again: the kill may have come after the first of its three writes.
        number = max(int(host.store.get(agent_cursor_key(AGENT)) or 0) - 1, 0)
        store = PluginStore(host.store, PLUGIN, 10**9)
        while True:
            number += 1
            batch = Batch()
            batch.put(agent_state_key(AGENT), state_of(number))
            batch.put(agent_cursor_key(AGENT), b"%d" % number)
            await host.store.save(batch)
            store.put(f"n{number % 50}", b"%d" % number)
            await host.event_log.append(Event("n", b"%d" % number, topic=TOPIC))
            os.write(1, b"%d\n" % number)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), "fsync" in sys.argv[2:]))
