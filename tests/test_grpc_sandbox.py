"""The sandbox of the grpc tier: what it lets through, how it degrades, that it leaves nothing."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from loom_host import Host, load_settings, status
from loom_host.cli import check
from loom_host.folders import Folder
from loom_host.runtimes.grpc import machine, users
from loom_host.runtimes.grpc.enforcement import enforcement_of
from loom_host.runtimes.grpc.process import describe_exit
from loom_host.runtimes.grpc.sandbox import profile_of
from loom_sdk import Call, Event
from loom_sdk.errors import ConfigError, PluginLoadError
from tests.hosting import host_tables
from tests.support import ROOT
from tests.test_grpc_hostile import attacker, needs
from tests.test_runtime_grpc import Bench

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="layer own_user: needs a host run by root")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.runtime.aclose()
    assert list((tmp_path / "run").glob("*")) == []


# ---- What works inside -------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["strict", "standard"])
async def test_a_plugin_does_all_it_may_inside(profile: str, bench: Bench) -> None:
    async with bench.plugin("Asks", sandbox=profile) as asks:
        answer = await asks.invoke(Call("asks.everything", {}))
        assert answer.output["nested"] == [{"sum": 2}, "IN", "other"]
        assert answer.output["http"] == 204
    async with bench.plugin("Echo", sandbox=profile) as echo:
        sound = os.urandom(2_000_000)
        assert (await echo.invoke(Call("echo.payload", {}, sound))).payload == sound[::-1]
        assert await echo.handle_event(Event("chunk", b"\x01", topic="audio.mic")) > 0
        usage = echo.usage()
        assert "loom_sdk.serve" in " ".join(psutil.Process(usage.pid).cmdline())
    assert (bench.folder / "data" / "stopped").exists()


async def test_a_program_in_another_language_is_let_in_too(bench: Bench, tmp_path: Path) -> None:
    program = tmp_path / "says"
    program.write_text('#!/bin/sh\necho "sandbox: $LOOM_SANDBOX"\nexit 3\n')
    program.chmod(0o755)
    error = await bench.refused(("says",), folder=tmp_path, sandbox="strict")
    assert "exit code 3" in error.message
    assert "sandbox: " in error.message
    assert "no_new_privileges" in error.message


async def test_the_child_is_told_which_layers_hold(bench: Bench) -> None:
    async with attacker(bench) as instance:
        seen = (await instance.invoke(Call("attack.environment", {}))).output
        held = {name for name, how in instance.layers.items() if how == "enforced"}
        assert set(seen["LOOM_SANDBOX"].split(",")) == held
        assert set(instance.layers) == set(machine.LAYERS)
        assert machine.layers() == dict(instance.layers)


def test_profile_by_default_is_strict_for_strangers(bench: Bench) -> None:
    spec = bench.spec("Echo", sandbox="")
    assert profile_of(spec) == "strict"
    assert profile_of(replace(spec, first_party=True)) == "standard"
    assert profile_of(replace(spec, sandbox="none", first_party=True)) == "none"


# ---- Grants ------------------------------------------------------------------------------------


async def attempts(instance: Any, names: list[str], **known: Any) -> dict[str, str]:
    answer = await instance.invoke(Call("attack.try", {"names": names, "known": known}))
    return dict(answer.output)


def granted(bench: Bench, *grants: str, **changes: Any) -> Any:
    spec = bench.spec("", sandbox="strict", grants=grants)
    return replace(spec, id="test/attacker", entry="attacker:Attacker", **changes)


async def test_a_granted_socket_is_reached_and_no_other(bench: Bench, tmp_path: Path) -> None:
    listeners = []
    for name in ("granted", "other"):
        unix = socket.socket(socket.AF_UNIX)
        unix.bind(str(tmp_path / name))
        unix.listen()
        os.chmod(tmp_path / name, 0o666)
        listeners.append(unix)
    spec = granted(bench, f"network:unix:{tmp_path}/granted")
    instance = await bench.runtime.start(spec, bench.services)
    needs(instance.layers, "namespaces")
    for name, outcome in (("granted", "ok"), ("other", "ENOENT")):
        found = await attempts(instance, ["connect_unix"], other_socket=str(tmp_path / name))
        assert found == {"connect_unix": outcome}
    assert instance.enforcement["network"] == "enforced"
    await instance.aclose(1)
    for unix in listeners:
        unix.close()


async def test_a_granted_tcp_port_is_reached_and_no_other(bench: Bench) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        ports = [server.getsockname()[1] for server in (one, two)]
        spec = granted(bench, f"network:tcp:localhost:{ports[0]}")
        instance = await bench.runtime.start(spec, bench.services)
        assert (await attempts(instance, ["connect_tcp"], port=ports[0])) == {"connect_tcp": "ok"}
        assert instance.enforcement["network"].startswith("partial")
        needs(instance.layers, "landlock")
        found = await attempts(instance, ["connect_tcp"], port=ports[1])
        assert found == {"connect_tcp": "EACCES"}
        await instance.aclose(1)


async def test_granted_folders_are_seen_by_name(bench: Bench, tmp_path: Path) -> None:
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    for name in ("notes", "desk"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "page").write_text("words")
    folders = (
        Folder("notes", tmp_path / "notes", False),
        Folder("desk", tmp_path / "desk", True),
    )
    instance = await bench.runtime.start(granted(bench, folders=folders), bench.services)
    needs(instance.layers, "namespaces", "landlock")
    names = ["read_file_of_test", "write_code"]
    assert await attempts(instance, names, file="/notes/page", code="/notes") == {
        "read_file_of_test": "ok 5",
        "write_code": "EROFS",
    }
    found = await attempts(instance, names, file="/desk/page", code="/desk")
    assert set(found.values()) == {"ok 5", "ok"}
    seen = (await instance.invoke(Call("attack.environment", {}))).output
    assert (seen["LOOM_FOLDER_NOTES"], seen["LOOM_FOLDER_DESK"]) == ("/notes", "/desk")
    assert (tmp_path / "desk" / "planted.py").read_text() == "x"
    await instance.aclose(1)


async def test_a_device_is_there_when_it_is_granted(bench: Bench) -> None:
    instance = await bench.runtime.start(granted(bench, "devices:/dev/kmsg"), bench.services)
    needs(instance.layers, "namespaces")
    pid = instance.child.pid
    seen = set(os.listdir(f"/proc/{pid}/root/dev"))
    assert "kmsg" in seen
    assert not seen & {"vda", "sda", "mem", "snd"}
    await instance.aclose(1)


@pytest.mark.parametrize(
    "grant", ["network:tcp:nowhere", "network:unix:relative", "devices:coffee"]
)
async def test_a_grant_that_cannot_be_read_names_itself(grant: str, bench: Bench) -> None:
    with pytest.raises(PluginLoadError, match=grant.partition(":")[2]):
        await bench.runtime.start(granted(bench, grant), bench.services)


# ---- What a machine lacks ----------------------------------------------------------------------


async def test_without_bubblewrap_the_other_layers_hold_and_say_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    async with attacker(bench) as instance:
        assert instance.layers["namespaces"] == f"unenforced: {machine.NO_BWRAP}"
        assert instance.layers["parent_death"].startswith("partial: what it starts may outlive")
        assert "apt install bubblewrap" in instance.enforcement["network"]
        needs(instance.layers, "landlock", "seccomp")
        known = {"host": os.getpid(), "secret": "?", "data": str(bench.folder / "attacker-data")}
        names = ["read_shadow", "write_usr", "families", "read_host_memory", "capabilities"]
        found = await attempts(instance, names, **known)
        assert found == {
            "read_shadow": "EACCES", "write_usr": "EACCES", "families": "ok [1]",
            "read_host_memory": "EACCES", "capabilities": "none",
        }  # fmt: skip


def _as_user() -> list[str]:
    """Runs a program as another user, who then may reach this interpreter."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("bwrap", "setpriv"))):
        pytest.skip("needs root, bwrap and setpriv to become another user")
    shut = users.closed_to_others([Path(sys.base_prefix), ROOT], parents=True)
    words = ["bwrap", "--dev-bind", "/", "/"]
    if shut is not None and Path(sys.base_prefix).is_relative_to(shut):
        words += ["--perms", "0755", "--tmpfs", str(shut)]
        for way in reversed(Path(sys.base_prefix).parents):
            if way.is_relative_to(shut) and way != shut:
                words += ["--perms", "0755", "--dir", str(way)]
        words += ["--ro-bind", sys.base_prefix, sys.base_prefix]
    user = ["--reuid", "54321", "--regid", "54321", "--clear-groups", "--inh-caps=-all"]
    return [*words, "--", "setpriv", *user, sys.executable, "-B", "-c"]


_HOST_OF_A_USER = """
import asyncio, json, sys
from pathlib import Path
from loom_sdk import Call
from tests.test_grpc_hostile import attacker
from tests.test_runtime_grpc import Bench
async def main():
    bench = Bench(Path(sys.argv[1]))
    async with attacker(bench) as instance:
        names = ["read_file_of_test", "families", "fork_bomb", "capabilities", "kill_host"]
        known = {"file": sys.argv[2], "host": 1}
        answer = await instance.invoke(Call("attack.try", {"names": names, "known": known}))
        print(json.dumps([instance.layers, instance.enforcement, answer.output]))
    await bench.runtime.aclose()
asyncio.run(main())
"""


def test_a_host_of_an_ordinary_user_keeps_what_it_can(tmp_path: Path) -> None:
    words = _as_user()
    folder = Path(f"/tmp/loom-user-{os.getpid()}")
    folder.mkdir()
    (folder / "file").write_text("of the user")
    os.chown(folder, 54321, 54321)
    try:
        done = subprocess.run(
            [*words, _HOST_OF_A_USER, str(folder / "b"), str(folder / "file")],
            cwd=ROOT, check=False,
            capture_output=True, text=True, timeout=60,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    finally:
        shutil.rmtree(folder)
    layers, enforcement, found = json.loads(done.stdout)
    assert layers["own_user"] == f"unenforced: {machine.NOT_ROOT}"
    assert layers["cgroup"].startswith("unenforced: no control group")
    assert enforcement["memory"].startswith("partial: ")
    needs(layers, "namespaces", "seccomp")
    assert (found["families"], found["capabilities"]) == ("ok [1]", "none")
    assert found["read_file_of_test"] == "ENOENT"
    if machine.kernel_is(5, 14):
        assert enforcement["processes"] == "enforced"
        assert found["fork_bomb"].startswith("EAGAIN")


def test_what_is_not_enforced_is_said_of_each_quota() -> None:
    everything = dict.fromkeys(machine.LAYERS, "enforced")
    assert set(enforcement_of("strict", everything).values()) == {"enforced"}
    weak = {k: v for k, v in enforcement_of("none", {}).items() if v != "enforced"}
    assert set(weak) == {
        "memory", "cpu", "cpu_share", "processes", "network", "filesystem", "folder_bytes",
    }  # fmt: skip
    bare = everything | {"namespaces": "unenforced: x", "cgroup": "unenforced: y"}
    said = enforcement_of("strict", bare, counts_processes=True)
    assert (said["filesystem"], said["processes"]) == ("enforced", "enforced")
    assert said["network"].startswith("partial")
    assert enforcement_of("standard", everything)["filesystem"].startswith("partial")


NOTEBOOK = {"tier": "grpc", "allow": {"provide": ("notebook.*",), "storage": ("own",)}}


async def test_require_enforced_starts_only_what_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = host_tables(tmp_path, notebook=NOTEBOOK)
    tables["host"]["require_enforced"] = True
    if all(how == "enforced" for how in machine.layers().values()):
        async with Host(load_settings(None, tables)) as host:
            assert host.plugins["notebook"].state == "ready"
            row = status.plugin_row(host, host.plugins["notebook"])
            assert row["layers"]["seccomp"] == "enforced"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="notebook: network is partial.*apt install bubblewrap"):
        async with Host(load_settings(None, tables)):
            pass


async def test_a_swap_of_profiles_is_one_line(tmp_path: Path) -> None:
    for profile in ("strict", "standard", "none"):
        tables = host_tables(tmp_path, notebook=NOTEBOOK | {"sandbox": profile})
        async with Host(load_settings(None, tables)) as host:
            instance = host.plugins["notebook"].instance
            assert instance is not None
            how = instance.enforcement["filesystem"].partition(":")[0]
            held = {"strict": "enforced", "standard": "partial", "none": "unenforced"}
            assert how == held[profile] or machine.layers()["namespaces"] != "enforced"
            words = status.reach_row(host.plugins["notebook"])["reach"]
            assert any("not isolated" in word for word in words) == (profile == "none")


def test_check_tells_the_layers_and_what_mends_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = host_tables(tmp_path, notebook=NOTEBOOK)
    monkeypatch.setattr(check, "settings_of", lambda _: load_settings(None, tables))
    assert check.run(argparse.Namespace(config=None, json=True, explain=False)) == 0
    sandbox = json.loads(capsys.readouterr().out)["sandbox"]
    assert sandbox["profiles"] == {"notebook": "strict"}
    assert set(sandbox["layers"]) == set(machine.LAYERS)
    monkeypatch.setenv("PATH", str(tmp_path))
    tables["host"]["require_enforced"] = True
    assert check.run(argparse.Namespace(config=None, json=False, explain=False)) == 1
    said = capsys.readouterr().out
    assert "error: grpc: namespaces is unenforced: bubblewrap is missing" in said
    assert "apt install bubblewrap" in said


# ---- Users -------------------------------------------------------------------------------------


@ROOT_ONLY
def test_two_plugins_never_share_a_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(users, "LOCKS", tmp_path / "users")
    monkeypatch.setattr(users, "COUNT", 3)  # so that they meet
    one, other = users.Users(), users.Users()  # as of two hosts
    held = [one.claim("a/a"), other.claim("b/b"), other.claim("c/c")]
    assert len({user.number for user in held}) == 3
    again = one.claim("a/a")  # a second process of the same plugin
    assert again is held[0]
    again.release()
    with pytest.raises(Exception, match="in use"):
        other.claim("a/a")
    number = held[0].number
    held[0].release()
    assert other.claim("a/a").number == number


@ROOT_ONLY
async def test_folders_belong_to_the_plugins_user_and_go_back(bench: Bench) -> None:
    async with bench.plugin("Echo", sandbox="strict") as echo:
        needs(echo.layers, "own_user")
        owner = (bench.folder / "data").stat().st_uid
        assert users.FIRST <= owner < users.FIRST + users.COUNT
        assert psutil.Process(echo.child.pid).uids().real == owner
        assert (users.LOCKS / str(owner)).exists()
    assert (bench.folder / "data").stat().st_uid == 0
    assert (bench.folder / "data").stat().st_mode & 0o777 == 0o700
    assert not (users.LOCKS / str(owner)).exists()


def test_exit_codes_of_bubblewrap_name_the_signal() -> None:
    assert describe_exit(139, wrapped=True) == "killed by SIGSEGV"
    assert describe_exit(139) == "exit code 139"
    assert describe_exit(255, wrapped=True) == "exit code 255"
    assert describe_exit(-9, wrapped=True) == "killed by SIGKILL"
