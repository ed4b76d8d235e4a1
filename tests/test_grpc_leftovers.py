"""A host that ends, however it ends, leaves no process, folder, control group or descriptor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from loom_host.confine import cgroups
from loom_host.confine.report import Unavailable
from loom_host.runtimes.grpc import machine
from loom_host.runtimes.grpc.leftovers import HostFolder, sweep
from loom_host.runtimes.grpc.sandbox import group_name
from loom_sdk import Call
from tests.support import ROOT
from tests.test_runtime_grpc import Bench, alive

pytestmark = pytest.mark.alone


@pytest.fixture
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    folder = tmp_path_factory.mktemp("b")  # short: else its sockets lie elsewhere
    bench = Bench(folder)
    yield bench
    await bench.runtime.aclose()
    assert list((folder / "run").glob("*")) == []


def groups_of(runtime: Path) -> list[Path]:
    return [
        folder
        for private in runtime.glob("g-*/p-*")
        for folder in cgroups.find(group_name(private)).folders
    ]


async def test_a_closed_plugin_leaves_no_group_folder_or_descriptor(bench: Bench) -> None:
    async with bench.plugin("Echo", sandbox="strict"):
        pass  # what the first start opens for all
    before = len(os.listdir("/proc/self/fd"))
    async with bench.plugin("Echo", sandbox="strict") as echo:
        groups = groups_of(bench.folder / "run")
        assert groups or echo.layers["cgroup"] != "enforced"
    assert not any(folder.exists() for folder in groups)
    assert list((bench.folder / "run").glob("g-*/p-*")) == []
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_a_start_that_is_given_up_leaves_nothing(bench: Bench) -> None:
    spec = bench.spec("SlowStart", sandbox="strict")
    for seconds in (0.0, 0.005, 0.02, 0.05, 0.3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await bench.runtime.start(spec, bench.services)
    async with asyncio.timeout(3):
        while any((bench.folder / "run").glob("g-*/p-*")) or _running("SlowStart"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def _running(word: str) -> list[int]:
    """Pids of this process's descendants whose command line has the word."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if child.status() != psutil.STATUS_ZOMBIE and any(word in w for w in child.cmdline()):
                found.append(child.pid)
        except psutil.Error:
            continue
    return found


def test_only_folders_of_dead_hosts_are_swept(tmp_path: Path) -> None:
    living = HostFolder(tmp_path, 0o700)
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from loom_host.runtimes.grpc.leftovers import HostFolder\n"
        "folder = HostFolder(Path(sys.argv[1]), 0o700)\n"
        "(folder.path / 'p-left').mkdir()\nprint(folder.path)\nos._exit(0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    dead = Path(done.stdout.strip())
    (tmp_path / "g-without-lock").mkdir()
    assert dead.is_dir()
    assert sweep(tmp_path) == 1
    assert not dead.exists()
    assert living.path.is_dir()
    assert (tmp_path / "g-without-lock").is_dir()
    living.remove()
    assert not living.path.exists()


def test_what_a_dead_hosts_group_still_holds_is_killed_and_nothing_else(tmp_path: Path) -> None:
    folder = HostFolder(tmp_path, 0o700)
    private = folder.path / "p-left"
    private.mkdir()
    try:
        group = cgroups.create(group_name(private), {"memory": 1 << 28, "processes": 8})
    except Unavailable as error:
        pytest.skip(f"layer cgroup: {error}")
    inside = subprocess.Popen(["sleep", "60"])
    outside = subprocess.Popen(["sleep", "60"])
    group.join(inside.pid)
    os.close(folder._lock)  # as the kernel does when a host is killed
    assert sweep(tmp_path) == 1
    assert inside.wait(2) == -9
    assert outside.poll() is None
    assert not any(path.exists() for path in group.folders)
    outside.kill()
    outside.wait()


# ---- kill -9 of the host -------------------------------------------------------------------------


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    hosts: list[subprocess.Popen[str]] = []
    yield hosts
    for host in hosts:
        host.kill()
        host.wait()
        assert host.stdout is not None
        host.stdout.close()


def _kill_at(tmp_path: Path, phase: str, delay: float, hosts: list[Any]) -> None:
    """Start a host, kill it in that phase, and look a second later for anything of it."""
    host = subprocess.Popen(
        [sys.executable, "-m", "tests.children.victim_host", str(tmp_path), phase],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    hosts.append(host)
    assert host.stdout is not None
    assert host.stdout.readline() == "ready\n"
    time.sleep(delay)
    members = {pid for g in groups_of(tmp_path / "run") for pid in _members(g)}
    family = psutil.Process(host.pid).children(recursive=True)
    assert len(family) >= 3 or phase in ("starting", "stopping")  # the plugin and what it started
    host.kill()
    host.wait()
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline and any(_lives(p) for p in family):
        time.sleep(0.01)
    assert [p for p in family if _lives(p)] == []
    assert [pid for pid in members if pid and alive(pid)] == []
    beats = [path.read_text() for path in tmp_path.glob("data/beat")]
    time.sleep(0.15)
    assert [path.read_text() for path in tmp_path.glob("data/beat")] == beats


def _members(folder: Path) -> list[int]:
    with contextlib.suppress(OSError):  # it is being removed at this moment
        return [int(line) for line in (folder / "cgroup.procs").read_text().split()]
    return []


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def _next_start_is_clean(bench: Bench) -> None:
    left = groups_of(bench.folder / "run")
    async with bench.plugin("Echo", sandbox="strict") as echo:
        assert (await echo.invoke(Call("echo.json", {"value": 1}))).output["value"] == 1
        assert len(list((bench.folder / "run").glob("g-*"))) == 1
        assert not any(folder.exists() for folder in left)


PHASES = ("starting", "idle", "load", "stopping")


def _moments(count: int) -> list[tuple[str, float]]:
    chance = random.Random(20261123)
    return [(PHASES[n % len(PHASES)], chance.uniform(0, 0.6)) for n in range(count)]


def _need_parent_death() -> None:
    how = machine.layers()["parent_death"]
    if how != "enforced":
        pytest.skip(f"layer parent_death: {how}")


@pytest.mark.parametrize(("phase", "delay"), _moments(5))
async def test_kill_of_the_host_leaves_nothing_alive_and_the_next_start_cleans(
    phase: str, delay: float, bench: Bench, victim: list[Any]
) -> None:
    _need_parent_death()
    await asyncio.to_thread(_kill_at, bench.folder, phase, delay, victim)
    await _next_start_is_clean(bench)


@pytest.mark.soak
@pytest.mark.parametrize(("phase", "delay"), _moments(25)[5:])
async def test_kill_at_twenty_moments(
    phase: str, delay: float, bench: Bench, victim: list[Any]
) -> None:
    _need_parent_death()
    await asyncio.to_thread(_kill_at, bench.folder, phase, delay, victim)
    await _next_start_is_clean(bench)
