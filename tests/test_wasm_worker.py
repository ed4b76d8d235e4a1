"""Isolation `process`: what the kernel says of a worker, and all the ways that one ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from loom_host.runtimes.wasm import WasmInstance, WasmRuntime
from loom_host.runtimes.wasm.asks import Asks
from loom_host.runtimes.wasm.build import ensure_component
from loom_host.runtimes.wasm.cache import default_folder
from loom_host.runtimes.wasm.frames import ASK, DONE, FAILED, TELL, pack
from loom_host.runtimes.wasm.guest_process import GuestProcess
from loom_host.runtimes.wasm.messages import USAGE
from loom_host.runtimes.wasm.nursery import Offspring
from loom_host.runtimes.wasm.ticket import Ticket
from loom_host.runtimes.wasm.traps import Limits
from loom_sdk import Call, Result
from loom_sdk.errors import DeadlineExceeded, LoomError, PluginCrashed, PluginLoadError

from .hosting import until
from .support import ROOT, AsyncFakePort, FakePort, within
from .test_runtime_wasm import ENTRY, GUESTS, spec_of

Starter = Any


@pytest.fixture(scope="module")
def component() -> Path:
    return ensure_component(GUESTS, ENTRY, default_folder())


class Hosted:
    """An instance in a worker process."""

    def __init__(self, instance: WasmInstance, runtime: WasmRuntime) -> None:
        self.instance, self.runtime = instance, runtime

    async def output(self, capability: str, **arguments: Any) -> Any:
        return (await self.instance.invoke(Call(capability, arguments))).output

    @property
    def pid(self) -> int:
        return self.instance.usage().pid

    @property
    def zygote(self) -> int:
        process = psutil.Process(self.pid).parent()
        assert process is not None
        return int(process.pid)

    def extra(self, name: str) -> float:
        return self.instance.usage().extra[name]


@pytest.fixture
def start(component: Path, tmp_path: Path) -> Starter:
    @asynccontextmanager
    async def run(
        services: Any = None, idle_s: float = 60.0, isolation: str = "process", **quotas: Any
    ) -> AsyncIterator[Any]:
        spec = spec_of(tmp_path, component.name, component.parent)
        spec = replace(
            spec, isolation=isolation, idle_s=idle_s, quotas=replace(spec.quotas, **quotas)
        )
        runtime = WasmRuntime()
        instance = await runtime.start(spec, services or AsyncFakePort(FakePort()))
        try:
            yield Hosted(instance, runtime)
        finally:
            await instance.aclose(1.0)
            await runtime.aclose()

    return run


def status(pid: int, key: str) -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return line.split(":", 1)[1].strip()
    raise KeyError(key)


def about(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


def groups_of(zygote: int) -> list[Path]:
    return list(Path("/sys/fs/cgroup").glob(f"**/loom-{zygote}-*"))


def alive(pid: int) -> bool:
    try:
        return status(pid, "State")[0] not in "ZX"
    except OSError:
        return False


# ---- What it may ----------------------------------------------------------------------------


async def test_the_kernel_holds_a_running_worker(start: Starter) -> None:
    async with start() as hosted:
        pid = hosted.pid
        assert status(pid, "Seccomp") == "2"
        assert status(pid, "NoNewPrivs") == "1"
        assert status(pid, "CapEff") == status(pid, "CapPrm") == "0" * 16
        assert os.getsid(pid) == pid
        limits = about(pid, "limits")
        assert any(
            line.split()[:5] == ["Max", "file", "size", "0", "0"] for line in limits.splitlines()
        )
        if os.geteuid() == 0:
            assert set(status(pid, "Uid").split()) == {str(0x7000_0000 + pid)}
            assert status(pid, "Groups") == ""
        layers = hosted.instance.layers
        assert {layers[name] for name in ("rlimits", "no_new_privileges", "seccomp")} == {
            "enforced"
        }
        assert {hosted.instance.enforcement[n] for n in ("filesystem", "network", "processes")} == {
            "enforced"
        }


async def test_a_worker_has_nothing_open_but_its_own(start: Starter, component: Path) -> None:
    async with start() as hosted:
        await hosted.output("t.sleep", seconds=0.01)
        folder = Path(f"/proc/{hosted.pid}/fd")
        files = [os.readlink(folder / name) for name in os.listdir(folder)]
        own = ("/dev/null", "socket:", "anon_inode:", f"/proc/{hosted.pid}/maps")
        strange = [f for f in files if not f.startswith(own) and not f.endswith(".cwasm")]
        assert strange == []
        assert sum(f.startswith("socket:") for f in files) <= 4  # two of ours, a pair of tokio's


async def test_the_zygote_is_lean_and_has_one_thread(start: Starter) -> None:
    async with start() as hosted:
        zygote = hosted.zygote
        assert status(zygote, "Threads") == "1"
        maps = about(zygote, "maps")
        for heavy in ("grpc", "jsonschema", "rocksdict", "_ssl", "_asyncio"):
            assert heavy not in maps, heavy


async def test_a_worker_shares_what_it_can(tmp_path: Path, component: Path) -> None:
    async with _started(tmp_path, component) as (instance, _):
        text = about(instance.usage().pid, "smaps_rollup")
        pss = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
        assert pss < 60_000  # kB: the code of a Python guest has 35 MB, its memory 13


@asynccontextmanager
async def _started(tmp: Path, component: Path, **changes: Any) -> AsyncIterator[Any]:
    runtime = WasmRuntime()
    spec = replace(spec_of(tmp, component.name, component.parent), **changes)
    instance = await runtime.start(spec, AsyncFakePort(FakePort()))
    try:
        yield instance, runtime
    finally:
        await instance.aclose(1.0)
        await runtime.aclose()


@pytest.mark.parametrize(
    ("first_party", "isolation", "process"),
    [(False, "", True), (True, "", False), (True, "process", True), (False, "thread", False)],
)
async def test_strangers_get_a_process_of_their_own(
    tmp_path: Path, component: Path, first_party: bool, isolation: str, process: bool
) -> None:
    settings = {"first_party": first_party, "isolation": isolation}
    async with _started(tmp_path, component, **settings) as (instance, _):
        assert (instance.usage().pid != 0) == process
        assert bool(instance.layers) == process


async def test_compiling_happens_outside_the_host(tmp_path: Path) -> None:
    from wasmtime import wat2wasm

    (tmp_path / "a.wasm").write_bytes(
        wat2wasm('(component (import "no:such/x@1.0.0" (instance (export "f" (func)))))')
    )
    broken = bytes(wat2wasm("(component (core module (func (result i32) i32.const 1)))"))
    (tmp_path / "b.wasm").write_bytes(broken[:-6] + b"\xff" * 6)
    runtime = WasmRuntime(tmp_path / "cache")
    try:
        for name, reason in (("a.wasm", "imports no:such/x"), ("b.wasm", "no component that")):
            spec = spec_of(tmp_path, name, tmp_path)
            with pytest.raises(PluginLoadError, match=reason):
                await runtime.start(spec, AsyncFakePort(FakePort()))
        assert runtime._engines == {}
        assert len(list((tmp_path / "cache" / "wasm").glob("*.cwasm"))) == 1
    finally:
        await runtime.aclose()


# ---- How it ends ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "told"),
    # Where the signal meets the guest's own code, wasmtime finds no trap there and aborts.
    [(signal.SIGKILL, "9"), (signal.SIGSEGV, f"({int(signal.SIGSEGV)}|{int(signal.SIGABRT)})")],
)
async def test_a_crash_costs_one_worker(start: Starter, number: int, told: str) -> None:
    async with start() as hosted:
        spinning = asyncio.create_task(hosted.output("t.spin"))
        await asyncio.sleep(0.05)
        first = hosted.pid
        while alive(first):  # wasmtime passes the first SIGSEGV on to the default handler
            with contextlib.suppress(ProcessLookupError):
                os.kill(first, number)
            await asyncio.sleep(0.01)
        with pytest.raises(PluginCrashed, match=f"killed by signal {told}$"):
            await spinning
        assert not alive(first)
        assert await hosted.output("t.count") == 1
        assert hosted.pid != first
        assert hosted.extra("renewals") == 1


async def test_a_crash_between_calls_is_not_the_next_calls_error(start: Starter) -> None:
    async with start() as hosted:
        first = hosted.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: not alive(first))
        await asyncio.sleep(0.05)
        assert await hosted.output("t.count") == 1


async def test_a_stopped_worker_is_killed_at_the_deadline(start: Starter) -> None:
    async with start(deadline_ms=300) as hosted:
        first = hosted.pid
        os.kill(first, signal.SIGSTOP)
        with within(550), pytest.raises(DeadlineExceeded, match="deadline_ms"):
            await hosted.output("t.count")
        await until(lambda: not alive(first))
        assert await hosted.output("t.count") == 1
        assert hosted.extra("workers_killed") == 1


async def test_cancelling_kills_a_worker_that_does_not_listen(start: Starter) -> None:
    async with start() as hosted:
        task = asyncio.create_task(hosted.output("t.spin"))
        await asyncio.sleep(0.05)
        first = hosted.pid
        os.kill(first, signal.SIGSTOP)
        task.cancel()
        with within(300), pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not alive(first))
        assert await hosted.output("t.count") == 1


async def test_a_call_deep_in_the_host_ends_at_the_deadline(start: Starter) -> None:
    ended = asyncio.Event()

    class Slow(AsyncFakePort):
        async def invoke(self, call: Call) -> Result:
            assert 0 < call.remaining_ms <= 300
            try:
                await asyncio.sleep(30)
            finally:
                ended.set()
            return Result(None)

    async with start(Slow(FakePort()), deadline_ms=300) as hosted:
        first = hosted.pid
        with within(300), pytest.raises(DeadlineExceeded):
            await hosted.output("t.nested", name="x.y")
        await asyncio.wait_for(ended.wait(), 1)
        assert await hosted.output("t.count") == 1
        assert hosted.pid == first  # it left by itself


async def test_the_zygote_is_started_again(start: Starter) -> None:
    async with start() as hosted:
        first, zygote = hosted.pid, hosted.zygote
        os.kill(zygote, signal.SIGKILL)
        await until(lambda: not alive(first), 1)
        await asyncio.sleep(0.05)
        assert await hosted.output("t.count") == 1
        assert hosted.zygote != zygote


async def test_a_zygote_that_hangs_costs_no_more_than_the_deadline(start: Starter) -> None:
    async with start(deadline_ms=300) as hosted:
        zygote, first = hosted.zygote, hosted.pid
        os.kill(zygote, signal.SIGSTOP)
        os.kill(first, signal.SIGSTOP)
        try:
            with within(800), pytest.raises(DeadlineExceeded):
                await hosted.output("t.count")
        finally:
            os.kill(zygote, signal.SIGCONT)
        await until(lambda: not alive(first))
        await asyncio.sleep(0.1)
        assert await hosted.output("t.count") == 1


async def test_an_idle_worker_rests_and_comes_back(start: Starter) -> None:
    async with start(idle_s=0.2) as hosted:
        first, declared = hosted.pid, hosted.instance.declaration
        assert await hosted.output("t.count") == 1
        await until(lambda: not alive(first))
        await until(lambda: hosted.pid == 0)
        assert await hosted.instance.health() == ""
        assert hosted.pid == 0
        assert await hosted.output("t.count") == 1
        assert hosted.pid not in (0, first)
        assert hosted.instance.declaration is declared
        assert (hosted.extra("renewals"), hosted.extra("workers_killed")) == (1, 0)


async def test_a_worker_at_work_is_not_idle(start: Starter) -> None:
    async with start(idle_s=0.1) as hosted:
        first = hosted.pid
        assert await hosted.output("t.sleep", seconds=0.4) >= 0.4
        assert await hosted.output("t.count") == 1
        assert hosted.pid == first


def test_the_hosts_death_leaves_no_process(component: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.children.wasm_host", str(component), str(tmp_path)]
    host = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert host.stdout is not None
    with host.stdout:
        zygote, worker = map(int, host.stdout.readline().split())
        assert alive(zygote)
        assert alive(worker)
        host.kill()
        host.wait()
    ends = time.monotonic() + 1
    while (alive(zygote) or alive(worker)) and time.monotonic() < ends:
        time.sleep(0.01)
    assert not alive(zygote)
    assert not alive(worker)
    assert groups_of(zygote) == []


def _held() -> tuple[int, int, set[str], int]:
    """Open files, threads, temporary files and children of this process."""
    gc.collect()  # compiled code of tests before keeps its file open as long as a traceback does
    children = psutil.Process().children(recursive=True)
    files = {path.name for path in default_folder().iterdir() if path.name.startswith(".new-")}
    return len(os.listdir("/proc/self/fd")), threading.active_count(), files, len(children)


def _nothing_more(before: tuple[int, int, set[str], int]) -> bool:
    """Files may become fewer: what tests before left to the collector is closed meanwhile."""
    files, *others = _held()
    return files <= before[0] and others == list(before[1:])


@pytest.mark.parametrize(
    ("isolation", "count"),
    [
        ("process", 200),
        pytest.param("process", 1000, marks=pytest.mark.soak),
        pytest.param("thread", 1000, marks=pytest.mark.soak),
    ],
)
async def test_many_ends_leave_nothing_behind(start: Starter, isolation: str, count: int) -> None:
    async with start(isolation=isolation) as hosted:
        await hosted.output("t.sleep", seconds=0.01)  # wasmtime makes its own timer once
        before = _held()
        for number in range(count):
            await _end(hosted, number)
        await hosted.output("t.sleep", seconds=0.01)
        assert _nothing_more(before), (_held(), before)
        zygote = hosted.zygote if hosted.pid else 0
        assert len(groups_of(zygote)) <= 2  # memory and pids, of the one that runs
        assert hosted.extra("abandoned_threads") == 0
    assert not zygote or not alive(zygote)


async def _end(hosted: Hosted, number: int) -> None:
    """One of four ends: trap, deadline, cancellation, and now and then a killed worker."""
    kind = number % 4
    if kind == 0:
        with pytest.raises(PluginCrashed):
            await hosted.output("t.exit")
    elif kind == 1:
        with pytest.raises(DeadlineExceeded):
            await hosted.instance.invoke(Call("t.spin", {}, remaining_ms=60))
    elif kind == 2:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005):
                await hosted.output("t.sleep", seconds=10)
    elif number % 20 == 3 and hosted.pid:
        os.kill(hosted.pid, signal.SIGKILL)
        with contextlib.suppress(LoomError):
            await hosted.output("t.count")
    else:
        with pytest.raises(LoomError):
            await hosted.output("t.raise")


# ---- A worker that has been taken over --------------------------------------------------------


def _sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"])


@asynccontextmanager
async def taken_over() -> AsyncIterator[tuple[GuestProcess, socket.socket, FakePort]]:
    """A host's view of a process whose side of the sockets this test speaks."""
    pairs = [socket.socketpair() for _ in range(2)]
    for ours, theirs in pairs:
        ours.setblocking(False)
        theirs.setblocking(False)
    loop = asyncio.get_running_loop()
    body = _sleeper()
    pidfd = os.pidfd_open(body.pid)
    watch = os.dup(pidfd)
    child = Offspring(body.pid, pidfd)

    def reap() -> None:
        loop.remove_reader(watch)
        child.ended(body.wait())

    loop.add_reader(watch, reap)
    port = FakePort()
    asks = Asks(AsyncFakePort(port), "test/p", 1000)
    limits = Limits("test/p", 1 << 26, 1000)
    process = GuestProcess(child, [ours for ours, _ in pairs], limits, 5000, asks)
    try:
        yield process, pairs[0][1], port
    finally:
        await process.aclose()
        os.close(watch)
        for _, theirs in pairs:
            theirs.close()


def _request(process: GuestProcess) -> asyncio.Task[list[bytes]]:
    return asyncio.create_task(process.request("shutdown", [], Ticket("call", 5), lambda *_: None))


USED = USAGE.pack(0, 0, 0, 0.0, 0, 1)


@pytest.mark.parametrize(
    "said",
    [
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x00",
        pack(DONE, 1, [b"x" * 6000]),
        pack(DONE, 2, USED),
        pack(DONE, 1, []),
        pack(FAILED, 1, [*USED, b"CODE"]),
        pack(FAILED, 1, [*USED, b"\xff", b"", b""]),
        pack(99, 1, []),
        pack(ASK, 1, [b"no-such"]),
        pack(ASK, 1, [b"kv-get", b"\xff"]),
        pack(ASK, 1, [b"emit", b"[" * 4000, b"", b""]),
        pack(ASK, 1, [b"kv-list", b""]) + pack(ASK, 2, [b"kv-list", b""]),
        pack(TELL, 0, [b"log", b"info", b"text", b"[1]"]),
        pack(TELL, 0, [b"exec"]),
        pack(TELL, 0, []),
    ],
)
async def test_what_breaks_the_protocol_ends_the_worker(said: bytes) -> None:
    async with taken_over() as (process, worker, _):
        task = _request(process)
        await asyncio.sleep(0)
        worker.send(said)
        with pytest.raises(PluginCrashed, match="broke the protocol"):
            await task
        assert await asyncio.wait_for(process.child.exited, 2) == -signal.SIGKILL
        with pytest.raises(PluginCrashed):
            await _request(process)


@pytest.mark.parametrize("said", [pack(TELL, 0, [b"log", b"info", b"x", b"[]"]), pack(DONE, 0, [])])
async def test_a_worker_that_speaks_unasked_is_ended(said: bytes) -> None:
    async with taken_over() as (process, worker, port):
        worker.send(said)
        await until(lambda: process.child.exited.done())
        assert port.logs == []


async def test_a_worker_that_hangs_up_is_ended() -> None:
    async with taken_over() as (process, worker, _):
        task = _request(process)
        await asyncio.sleep(0)
        worker.shutdown(socket.SHUT_RDWR)
        with pytest.raises(PluginCrashed):
            await task


async def test_emitting_over_the_quota_is_counted_by_the_host() -> None:
    async with taken_over() as (process, worker, port):
        task = _request(process)
        await asyncio.sleep(0)
        for number in range(5):
            worker.send(pack(ASK, number + 1, [b"emit", b"null", b"x" * 300, b""]))
            await _readable(worker)
            worker.recv(65536)
        worker.send(pack(DONE, 1, USED))
        await task
        assert len(port.items) == 3


async def test_a_flood_leaves_the_loop_free() -> None:
    """A worker that talks without end: others still get their turn."""
    async with taken_over() as (process, worker, port):
        task = _request(process)
        flood = pack(TELL, 0, [b"log", b"info", b"x", b"[]"]) * 2000
        stop = threading.Event()
        worker.setblocking(True)
        worker.settimeout(0.5)

        def talk() -> None:
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    worker.sendall(flood)

        thread = threading.Thread(target=talk)
        thread.start()
        worst = await _worst_turn(0.5)
        assert len(port.logs) > 1000
        process.kill()
        with pytest.raises(PluginCrashed):
            await task
        stop.set()
        await asyncio.to_thread(thread.join)
        assert worst < 0.1


async def _worst_turn(seconds: float) -> float:
    worst, ends = 0.0, time.monotonic() + seconds
    while (began := time.monotonic()) < ends:
        await asyncio.sleep(0)
        worst = max(worst, time.monotonic() - began)
    return worst


async def _readable(end: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def found() -> None:
        if not future.done():
            future.set_result(None)

    loop.add_reader(end, found)
    try:
        async with asyncio.timeout(2):
            await future
    finally:
        loop.remove_reader(end)
