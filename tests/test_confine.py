"""The layers of `loom_host.confine`: each really holds, told by processes that try."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from loom_host.confine import cgroups, landlock, seccomp
from loom_host.confine.report import Unavailable, apply
from loom_host.confine.syscalls import numbers
from loom_host.runtimes.wasm.lockdown import policy

from .support import ROOT

LOCKED = ROOT / "tests" / "children" / "locked.py"


Outcomes = dict[str, tuple[str, int]]


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Attempt to (what it said, exit code). The other file is readable as far as modes go."""
    folder = tmp_path_factory.mktemp("locked")
    for parent in (folder, *folder.parents):
        if parent.is_relative_to(tempfile.gettempdir()) and parent != Path(tempfile.gettempdir()):
            parent.chmod(0o755)
    granted, other = folder / "granted", folder / "other"
    for path in (granted, other):
        path.write_text("content")
        path.chmod(0o666)
    done = subprocess.run(
        [sys.executable, str(LOCKED), str(granted), str(other)],
        stdout=subprocess.PIPE, timeout=60, check=True,
    )  # fmt: skip
    assert (granted.read_text(), other.read_text()) == ("content", "content")
    return {name: (said, code) for name, (said, code) in json.loads(done.stdout).items()}


def test_every_layer_tells_that_it_holds(tried: Outcomes) -> None:
    layers = json.loads(tried["layers"][0])
    for name in ("rlimits", "no_new_privileges", "unreadable", "dies_with_parent", "seccomp"):
        assert layers[name] == "enforced", name
    assert layers["landlock"] == "enforced" or landlock.abi() < 3
    assert layers["own_user"] == "enforced" or os.geteuid() != 0


def test_without_root_all_but_the_user_holds(tried: Outcomes) -> None:
    layers = json.loads(tried["layers_without_root"][0])
    assert layers.pop("own_user").startswith("unenforced: it runs as the host's user")
    assert set(layers.values()) == {"enforced"}


@pytest.mark.parametrize("name", ["read_granted", "thread"])
def test_what_a_worker_needs_still_works(name: str, tried: Outcomes) -> None:
    assert tried[name] == ("ok", 0)


@pytest.mark.parametrize(
    "name",
    [
        "write_granted", "create", "unlink", "mkdir", "chmod", "socket_inet", "socket_unix",
        "socketpair", "kill_parent", "kill_init", "fork", "setuid", "raise_limit", "pipe",
    ],
)  # fmt: skip
def test_system_calls_beyond_the_list_fail(name: str, tried: Outcomes) -> None:
    assert tried[name] == ("EPERM", 0)


@pytest.mark.skipif(not landlock.abi(), reason="the kernel has no Landlock")
@pytest.mark.parametrize("name", ["read_other", "read_passwd", "list_root", "read_environ"])
def test_files_that_were_not_granted_are_shut(name: str, tried: Outcomes) -> None:
    assert tried[name] == ("EACCES", 0)


def test_memory_and_threads_end_at_their_limits(tried: Outcomes) -> None:
    assert tried["data"][0] == "ENOMEM"
    assert tried["memfd"] == ("ENOSYS", 0)
    if os.geteuid() == 0:
        assert tried["threads"][0] == "RuntimeError"


@pytest.mark.parametrize("name", ["exec", "ptrace", "unshare", "x32"])
def test_what_only_an_attacker_does_kills(name: str, tried: Outcomes) -> None:
    assert tried[name] == ("", -signal.SIGSYS)


def test_abort_ends_the_process_by_its_own_signal(tried: Outcomes) -> None:
    assert tried["abort"] == ("", -signal.SIGABRT)


# ---- The filter's program, run by an interpreter -------------------------------------------


def verdict(program: bytes, arch: int, number: int, *arguments: int) -> int:
    """What the kernel would answer (bpf(4), the few instructions that are used)."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *[*arguments, 0, 0, 0, 0, 0, 0][:6])
    at, accumulator = 0, 0
    while True:
        code, yes, no, value = struct.unpack_from("<HBBI", program, 8 * at)
        at += 1
        if code == 0x06:
            return int(value)
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x54:
            accumulator &= value
        else:
            assert code in (0x15, 0x35), code
            hit = accumulator == value if code == 0x15 else accumulator >= value
            at += yes if hit else no


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_filter_decides_by_name_and_argument(machine: str) -> None:
    pid = 4242
    program = seccomp.assemble(policy(pid), machine)
    calls = numbers(machine)
    arch = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[machine]
    denied = seccomp.refuse()

    def of(name: str, *arguments: int) -> int:
        return verdict(program, arch, calls[name], *arguments)

    assert len(program) // 8 <= 4096  # BPF_MAXINSNS
    assert of("read") == of("mmap") == of("futex") == seccomp.ALLOW
    assert of("socket") == of("connect") == of("kill") == denied
    assert of("execve") == of("ptrace") == of("unshare") == seccomp.KILL
    assert of("clone3") == of("memfd_create") == seccomp.refuse(38)
    assert of("openat", 0, 0, os.O_RDONLY | os.O_CLOEXEC) == seccomp.ALLOW
    for flag in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC):
        assert of("openat", 0, 0, flag) == denied
    assert of("clone", 0x3D0F00) == seccomp.ALLOW
    assert of("clone", 17) == of("clone", 0x3D0F00 | 0x10000000) == denied
    assert of("tgkill", pid, pid, 6) == seccomp.ALLOW
    assert of("tgkill", pid + 1, pid, 6) == denied
    assert of("prlimit64", 0, 7, 0) == seccomp.ALLOW
    assert of("prlimit64", 0, 7, 1) == of("prlimit64", 0, 7, 1 << 32) == denied
    assert verdict(program, 0x40000003, calls["read"]) == seccomp.KILL  # i386


def test_an_unknown_machine_is_told() -> None:
    with pytest.raises(Unavailable, match="riscv64"):
        seccomp.assemble(policy(1), "riscv64")


# ---- Reports and control groups --------------------------------------------------------------


def test_layers_are_reported_one_by_one() -> None:
    def missing() -> str:
        raise Unavailable("no such thing here")

    def failing() -> str:
        raise PermissionError(1, "Operation not permitted")

    layers = [("a", lambda: ""), ("b", missing), ("c", failing), ("d", lambda: "only half")]
    assert apply(layers) == {
        "a": "enforced",
        "b": "unenforced: no such thing here",
        "c": "unenforced: [Errno 1] Operation not permitted",
        "d": "partial: only half",
    }


_HUNGRY = """
import sys
sys.stdin.readline()
hoard = [bytearray(1 << 20) for _ in range(512)]
for part in hoard:
    part[::4096] = b"x" * 256
"""


def test_group_kills_for_memory_and_leaves_no_folder() -> None:
    try:
        group = cgroups.create("test", {"memory": 64 * 1024**2, "processes": 8})
    except Unavailable as error:
        pytest.skip(str(error))
    try:
        child = subprocess.Popen([sys.executable, "-c", _HUNGRY], stdin=subprocess.PIPE)
        assert group.join(child.pid) == group.missing
        assert not group.out_of_memory()
        child.communicate(b"\n", timeout=30)
        assert child.returncode == -signal.SIGKILL
        assert group.out_of_memory()
    finally:
        deadline = time.monotonic() + 2
        while any(folder.exists() for folder in group.folders) and time.monotonic() < deadline:
            group.remove()
    assert not any(folder.exists() for folder in group.folders)


async def test_what_is_slow_to_die_does_not_hold_up_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a process that holds gigabytes does: it is a member for long after its SIGKILL."""
    try:
        group = cgroups.create("slow", {"processes": 8})
    except Unavailable as error:
        pytest.skip(f"layer cgroup: {error}")
    process = await asyncio.create_subprocess_exec("sleep", "60")
    group.join(process.pid)
    monkeypatch.setattr(group, "strike", lambda: len(group.members()))
    ending, turns = asyncio.create_task(group.end()), 0
    while turns < 20:
        await asyncio.sleep(0.005)
        turns += 1
    assert not ending.done()
    process.kill()
    await process.wait()
    await asyncio.wait_for(ending, cgroups.END_S / 2)
    group.remove()


def test_groups_of_processes_that_are_gone_are_swept() -> None:
    code = (
        "from loom_host.confine import cgroups\n"
        "print(*cgroups.create('left', {'memory': 1 << 26}).folders)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("no control groups here")
    (folder,) = map(Path, done.stdout.split())
    assert folder.is_dir()
    cgroups.sweep()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("line", "mount"),
    [
        ("29 23 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory", "memory"),
        ("30 23 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate", ""),
    ],
)
def test_mounts_of_both_versions_are_found(line: str, mount: str) -> None:
    kind = "cgroup" if mount else "cgroup2"
    found = cgroups._mounted([line], kind, mount)
    assert found == ("/", "/sys/fs/cgroup/memory" if mount else "/sys/fs/cgroup")
    assert cgroups._inside(("/a", "/sys/x"), "/a/b") == Path("/sys/x/b")
    assert cgroups._own_groups(["4:memory:/m", "0::/u"]) == {"memory": "/m", "": "/u"}
