"""Folders: how they are asked for, granted and found; how much a guest may write into them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loom_host.assembly import make_handle
from loom_host.config import parse_settings
from loom_host.folders import Folder, check_ask, covers, granted
from loom_host.manifest import parse_manifest
from loom_host.runtimes.wasm import folder_watch, lockdown, preopens
from loom_host.runtimes.wasm.folder_watch import FolderWatch, Used, measure
from loom_sdk.errors import (
    ActionFailed,
    ConfigError,
    ManifestError,
    PluginCrashed,
    PluginLoadError,
    QuotaExceeded,
)

from .support import ROOT


@pytest.mark.parametrize("text", ["notes", "notes:rw", "my-notes_2", "0"])
def test_asks(text: str) -> None:
    check_ask(text)


@pytest.mark.parametrize("text", ["", ":rw", "/notes", "../x", "a/b", "Notes", "a:ro", "*", "a "])
def test_what_is_no_ask(text: str) -> None:
    with pytest.raises(ValueError, match="lower case"):
        check_ask(text)


@pytest.mark.parametrize(
    ("pattern", "value", "covered"),
    [
        ("a", "a", True), ("a:rw", "a", True), ("a:rw", "a:rw", True), ("a", "a:rw", False),
        ("*", "a", True), ("*", "a:rw", False), ("*:rw", "a:rw", True), ("a", "b", False),
    ],
)  # fmt: skip
def test_writing_covers_reading(pattern: str, value: str, covered: bool) -> None:
    assert covers(pattern, value) == covered


def test_granted_folders(tmp_path: Path) -> None:
    paths = {"a": str(tmp_path), "b": str(tmp_path)}
    assert granted(["b", "a", "a:rw"], paths) == (
        Folder("a", tmp_path, True),
        Folder("b", tmp_path, False),
    )
    assert granted([], paths) == ()
    with pytest.raises(ValueError, match='add c = "/path"'):
        granted(["c"], paths)
    with pytest.raises(ValueError, match="is no folder"):
        granted(["a"], {"a": str(tmp_path / "missing")})


def _plugin(folder: Path, filesystem: list[str]) -> Any:
    head = {
        "id": "a/p", "version": "1", "api": "1", "type": "tool", "tier": "wasm", "entry": "p.wasm",
    }  # fmt: skip
    data = {"plugin": head, "permissions": {"filesystem": filesystem}}
    return parse_manifest(data, folder / "plugin.toml")


def test_from_the_two_files_to_the_runtime(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    table: dict[str, Any] = {
        "allow": {"filesystem": ["notes"]},
        "folders": {"notes": "notes"},
    }
    manifest = _plugin(tmp_path, ["notes:rw", "other"])

    def spec() -> Any:
        settings = parse_settings({"plugins": {"p": table}}, tmp_path / "loom.toml")
        return make_handle("p", manifest, settings).spec

    assert spec().folders == (Folder("notes", tmp_path / "notes", False),)
    assert spec().folders[0].inside == "/notes"
    table["allow"]["filesystem"] = ["notes:rw"]
    assert spec().folders[0].writable
    table["folders"] = {}
    with pytest.raises(ConfigError, match=r"\[plugins.p.folders\]: notes is granted"):
        spec()
    table["folders"] = {"notes": 1}
    with pytest.raises(ConfigError, match="must be a text"):
        spec()
    with pytest.raises(ManifestError, match="'notes' to read"):
        _plugin(tmp_path, ["/etc"])


def test_rules_of_the_network_are_checked_where_they_are_written(tmp_path: Path) -> None:
    table = {"plugins": {"p": {"allow": {"network": ["https//api.example"]}}}}
    with pytest.raises(ConfigError, match=r"allow network: 'https//api.example' is no rule"):
        parse_settings(table)


# ---- As a worker gets them ------------------------------------------------------------------


def test_a_worker_gets_open_folders_and_the_limit_of_a_file(tmp_path: Path) -> None:
    read, write = Folder("a", tmp_path, False), Folder("b", tmp_path, True)
    with preopens.opened((read, write), 100) as (room, held):
        assert room.writable == (False, True)
        assert room.file_size == 101
        assert room.owner == (tmp_path.stat().st_uid, tmp_path.stat().st_gid)
        assert [os.path.samestat(os.fstat(one), tmp_path.stat()) for one in held] == [True, True]
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(held[0])
    with preopens.opened((read,), 100) as (room, _):
        assert room.file_size == 0
    with preopens.opened((), 100) as (room, _):
        assert room == preopens.NO_FOLDERS
    gone = Folder("c", tmp_path / "gone", False)
    with pytest.raises(PluginLoadError, match="cannot be opened"), preopens.opened((gone,), 1):
        pytest.fail("it is not there")
    with (
        pytest.raises(PluginLoadError, match="at most 8"),
        preopens.opened((read,) * 9, 1),
    ):
        pytest.fail("they are too many")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_two_written_folders_need_one_owner(tmp_path: Path) -> None:
    folders = []
    for number, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, 1000 + number, 1000)
        folders.append(Folder(name, tmp_path / name, True))
    with pytest.raises(PluginLoadError, match="several users"):
        preopens.owner_of(folders)
    reading = Folder("c", tmp_path, False)
    assert preopens.owner_of([reading, folders[1]]) == (1001, 1000)


# ---- How much is written --------------------------------------------------------------------


def test_measure(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(bytes(70))
    (tmp_path / "b").write_bytes(bytes(30))
    (tmp_path / "link").symlink_to("/")
    size, entries = measure(tmp_path)
    assert entries == 4
    assert 100 <= size < 110
    assert measure(tmp_path / "missing") == (0, 0)


def test_a_path_too_long_to_follow_counts_as_full(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_DIRECTORY)
    opened = [here]
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=here)
        here = os.open("d" * 250, os.O_DIRECTORY, dir_fd=here)
        opened.append(here)
    assert measure(tmp_path).entries > folder_watch.MAX_ENTRIES
    while len(opened) > 1:
        os.close(opened.pop())
        os.rmdir("d" * 250, dir_fd=opened[-1])
    os.close(opened[0])


def watch_of(folder: Path, limit: int = 100) -> FolderWatch:
    return FolderWatch((Folder("desk", folder, True),), limit, "test/p")


async def test_a_call_within_the_limit_is_left_alone(tmp_path: Path) -> None:
    async with watch_of(tmp_path).during(lambda _: pytest.fail("stopped")):
        (tmp_path / "a").write_bytes(bytes(100))
    with pytest.raises(ActionFailed, match="its own"):
        async with watch_of(tmp_path).during(lambda _: None):
            raise ActionFailed("its own")


async def test_a_call_that_goes_over_is_stopped_and_told(tmp_path: Path) -> None:
    stopped = asyncio.Event()
    with pytest.raises(QuotaExceeded, match="folder desk") as caught:
        async with watch_of(tmp_path).during(lambda _: stopped.set()):
            (tmp_path / "a").write_bytes(bytes(101))
            await asyncio.wait_for(stopped.wait(), 2)
            raise PluginCrashed("it was stopped")
    assert (caught.value.quota, caught.value.limit, caught.value.used) == ("folder_bytes", 100, 101)


async def test_what_is_left_at_the_end_counts(tmp_path: Path) -> None:
    with pytest.raises(QuotaExceeded):
        async with watch_of(tmp_path).during(lambda _: None):
            (tmp_path / "a").write_bytes(bytes(101))


async def test_over_the_limit_it_may_delete_and_over_twice_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(150))
    async with watch_of(tmp_path).during(lambda _: None):
        (tmp_path / "a").write_bytes(bytes(120))
    (tmp_path / "a").write_bytes(bytes(201))
    with pytest.raises(QuotaExceeded, match="by hand"):
        async with watch_of(tmp_path).during(lambda _: None):
            pytest.fail("it began")


async def test_entries_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_watch, "MAX_ENTRIES", 3)
    with pytest.raises(QuotaExceeded) as caught:
        async with watch_of(tmp_path).during(lambda _: None):
            for number in range(4):
                (tmp_path / str(number)).touch()
    assert caught.value.quota == "folder_entries"
    assert measure(tmp_path) == Used(0, 4)


async def test_a_folder_that_is_only_read_is_not_looked_at(tmp_path: Path) -> None:
    watch = FolderWatch((Folder("library", tmp_path, False),), 1, "test/p")
    async with watch.during(lambda _: None):
        (tmp_path / "a").write_bytes(bytes(100))


# ---- As the kernel holds a worker to them ---------------------------------------------------

ALLOWED = ("read", "list", "write", "rename", "mkdir", "remove")


@pytest.mark.parametrize("owner", [None, 12345])
def test_the_kernel_holds_a_worker_to_its_folders(tmp_path: Path, owner: int | None) -> None:
    """Even code that has broken out of the engine gets no further."""
    read, written, outside = (tmp_path / name for name in ("read", "written", "outside"))
    for folder in (read, written):
        folder.mkdir()
    (read / "book").write_text("words")
    (read / "out").symlink_to(outside)
    outside.write_text("private")
    if owner is not None:
        if os.geteuid() != 0:
            pytest.skip("needs root to give files away")
        for path in (read, written, read / "book", outside):
            os.chown(path, owner, owner)
    command = [
        sys.executable,
        "-m",
        "tests.children.roomed",
        *map(str, (read, written, outside)),
        "5000",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    answer = json.loads(done.stdout)
    assert answer["essential"] == ""
    said = answer["said"]
    assert {name: said.pop(name) for name in ALLOWED} == dict.fromkeys(ALLOWED, "ok")
    assert [name for name, what in said.items() if what == "ok"] == []
    assert (read / "book").read_text() == "words"
    assert outside.read_text() == "private"
    assert (written / "large").stat().st_size == 5000
    assert answer["user"] == written.stat().st_uid


def test_without_landlock_there_are_no_folders() -> None:
    layers = dict.fromkeys(("no_new_privileges", "rlimits", "seccomp"), "enforced")
    layers["landlock"] = "unenforced: the kernel has none"
    assert lockdown.essential(layers, lockdown.Files({})) == ""
    assert "landlock" in lockdown.essential(layers, lockdown.Files({}, (1000, 1000)))
