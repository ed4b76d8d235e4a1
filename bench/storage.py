"""Storage: saves of agents' state, and events into the log, against bare rocksdict."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from rocksdict import Options, Rdict, WriteBatch, WriteOptions

from loom_host.storage import Batch, EventLog, RocksStore, agent_cursor_key, agent_state_key
from loom_host.storage.event_codec import pack_event
from loom_sdk import Event

from .table import Row, row

ROUNDS, AGENTS = 7, 100
SAVES, SYNCED, LOGGED, LOG_BATCH = 20_000, 200, 20_000, 64
STATE, CURSOR = os.urandom(300), bytes(16)
"""A state of a few remembered turns; random, so that compression gives neither side anything."""


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        return [*_saves(Path(folder) / "plain", False), *_saves(Path(folder) / "synced", True),
                *_logged(Path(folder) / "log")]  # fmt: skip


def _bare(folder: Path) -> Any:
    return Rdict(str(folder), Options(raw_mode=True))


def _keys() -> list[tuple[bytes, bytes]]:
    names = [f"agent-{number}" for number in range(AGENTS)]
    return [(agent_state_key(name), agent_cursor_key(name)) for name in names]


def _saves(folder: Path, fsync: bool) -> list[Row]:
    """Every agent saves its state and cursor in one batch, again and again, all at once."""
    count = SYNCED if fsync else SAVES
    folder.mkdir()
    store, bare = RocksStore(folder / "loom", fsync=fsync), _bare(folder / "bare")
    ours, floors = [], []
    for _ in range(ROUNDS):
        ours.append(asyncio.run(_by_agents(store, count)))
        floors.append(_by_hand(bare, count, fsync))
    store.close()
    bare.close()
    name = "state saves acknowledged" + (", fsync" if fsync else "")
    peer = "rocksdict write batches" + (", sync" if fsync else "")
    return [row(name, ours, "1/s", peer=peer, floors=floors, target=0.4, at_least=True)]


async def _by_agents(store: RocksStore, count: int) -> float:
    async def agent(state: bytes, cursor: bytes) -> None:
        for _ in range(count // AGENTS):
            batch = Batch()
            batch.put(state, STATE)
            batch.put(cursor, CURSOR)
            await store.save(batch)
            await asyncio.sleep(0)  # the next event comes from the loop

    began = time.perf_counter()
    await asyncio.gather(*(agent(*keys) for keys in _keys()))
    return count / (time.perf_counter() - began)


def _by_hand(bare: Any, count: int, sync: bool) -> float:
    options, keys = WriteOptions(), _keys()
    options.sync = sync
    began = time.perf_counter()
    for number in range(count):
        state, cursor = keys[number % AGENTS]
        batch = WriteBatch(raw_mode=True)
        batch.put(state, STATE)
        batch.put(cursor, CURSOR)
        bare.write(batch, options)
    return count / (time.perf_counter() - began)


def _logged(folder: Path) -> list[Row]:
    """Events appended in batches as the log's task makes them, against the same bytes bare."""
    folder.mkdir()
    store, bare = RocksStore(folder / "loom"), _bare(folder / "bare")
    log, ours, floors = EventLog(store), [], []
    events = [Event("transcript.final", STATE, {"session_id": "7", "text": "what time is it"},
                    source="voice", topic="transcript") for _ in range(LOG_BATCH)]  # fmt: skip
    packed = [pack_event(event) for event in events]
    for number in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(LOGGED // LOG_BATCH):
            log.append(events)
        ours.append(LOGGED / (time.perf_counter() - began))
        floors.append(_bare_log(bare, packed, number))
    store.close()
    bare.close()
    return [row("events logged", ours, "1/s", peer="rocksdict, packed before", floors=floors)]


def _bare_log(bare: Any, packed: list[bytes], number: int) -> float:
    began = time.perf_counter()
    for step in range(LOGGED // LOG_BATCH):
        batch = WriteBatch(raw_mode=True)
        for place, value in enumerate(packed):
            batch.put(b"log/%d/%d/%d" % (number, step, place), value)
        bare.write(batch)
    return LOGGED / (time.perf_counter() - began)
