"""Storage where things go wrong: killed hosts, two hosts, a full disk, damaged files."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loom_host.storage import (
    Batch,
    EventLog,
    PluginStore,
    RocksStore,
    agent_cursor_key,
    agent_state_key,
)
from loom_sdk.errors import StorageError

from .store_writer import AGENT, PLUGIN, TOPIC, state_of
from .support import ROOT


def killed(data_dir: Path, after_s: float, *words: str) -> int:
    """Run a writer, kill it at some moment after its first write; its last acknowledged number."""
    read, write = os.pipe()
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.store_writer", str(data_dir), *words],
        stdout=write, cwd=ROOT,
    )  # fmt: skip
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        first = pipe.readline()
        assert first, "the writer ended by itself"
        time.sleep(after_s)
        writer.send_signal(signal.SIGKILL)
        lines = [first, *pipe]  # to the end: the pipe may hold more than was read
    writer.wait()
    whole = [line for line in lines if line.endswith(b"\n")]
    return int(whole[-1])


def check(data_dir: Path, acknowledged: int) -> None:
    store = RocksStore(data_dir / "store")
    try:
        cursor = int(store.get(agent_cursor_key(AGENT)) or 0)
        assert acknowledged <= cursor <= acknowledged + 1
        assert store.get(agent_state_key(AGENT)) == state_of(cursor), "state and cursor disagree"
        kept = PluginStore(store, PLUGIN, 10**9)
        newest = max(int(kept.get(key) or b"0") for key in kept.keys(""))
        assert newest >= acknowledged
        log = EventLog(store)
        numbers = [int(entry.event.payload) for entry in log.read(TOPIC)]
        assert set(range(1, acknowledged + 1)) <= {*numbers}
        assert numbers == sorted(numbers)
        assert log.topics[TOPIC].events == len(numbers)
    finally:
        store.close()


@pytest.mark.parametrize(
    ("kills", "words"),
    [(2, ()), pytest.param(20, (), marks=pytest.mark.slow),
     pytest.param(5, ("fsync",), marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_killed_host_loses_nothing_acknowledged(
    tmp_path: Path, kills: int, words: tuple[str, ...]
) -> None:
    moments = random.Random(kills)
    for _ in range(kills):
        check(tmp_path, killed(tmp_path, moments.uniform(0, 0.4), *words))


def test_a_second_host_is_told_that_the_store_is_in_use(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from loom_host.storage import RocksStore;"
        "s = RocksStore(pathlib.Path(sys.argv[1])); s.put(b'a', b'1');"
        "print('open', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "store")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert other.stdout is not None
    assert other.stdout.readline() == b"open\n"
    mine = RocksStore(tmp_path / "store")
    with pytest.raises(StorageError, match=r"another host is using it: stop that one, or set host"):
        mine.get(b"a")
    other.kill()
    other.communicate()
    assert mine.get(b"a") == b"1", "the lock of a killed host holds nobody up"
    mine.close()


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap for a small disk")
def test_a_full_disk_is_told_and_what_was_written_before_stays(tmp_path: Path) -> None:
    script = """
import os, pathlib
from loom_host.storage import RocksStore
from loom_sdk.errors import StorageError
other = pathlib.Path("/small/other")
other.write_bytes(bytes(5 * 1024**2))
store, number = RocksStore(pathlib.Path("/small/store")), 0
try:
    while number < 1000:
        store.put(b"%d" % number, os.urandom(65536))
        number += 1
except StorageError as error:
    print(error)
store.close()
other.unlink()
again = RocksStore(pathlib.Path("/small/store"))
assert all(len(again.get(b"%d" % n)) == 65536 for n in range(number))
print("kept", number)
"""
    done = subprocess.run(
        ["bwrap", "--dev-bind", "/", "/", "--size", str(9 * 1024**2), "--tmpfs", "/small",
         sys.executable, "-c", script],
        capture_output=True, text=True, check=False, timeout=60, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "No space left" in done.stdout
    assert "free space on that disk, then restart the host" in done.stdout
    kept = int(done.stdout.split()[-1])
    assert 20 <= kept < 64


def test_a_damaged_store_is_told_with_the_way_back(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "store")
    store.put(b"a", b"1" * 1000)
    store.erase(b"")  # out of the log of writes into a table
    store.close()
    tables = list((tmp_path / "store").glob("*.sst"))
    assert tables
    for table in tables:
        table.write_bytes(table.read_bytes()[:-40] + bytes(40))
    with pytest.raises(StorageError, match=r"damaged: stop the host and run `loom storage restore"):
        RocksStore(tmp_path / "store").get(b"a")


def test_a_missing_file_is_told_as_damage(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "store")
    store.put(b"a", b"1")
    store.close()
    (tmp_path / "store" / "CURRENT").write_text("MANIFEST-999999\n")
    with pytest.raises(StorageError, match="loom storage restore"):
        RocksStore(tmp_path / "store").get(b"a")


def test_a_write_that_fails_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a folder")
    store = RocksStore(tmp_path / "store")
    batch = Batch()
    batch.put(b"a", b"1")
    with pytest.raises(StorageError):
        store.write(batch)
