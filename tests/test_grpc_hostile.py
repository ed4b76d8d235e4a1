"""Hostile children in the strict sandbox: each meets its typed error, and the host stays well.

Where a layer is missing on this machine the test is skipped with the layer's name.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from loom_host.runtimes.grpc.instance import GrpcInstance
from loom_host.runtimes.grpc.users import COUNT, FIRST
from loom_sdk import Call
from loom_sdk.errors import (
    LoomError,
    PluginCrashed,
    PluginLoadError,
    ProtocolMismatch,
    QuotaExceeded,
)
from tests.children.attacks import ATTACKS
from tests.test_runtime_grpc import CHILDREN, Bench, alive, timed, until, with_deadline

MIB = 1024**2
SECRET = "the host's own secret 5f3a"
SLACK_S = 0.25


def needs(layers: Mapping[str, str], *names: str) -> None:
    """Skip, naming the layer, unless all of them hold here."""
    for name in names:
        if layers.get(name) != "enforced":
            pytest.skip(f"layer {name}: {layers.get(name, 'not applied')}")


@asynccontextmanager
async def attacker(bench: Bench, *, sandbox: str = "strict", **quotas: Any) -> AsyncIterator[Any]:
    """A plugin from tests/children/attacker.py, in folders of its own."""
    spec = replace(
        bench.spec("", sandbox=sandbox, **quotas),
        id="test/attacker", entry="attacker:Attacker",
        data_dir=bench.folder / "attacker-data", cache_dir=bench.folder / "attacker-cache",
    )  # fmt: skip
    instance = await bench.runtime.start(spec, bench.services)
    try:
        yield instance
    finally:
        await instance.aclose(1)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.runtime.aclose()
    assert list((tmp_path / "run").glob("*")) == []


# ---- Tried by programs that the plugin starts --------------------------------------------------


@dataclass(frozen=True)
class Tried:
    layers: Mapping[str, str]
    outcomes: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        return self.outcomes[name]


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Tried:
    """Every attack, once, beside another plugin and a host with sockets and a secret."""
    os.environ["A_SECRET_OF_THE_HOST"] = SECRET
    try:
        return asyncio.run(_try_all(tmp_path_factory.mktemp("hostile")))
    finally:
        del os.environ["A_SECRET_OF_THE_HOST"]


async def _try_all(folder: Path) -> Tried:
    bench = Bench(folder)
    (folder / "file").write_text("of the test")
    abstract = f"loom-test-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind("\0" + abstract)
        unix.listen()
        async with bench.plugin("Echo", sandbox="strict"):
            (runtime,) = (folder / "run").glob("g-*")
            (other,) = runtime.glob("p-*/plugin.sock")
            async with attacker(bench) as instance:
                known = {
                    "host": os.getpid(), "port": tcp.getsockname()[1], "abstract": abstract,
                    "other_socket": str(other), "secret": SECRET, "runtime": str(runtime),
                    "file": str(folder / "file"), "code": str(CHILDREN),
                    "data": str(folder / "attacker-data"),
                }  # fmt: skip
                call = Call("attack.try", {"names": list(ATTACKS), "known": known})
                answer = await instance.invoke(call)
                layers = dict(instance.layers)
    await bench.runtime.aclose()
    assert set(answer.output) == set(ATTACKS), answer.output
    return Tried(layers, answer.output)


@pytest.mark.parametrize(
    "name", ["read_shadow", "read_passwd_of_host", "read_home", "read_file_of_test"]
)
def test_files_of_the_host_cannot_be_read(name: str, tried: Tried) -> None:
    needs(tried.layers, "landlock")
    assert tried[name] in ("ENOENT", "EACCES")


def test_other_plugins_sockets_are_not_even_seen(tried: Tried) -> None:
    needs(tried.layers, "namespaces")
    assert re.fullmatch(r"sees \['host.sock', 'p-\w+'\]", tried["list_runtime_folder"])
    assert tried["connect_unix"] == "ENOENT"


def test_no_environment_but_its_own_can_be_read(tried: Tried) -> None:
    needs(tried.layers, "landlock")
    assert tried["environments"].startswith("none of")


@pytest.mark.parametrize("name", ["read_host_memory", "read_kernel_memory"])
def test_memory_of_the_host_cannot_be_read(name: str, tried: Tried) -> None:
    needs(tried.layers, "landlock")
    assert tried[name] in ("ENOENT", "EACCES")


@pytest.mark.parametrize(
    "name",
    ["write_code", "write_usr", "write_root", "write_dev", "write_core_pattern", "write_sysrq"],
)
def test_nothing_but_its_own_folders_can_be_written(name: str, tried: Tried) -> None:
    needs(tried.layers, "landlock")
    assert tried[name] in ("EROFS", "EACCES", "ENOENT")


@pytest.mark.parametrize("name", ["read_disk", "make_device"])
def test_no_device_but_the_harmless_ones(name: str, tried: Tried) -> None:
    needs(tried.layers, "landlock")
    assert tried[name] in ("ENOENT", "EACCES", "EPERM")


@pytest.mark.parametrize(("name", "others"), [("kill_host", "ESRCH"), ("kill_init", "EPERM")])
def test_processes_of_the_host_cannot_be_signalled(name: str, others: str, tried: Tried) -> None:
    needs(tried.layers, "namespaces")
    assert tried[name] == others


def test_of_all_socket_families_only_unix_opens(tried: Tried) -> None:
    needs(tried.layers, "seccomp")
    assert tried["families"] == f"ok [{int(socket.AF_UNIX)}]"


@pytest.mark.parametrize("name", ["connect_tcp", "connect_abstract"])
def test_sockets_of_the_host_cannot_be_reached(name: str, tried: Tried) -> None:
    needs(tried.layers, "namespaces")
    assert tried[name] in ("EPERM", "ECONNREFUSED", "ENETUNREACH")


def test_it_has_no_capability_and_gets_none(tried: Tried) -> None:
    needs(tried.layers, "no_capabilities", "no_new_privileges", "seccomp")
    assert tried["capabilities"] == "none"
    assert tried["privileges"] == "1 2"
    assert tried["become_root"] in ("EPERM", "EINVAL")


def test_it_is_a_user_that_owns_nothing(tried: Tried) -> None:
    needs(tried.layers, "own_user")
    user, group, others = tried["identity"].split(maxsplit=2)
    assert FIRST <= int(user) < FIRST + COUNT
    assert (group, others) == (user, "[]")


KILLED = (
    "mount", "umount2", "pivot_root", "unshare", "setns", "bpf", "chroot", "reboot", "swapon",
    "open_by_handle_at", "init_module", "fsopen",
)  # fmt: skip
REFUSED = (
    "ptrace", "keyctl", "userfaultfd", "perf_event_open", "process_vm_readv", "sethostname",
    "settimeofday", "kcmp",
)  # fmt: skip


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86_64")
def test_dangerous_system_calls_kill_are_refused_or_do_not_exist(tried: Tried) -> None:
    needs(tried.layers, "seccomp")
    assert {n: tried[f"syscall_{n}"] for n in KILLED} == dict.fromkeys(KILLED, "SIGSYS")
    assert {n: tried[f"syscall_{n}"] for n in REFUSED} == dict.fromkeys(REFUSED, "EPERM")
    for name in ("io_uring_setup", "clone3", "mseal_and_later"):
        assert tried[f"syscall_{name}"] == "ENOSYS"
    assert tried["user_namespace"] == "SIGSYS"


@pytest.mark.parametrize(("name", "limit"), [("fill_tmp", 64 * MIB), ("fill_shm", 16 * MIB)])
def test_temporary_folders_are_full_at_their_size(name: str, limit: int, tried: Tried) -> None:
    needs(tried.layers, "namespaces")
    assert tried[name] == f"ENOSPC {limit}"


def test_forks_end_at_the_quota_of_processes(tried: Tried) -> None:
    if "enforced" not in (tried.layers["cgroup"], tried.layers["own_user"]):
        needs(tried.layers, "cgroup")
    error, count = tried["fork_bomb"].split()
    assert error == "EAGAIN"
    assert 1 < int(count) <= 64


def test_open_files_and_file_size_end_at_their_quotas(tried: Tried) -> None:
    needs(tried.layers, "rlimits")
    error, count = tried["open_files"].split()
    assert error == "EMFILE"
    assert 1000 < int(count) <= 1024
    assert tried["big_file"] == "EFBIG"
    assert tried["raise_limit"].startswith("ValueError not allowed")


def test_what_it_writes_cannot_be_started(tried: Tried) -> None:
    needs(tried.layers, "landlock")
    assert tried["run_what_it_wrote"] == "EACCES"


# ---- Quotas that end the child -----------------------------------------------------------------


async def ended_for(quota: str, work: Any) -> QuotaExceeded:
    with pytest.raises(QuotaExceeded, match=f"quota {quota} in loom.toml") as caught:
        await asyncio.wait_for(work, 30)
    assert caught.value.quota == quota
    assert caught.value.used >= caught.value.limit
    assert caught.value.plugin_id.startswith("test/")
    return caught.value


async def test_memory_of_the_child_is_held_by_its_control_group(bench: Bench) -> None:
    async with bench.plugin("Hostile", sandbox="strict", memory=96 * MIB) as hostile:
        needs(hostile.layers, "cgroup")
        assert hostile.enforcement["memory"] == "enforced"
        error = await ended_for("memory", hostile.invoke(Call("hostile.grow", {})))
        assert 90 * MIB < error.used <= 128 * MIB  # the peak
        assert str(int(error.used)) in error.message
        assert "memory" in await hostile.wait_exit()


@pytest.mark.slow
async def test_memory_of_what_it_starts_counts(bench: Bench) -> None:
    async with attacker(bench, memory=96 * MIB) as instance:
        needs(instance.layers, "cgroup")
        call = Call("attack.hungry_child", {})
        try:
            answer = await asyncio.wait_for(instance.invoke(call), 30)
        except QuotaExceeded as error:  # the kernel chose the plugin itself
            assert error.quota == "memory"
        else:
            assert answer.output in (-signal.SIGKILL, 1)  # killed, or MemoryError by RLIMIT_DATA


@pytest.mark.parametrize(
    ("capability", "arguments"),
    [("attack.burn", {"seconds": 20}), ("attack.burning_child", {})],
)
async def test_processor_time_of_a_call(
    capability: str, arguments: dict[str, Any], bench: Bench
) -> None:
    async with attacker(bench, cpu=0.3) as instance:
        if capability == "attack.burning_child":
            needs(instance.layers, "cgroup")
        error = await ended_for("cpu", instance.invoke(Call(capability, arguments)))
        assert 0.3 <= error.used < 1.0


@pytest.mark.slow
async def test_processor_time_counts_anew_for_each_call(bench: Bench) -> None:
    async with attacker(bench, cpu=0.4) as instance:
        for _ in range(3):
            await instance.invoke(Call("attack.burn", {"seconds": 0.2}))


@pytest.mark.slow
async def test_share_of_the_processors(bench: Bench) -> None:
    async with attacker(bench, cpu_share=0.2) as instance:
        needs(instance.layers, "cgroup")
        answer = await instance.invoke(Call("attack.burn", {"seconds": 1.0}))
        assert answer.output < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["attack.fill_data", "attack.many_files"])
async def test_its_folders_hold_no_more_than_their_quota(capability: str, bench: Bench) -> None:
    async with attacker(bench, folder_bytes=2 * MIB) as instance:
        await ended_for("folder_bytes", instance.invoke(Call(capability, {})))


async def test_deadline_kills_what_does_not_stop(bench: Bench) -> None:
    async with attacker(bench) as instance:
        call = Call("attack.ignore_term", {}, remaining_ms=300)
        seconds, error = await timed(with_deadline(instance, call, 0.3))
        assert isinstance(error, TimeoutError)
        assert seconds < 0.3 + 2 * SLACK_S
        assert "did not stop" in await instance.wait_exit()


@pytest.mark.slow
async def test_a_flood_on_stdout_is_read_and_harms_nobody(bench: Bench) -> None:
    async with attacker(bench) as instance, bench.plugin("Echo", sandbox="strict") as echo:
        flood = asyncio.ensure_future(
            instance.invoke(Call("attack.flood_stdout", {"megabytes": 8}))
        )
        for value in range(20):
            answer = await echo.invoke(Call("echo.json", {"value": value}))
            assert answer.output["value"] == value
        await asyncio.wait_for(flood, 30)
        assert len(instance.child.last_words.lines) <= 50
        assert max(map(len, instance.child.last_words.lines)) <= 8192


# ---- Processes ---------------------------------------------------------------------------------


async def test_a_grandchild_that_left_the_group_ends_with_the_plugin(bench: Bench) -> None:
    async with attacker(bench) as instance:
        if "enforced" not in (instance.layers["namespaces"], instance.layers["cgroup"]):
            needs(instance.layers, "namespaces")
        beat = Path((await instance.invoke(Call("attack.daemon", {}))).output)
    last = beat.read_text()  # noqa: ASYNC240  # nothing else runs here
    time.sleep(0.3)  # noqa: ASYNC251
    assert beat.read_text() == last  # noqa: ASYNC240


@pytest.mark.slow
async def test_killing_everything_it_can_reach_ends_only_itself(bench: Bench) -> None:
    async with attacker(bench) as instance, bench.plugin("Echo", sandbox="strict") as echo:
        needs(instance.layers, "namespaces")
        with pytest.raises(LoomError) as caught:
            await instance.invoke(Call("attack.kill_everything", {}, remaining_ms=15_000))
        assert isinstance(caught.value, PluginCrashed)
        assert (await echo.invoke(Call("echo.json", {"value": 1}))).output["value"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
async def test_a_child_that_dies_in_a_call_is_a_crash_that_names_the_signal(
    number: signal.Signals, bench: Bench
) -> None:
    async with attacker(bench) as instance:
        with pytest.raises(PluginCrashed, match=f"killed by {number.name}"):
            await instance.invoke(Call("attack.die", {"number": int(number)}))


@pytest.mark.slow
async def test_a_link_in_its_folder_does_not_give_away_what_it_points_to(
    bench: Bench, tmp_path: Path
) -> None:
    target = tmp_path / "precious"
    target.write_text("x")
    owner = target.stat().st_uid
    for _ in range(2):  # the second start gives the folder away again
        async with attacker(bench) as instance:
            needs(instance.layers, "own_user")
            link = bench.folder / "attacker-data" / "innocent"
            if not link.is_symlink():
                call = Call("attack.leak_link", {"target": str(target)})
                assert (await instance.invoke(call)).output == str(link)
    assert target.stat().st_uid == owner


# ---- What it says --------------------------------------------------------------------------------


@asynccontextmanager
async def rogue(bench: Bench, mode: str, **options: Any) -> AsyncIterator[GrpcInstance]:
    """tests/children/rogue.py; not asked to stop, since it never would."""
    spec = bench.spec((sys.executable, "rogue.py", mode), sandbox="strict", **options)
    instance = await bench.runtime.start(spec, bench.services)
    try:
        yield instance
    finally:
        await instance.aclose(0)


@pytest.mark.slow
async def test_a_version_that_the_host_does_not_speak(bench: Bench) -> None:
    with pytest.raises(ProtocolMismatch, match="chose api '2', the host speaks 1"):
        async with rogue(bench, "version"):
            pass


@pytest.mark.slow
async def test_a_plugin_that_calls_itself_another(bench: Bench) -> None:
    with pytest.raises(PluginLoadError, match="somebody/else"):
        async with rogue(bench, "another_plugin"):
            pass


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "code"), [("dies_before", 8), ("dies_in_init", 9)])
async def test_a_death_at_the_start_is_explained(mode: str, code: int, bench: Bench) -> None:
    with pytest.raises(PluginLoadError, match=f"exit code {code}"):
        async with rogue(bench, mode):
            pass


@pytest.mark.slow
async def test_a_death_while_idle_is_told_with_its_code(bench: Bench) -> None:
    async with rogue(bench, "dies_idle") as instance:
        assert await asyncio.wait_for(instance.wait_exit(), 5) == "exit code 7"


@pytest.mark.slow
async def test_an_answer_to_anothers_call_answers_nothing(bench: Bench) -> None:
    async with rogue(bench, "another_call") as instance:
        seconds, error = await timed(with_deadline(instance, Call("rogue.do", {}), 0.3))
        assert isinstance(error, TimeoutError)
        assert seconds < 0.3 + 2 * SLACK_S


@pytest.mark.parametrize("mode", ["parent", "emit"])
async def test_naming_anothers_call_is_refused(mode: str, bench: Bench) -> None:
    async with rogue(bench, mode) as instance:
        answer = await instance.invoke(Call("rogue.do", {}))
        assert answer.output == "PERMISSION_DENIED"
        assert bench.port.calls == []
        assert bench.port.items == []


@pytest.mark.slow
async def test_a_forged_token_is_refused_by_the_host(bench: Bench) -> None:
    async with rogue(bench, "forged_token") as instance:
        assert (await instance.invoke(Call("rogue.do", {}))).output == "UNAUTHENTICATED"


@pytest.mark.parametrize("mode", ["malformed", "bad_json", "huge"])
async def test_frames_against_the_rules_end_the_call_with_a_typed_error(
    mode: str, bench: Bench
) -> None:
    async with rogue(bench, mode, output_bytes=4_000_000, memory=512 * MIB) as instance:
        seconds, error = await timed(asyncio.wait_for(instance.invoke(Call("rogue.do", {})), 5))
        assert isinstance(error, LoomError), error
        assert seconds < 4


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["endless_chunks", "floods_items"])
async def test_an_endless_answer_ends_at_the_output_quota(mode: str, bench: Bench) -> None:
    async with rogue(bench, mode, output_bytes=4_000) as instance:
        with pytest.raises(QuotaExceeded) as caught:
            await asyncio.wait_for(instance.invoke(Call("rogue.do", {})), 5)
        assert caught.value.quota == "output_bytes"


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["stops", "never_reads"])
async def test_a_child_that_stands_still_meets_the_deadline(mode: str, bench: Bench) -> None:
    async with rogue(bench, mode) as instance:
        call = Call("rogue.do", {}, os.urandom(4_000_000), remaining_ms=300)
        seconds, error = await timed(with_deadline(instance, call, 0.3))
        assert isinstance(error, TimeoutError)
        assert seconds < 0.3 + 2 * SLACK_S


@pytest.mark.slow
async def test_a_child_that_ends_its_session_is_ended(bench: Bench) -> None:
    async with rogue(bench, "ends_session") as instance:
        with pytest.raises(LoomError):
            await asyncio.wait_for(instance.invoke(Call("rogue.do", {})), 5)
        await asyncio.wait_for(instance.wait_exit(), 5)


async def test_a_segfault_of_a_rogue_is_a_crash(bench: Bench) -> None:
    async with rogue(bench, "dies_in_call") as instance:
        with pytest.raises(PluginCrashed, match="SIGSEGV"):
            await asyncio.wait_for(instance.invoke(Call("rogue.do", {})), 5)


@pytest.mark.slow
async def test_the_host_serves_on_after_every_death(bench: Bench) -> None:
    """One host, a child lost in each way, and another child that never notices."""
    async with bench.plugin("Echo", sandbox="strict") as echo:
        pids: list[int] = []
        for mode in ("dies_in_call", "ends_session", "malformed"):
            async with rogue(bench, mode) as instance:
                pids.append(instance.child.pid)
                with pytest.raises(LoomError):
                    await asyncio.wait_for(instance.invoke(Call("rogue.do", {})), 5)
            assert (await echo.invoke(Call("echo.json", {"value": mode}))).output["value"] == mode
        await until(lambda: not any(map(alive, pids)))
