"""`loom storage`: what the store holds, backups of it, and putting one back."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from loom_host.control import require_free
from loom_host.settings import Settings
from loom_host.storage import RocksStore
from loom_host.storage.backup import (
    Tell,
    backup_in,
    backup_path,
    exclusive,
    new_checkpoint,
    pack,
    put_in_place,
    unpack,
)
from loom_host.storage.opening import FOLDER
from loom_host.storage.sizes import sizes
from loom_sdk.errors import PluginUnhealthy, StorageError

from .common import add_json, ask_once, print_json, print_table, settings_of, size

PROGRESS_S = 0.2


def add_parser(subparsers: Any) -> None:
    storage = subparsers.add_parser("storage", help="the host's store: sizes, backup, restore")
    verbs = storage.add_subparsers(dest="verb", metavar="VERB", required=True)
    backup = verbs.add_parser("backup", help="write a consistent copy, of a running host, too")
    backup.add_argument("target", type=Path, metavar="FILE|DIR", help="a new file, or its folder")
    restore = verbs.add_parser("restore", help="put a backup in the place of the store")
    restore.add_argument("source", type=Path, metavar="FILE|DIR", help="of a folder the newest")
    stats = verbs.add_parser("stats", help="keys and bytes of plugins, agents and the event log")
    for parser, handler in ((backup, run_backup), (restore, run_restore), (stats, run_stats)):
        add_json(parser)
        parser.set_defaults(handler=handler)


async def run_backup(arguments: argparse.Namespace) -> int:
    """0 when the backup is whole and on the disk; 1 where the target is there already."""
    target = backup_path(arguments.target)
    if target.exists():
        raise StorageError(f"{target} is there already: name a new file, or a folder")
    async with _checkpoint(arguments) as folder:
        began = time.monotonic()
        written = await asyncio.to_thread(pack, folder, target, _progress("backing up"))
    answer = {"file": str(target), "bytes": written}
    if arguments.json:
        print_json(answer)
    else:
        print(f"backed up {size(written)} to {target} in {time.monotonic() - began:.1f} s")
    return 0


@contextlib.asynccontextmanager
async def _checkpoint(arguments: argparse.Namespace) -> AsyncIterator[Path]:
    """A folder with a consistent copy, by the running host or, where none runs, by this process."""
    try:
        folder = Path((await ask_once(arguments, {"op": "storage.checkpoint"}))["folder"])
    except PluginUnhealthy:
        store = _stopped_store(settings_of(arguments.config))
        folder = new_checkpoint(store.folder.parent)
        try:
            await asyncio.to_thread(store.checkpoint, folder)
        finally:
            store.close()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _stopped_store(settings: Settings) -> RocksStore:
    """Raises StorageError where there is none."""
    folder = settings.host.data_dir / FOLDER
    if not folder.is_dir():
        raise StorageError(f"no host has stored anything at {folder} yet")
    return RocksStore(folder)


async def run_restore(arguments: argparse.Namespace) -> int:
    """0 when the store is that of the backup; 1, with all as it was, where that cannot be."""
    settings = settings_of(arguments.config)
    await require_free(settings.host.runtime_dir)
    source, store = backup_in(arguments.source), settings.host.data_dir / FOLDER
    with exclusive(store):
        pass  # told before the long work
    restored = store.with_name(store.name + ".restoring")
    shutil.rmtree(restored, ignore_errors=True)
    await asyncio.to_thread(unpack, source, restored, _progress("restoring"))
    try:
        await asyncio.to_thread(_try_out, restored)
        await require_free(settings.host.runtime_dir)
        old = put_in_place(restored, store)
    finally:
        shutil.rmtree(restored, ignore_errors=True)
    answer = {"store": str(store), "from": str(source), "replaced": str(old or "")}
    if arguments.json:
        print_json(answer)
        return 0
    print(f"restored {store} from {source}")
    if old is not None:
        print(f"what was there before is in {old}: remove it when all is well")
    return 0


def _try_out(folder: Path) -> None:
    """Raises StorageError where it does not open."""
    store = RocksStore(folder)
    store.get(b"")
    store.close()


async def run_stats(arguments: argparse.Namespace) -> int:
    try:
        data = await ask_once(arguments, {"op": "storage.stats"})
    except PluginUnhealthy:
        store = _stopped_store(settings_of(arguments.config))
        try:
            data = next(step for step in sizes(store, store.folder) if step is not None)
        finally:
            store.close()
    if arguments.json:
        print_json(data)
        return 0
    rows = [("plugin", name, row["keys"], row["bytes"]) for name, row in data["plugins"].items()]
    rows += [("agent", name, row["keys"], row["bytes"]) for name, row in data["agents"].items()]
    rows += [("log", topic, row["events"], row["bytes"]) for topic, row in data["log"].items()]
    print_table(("KIND", "NAME", "KEYS", "BYTES"), [(k, n, c, size(b)) for k, n, c, b in rows])
    if data["folder"]:
        print(f"{size(data['disk_bytes'])} on the disk in {data['folder']}")
    if data.get("lost"):
        print(f"{data['lost']} events were not logged: see the host's log", file=sys.stderr)
    return 0


def _progress(what: str) -> Tell:
    """A line on a terminal that tells how far it is; nothing elsewhere."""
    told = 0.0

    def tell(done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if not sys.stderr.isatty() or (now - told < PROGRESS_S and done < total):
            return
        told = now
        end = "\n" if done >= total else ""
        share = 100 * done // max(total, 1)
        print(f"\r{what}: {size(done)} of {size(total)} ({share} %)  ", end=end, file=sys.stderr)
        sys.stderr.flush()

    return tell
