"""`loom storage`: backups are consistent, verified, and put back only where no host runs."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from loom_host import Host
from loom_host.cli import main as cli
from loom_host.control import ControlServer
from loom_host.storage import (
    Batch,
    EventLog,
    PluginStore,
    RocksStore,
    agent_cursor_key,
    agent_state_key,
)
from loom_host.storage.backup import backup_in, backup_path, exclusive, new_checkpoint, pack, unpack
from loom_sdk import Event
from loom_sdk.errors import StorageError

CONFIG = '[host]\ndata_dir = "data"\nruntime_dir = "run"\n[event_log]\ntopics = ["a.>"]\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "loom.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def store(tmp_path: Path) -> RocksStore:
    return RocksStore(tmp_path / "data" / "store")


@pytest.fixture
def loom(config: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command; its output, or what it said on stderr where it has to fail."""

    def run(*words: str | Path, code: int = 0) -> str:
        given = cli.main(["-c", str(config), *map(str, words)])
        said = capsys.readouterr()
        assert given == code, said.err
        return said.err if code else said.out

    return run


def fill(store: RocksStore) -> None:
    PluginStore(store, "acme/notes", 1000).put("k", b"12345")
    for number in range(3):
        batch = Batch()
        batch.put(agent_state_key(f"agent {number}"), b"state")
        batch.put(agent_cursor_key(f"agent {number}"), b"7")
        store.write(batch)
    EventLog(store).append(Event("e", b"x" * 100, topic="a.b") for _ in range(10))


def content(store: RocksStore) -> dict[bytes, bytes]:
    found = dict(store.scan(b""))
    store.close()
    return found


def test_a_backup_of_a_stopped_host_is_put_back(
    tmp_path: Path, store: RocksStore, loom: Callable[..., str]
) -> None:
    fill(store)
    before = content(store)
    file = tmp_path / "backup.tar"
    assert f"to {file}" in loom("storage", "backup", file)
    assert file.stat().st_mode & 0o077 == 0
    store.put(b"later", b"1")
    store.close()
    assert f"restored {store.folder}" in loom("storage", "restore", file)
    assert content(store) == before
    replaced = RocksStore(tmp_path / "data" / "store.replaced")
    assert replaced.get(b"later") == b"1"
    replaced.close()
    assert sorted(p.name for p in (tmp_path / "data").iterdir() if p.name != "checkpoints") == [
        "store", "store.replaced",
    ]  # fmt: skip
    assert list((tmp_path / "data" / "checkpoints").iterdir()) == []


def test_a_lost_store_comes_back_from_the_newest_backup_in_a_folder(
    tmp_path: Path, store: RocksStore, loom: Callable[..., str]
) -> None:
    fill(store)
    before = content(store)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "loom-store-20200101-000000.tar").write_text("an old one")
    answer = json.loads(loom("storage", "backup", tmp_path / "kept", "--json"))
    assert Path(answer["file"]).stat().st_size == answer["bytes"]
    shutil.rmtree(store.folder)
    answer = json.loads(loom("storage", "restore", tmp_path / "kept", "--json"))
    assert answer["replaced"] == ""
    assert content(store) == before


async def test_a_backup_of_a_running_host_is_of_one_moment(tmp_path: Path, config: Path) -> None:
    """Two keys that are always written together agree in it, while writes go on."""
    file = tmp_path / "backup.tar"
    async with Host.from_config(config) as host:
        server = ControlServer(host)
        await server.start()
        words = ["-c", str(config), "storage", "backup", str(file)]
        backing = asyncio.create_task(asyncio.to_thread(cli.main, words))
        number = 0
        while not backing.done():
            number += 1
            batch = Batch()
            batch.put(b"one", b"%d" % number)
            batch.put(b"two", b"%d" % number)
            await host.store.save(batch)
            await host.bus.publish("a.b", Event("e", b"%d" % number))
            await asyncio.sleep(0)
        assert await backing == 0
        assert await asyncio.to_thread(cli.main, words) == 1, "it is there already"
        await server.aclose()
    unpack(file, tmp_path / "copy", lambda *_: None)
    store = RocksStore(tmp_path / "copy")
    log = EventLog(store)
    assert store.get(b"one") == store.get(b"two") is not None
    assert log.topics["a.b"].events == len(list(log.read()))
    assert 0 < int(store.get(b"one") or 0) <= number
    store.close()
    assert list((tmp_path / "data" / "checkpoints").iterdir()) == []


async def test_restore_refuses_while_a_host_runs(
    tmp_path: Path, config: Path, store: RocksStore, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(store)
    store.close()
    words = ["-c", str(config), "storage"]
    assert await asyncio.to_thread(cli.main, [*words, "backup", str(tmp_path / "b.tar")]) == 0
    async with Host.from_config(config) as host:
        server = ControlServer(host)
        await server.start()
        assert await asyncio.to_thread(cli.main, [*words, "restore", str(tmp_path / "b.tar")]) == 1
        assert "a host already runs at" in capsys.readouterr().err
        await server.aclose()


def test_restore_refuses_where_another_process_has_the_store_open(
    tmp_path: Path, store: RocksStore
) -> None:
    fill(store)
    store.close()
    script = "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX);"
    other = subprocess.Popen(
        [sys.executable, "-c", script + "print('held', flush=True); sys.stdin.read()",
         str(store.folder / "LOCK")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    with pytest.raises(StorageError, match="has the store at .* open"), exclusive(store.folder):
        pass
    other.communicate(b"")
    with exclusive(store.folder):
        pass


@pytest.fixture
def backup(tmp_path: Path, store: RocksStore) -> Path:
    fill(store)
    folder = new_checkpoint(store.folder.parent)
    store.checkpoint(folder)
    store.close()
    pack(folder, tmp_path / "backup.tar", lambda *_: None)
    return tmp_path / "backup.tar"


def _flipped(data: bytes) -> bytes:
    """One byte of a table is another one."""
    at = data.index(b".sst") + tarfile.BLOCKSIZE
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (_flipped, "the checksum of .* is wrong"),
        (lambda data: data[: len(data) // 3], "no whole backup"),
        (lambda data: b"", "no whole backup"),
        (lambda data: b"no tar at all" * 100, "no whole backup"),
    ],
)
def test_a_damaged_backup_changes_nothing(
    store: RocksStore, loom: Callable[..., str], backup: Path,
    damage: Callable[[bytes], bytes], problem: str,
) -> None:  # fmt: skip
    before = content(store)
    backup.write_bytes(damage(backup.read_bytes()))
    said = loom("storage", "restore", backup, code=1)
    assert str(backup) in said
    with pytest.raises(StorageError, match=problem):
        unpack(backup, store.folder.with_name("x"), lambda *_: None)
    assert content(store) == before
    assert not store.folder.with_name("store.restoring").exists()
    assert not store.folder.with_name("x").exists()


def _member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    "info",
    [_member("../evil"), _member("/evil"), _member("a/b"), _member("link", kind=tarfile.SYMTYPE),
     _member("folder", kind=tarfile.DIRTYPE)],
    ids=lambda info: str(info.name),
)  # fmt: skip
def test_nothing_is_written_outside_the_folder(tmp_path: Path, info: tarfile.TarInfo) -> None:
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        tar.addfile(info, io.BytesIO(b""))
    with pytest.raises(StorageError, match="it has a member"):
        unpack(tmp_path / "b.tar", tmp_path / "in" / "x", lambda *_: None)
    assert not (tmp_path / "in" / "x").exists()
    assert not (tmp_path / "in" / "evil").exists()


@pytest.mark.parametrize(
    ("manifest", "problem"),
    [
        ({"loom": "store", "version": 2, "files": {}}, "another version"),
        ({"loom": "store", "version": 1, "files": []}, "no whole backup"),
        ([], "no whole backup"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(
    tmp_path: Path, manifest: object, problem: str
) -> None:
    data = json.dumps(manifest).encode()
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        tar.addfile(_member("manifest.json", data), io.BytesIO(data))
    with pytest.raises(StorageError, match=problem):
        unpack(tmp_path / "b.tar", tmp_path / "x", lambda *_: None)


def test_progress_is_told_up_to_the_end(tmp_path: Path, backup: Path) -> None:
    told: list[tuple[int, int]] = []
    unpack(backup, tmp_path / "x", lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1] == (backup.stat().st_size, backup.stat().st_size)
    packed: list[tuple[int, int]] = []
    pack(tmp_path / "x", tmp_path / "again.tar", lambda *row: packed.append(row))
    assert packed == sorted(packed)
    assert packed[-1][0] == packed[-1][1]


def test_names_of_backups(tmp_path: Path) -> None:
    assert backup_path(tmp_path / "x.tar") == tmp_path / "x.tar"
    assert backup_path(tmp_path).parent == tmp_path
    with pytest.raises(StorageError, match="holds no backup"):
        backup_in(tmp_path)
    for name in ("loom-store-20260102-000000.tar", "loom-store-20260101-000000.tar"):
        (tmp_path / name).touch()
    assert backup_in(tmp_path).name == "loom-store-20260102-000000.tar"


def test_stats_of_a_stopped_host(store: RocksStore, loom: Callable[..., str]) -> None:
    assert "no host has stored anything" in loom("storage", "stats", code=1)
    assert "no host has stored anything" in loom("storage", "backup", "x", code=1)
    fill(store)
    store.close()
    data = json.loads(loom("storage", "stats", "--json"))
    assert data["plugins"]["acme/notes"]["keys"] == 1
    assert data["agents"]["agent 1"]["keys"] == 2
    assert data["log"]["a.b"]["events"] == 10
    text = loom("storage", "stats")
    for line in ("plugin  acme/notes  1", "agent   agent 1     2", "log     a.b         10"):
        assert line in text
    assert f"on the disk in {store.folder}" in text


async def test_stats_and_the_log_of_a_running_host(
    config: Path, store: RocksStore, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(store)
    store.close()
    async with Host.from_config(config) as host:
        server = ControlServer(host)
        await server.start()
        await host.bus.publish("a.c", Event("e", b"new", {"session_id": "7"}, source="ann"))
        words = ["-c", str(config)]
        assert await asyncio.to_thread(cli.main, [*words, "storage", "stats", "--json"]) == 0
        data = json.loads(capsys.readouterr().out)
        assert data["log"]["a.c"]["events"] == 1
        assert data["disk_bytes"] > 0
        log = [*words, "events", "log", "--topic", "a.c"]
        assert await asyncio.to_thread(cli.main, [*log, "--since", "1h"]) == 0
        assert "a.c  e  from ann  3 B  session_id=7" in capsys.readouterr().out
        assert await asyncio.to_thread(cli.main, [*log, "--until", "1h"]) == 0
        assert capsys.readouterr().out == ""
        await server.aclose()
    assert await asyncio.to_thread(cli.main, [*log, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["event"]["topic"], row["event"]["payload"]) == ("a.c", "bmV3")


def test_the_log_of_a_stopped_host_is_limited(store: RocksStore, loom: Callable[..., str]) -> None:
    fill(store)
    store.close()
    assert len(loom("events", "log", "--count", "3").splitlines()) == 3
    assert len(loom("events", "log").splitlines()) == 10
    assert len(loom("events", "log", "--since", "2020-01-01").splitlines()) == 10
    assert loom("events", "log", "--until", "2020-01-01T00:00:00") == ""
    with pytest.raises(SystemExit):
        loom("events", "log", "--since", "yesterday")
