"""Remote plugins in a host: retries, restarts, grants, states, and what `loom check` says."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loom_host import Host, load_settings
from loom_host.assembly import make_handle, manifests_of
from loom_host.cli.main import main
from loom_host.runtimes.grpc.tier import GrpcTier
from loom_host.status import plugin_row
from loom_sdk.errors import (
    ConfigError,
    DeadlineExceeded,
    OutcomeUnknown,
    PermissionDenied,
)

from .authority import Authority
from .far import Far, far, two_far
from .hosting import PLUGINS, until
from .remote_rig import PLAIN, Names


@pytest.fixture(scope="module")
def alone() -> Iterator[Far]:
    """One that nobody ends."""
    with far("127.0.0.1:0", *PLAIN) as process:
        yield process


@pytest.fixture
def mortals() -> Iterator[tuple[Far, Far]]:
    """Two that a test may end."""
    with two_far(*PLAIN) as processes:
        yield processes


def tables(folder: Path, address: str, **table: Any) -> dict[str, Any]:
    allow = {"provide": ["outpost.*"], "publish": ["notes.near"], "storage": True,
             "subscribe": ["notes.far"]}  # fmt: skip
    return {
        "host": {
            "plugin_paths": [str(PLUGINS)],
            "data_dir": str(folder / "data"),
            "cache_dir": str(folder / "cache"),
            "runtime_dir": str(folder / "run"),
            "stop_grace_ms": 500,
        },
        "telemetry": {"log_level": "error"},
        "plugins": {"outpost": {"address": address, "insecure": True, "allow": allow, **table}},
    }


@asynccontextmanager
async def hosted(
    settings: Mapping[str, Any], folder: Path, resolve: Names | None = None
) -> AsyncIterator[Host]:
    tier = GrpcTier(folder / "run", resolve=resolve or Names())
    async with Host(load_settings(None, settings), runtimes={"grpc": tier}) as host:
        yield host


async def test_a_host_retries_at_another_replica_and_restarts_when_none_is_left(
    mortals: tuple[Far, Far], tmp_path: Path
) -> None:
    names = Names("127.0.0.1", "127.0.0.2")
    one, two = mortals
    async with hosted(tables(tmp_path, f"localhost:{one.port}"), tmp_path, names) as host:
        handle = host.plugins["outpost"]
        assert (handle.state, handle.placement) == ("ready", "cloud")
        instance: Any = handle.instance
        await until(lambda: len(instance.replicas.ready) == 2)
        again = [host.invoke("outpost.work", {"ms": 400}) for _ in range(4)]
        once = [host.invoke("outpost.once", {"ms": 400}) for _ in range(4)]
        calls = [asyncio.create_task(call) for call in (*again, *once)]
        await asyncio.sleep(0.1)
        os.kill(one.pid, signal.SIGKILL)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert all(not isinstance(answer, Exception) for answer in answers[:4])
        unsure = [answer for answer in answers[4:] if isinstance(answer, OutcomeUnknown)]
        assert len(unsure) == 2

        os.kill(two.pid, signal.SIGKILL)
        await until(lambda: handle.state == "starting")
        with ExitStack() as stack:
            back = stack.enter_context(far(one.address, *PLAIN))
            assert (await host.invoke("outpost.who")).output["pid"] == back.pid
            assert handle.counters.restarts == 1


async def test_what_a_remote_plugin_asks_is_checked_against_its_grants(
    alone: Far, tmp_path: Path
) -> None:
    async with hosted(tables(tmp_path, alone.address), tmp_path) as host:
        answer = await host.invoke("outpost.ask", {"topic": "notes.near"})
        assert answer.output == {"kept": "from afar"}
        with pytest.raises(PermissionDenied, match="secrets"):
            await host.invoke("outpost.ask", {"topic": "secrets"})
        with pytest.raises(DeadlineExceeded):
            await host.invoke("outpost.hang", timeout_ms=200)


@pytest.mark.slow
async def test_it_is_degraded_while_some_are_gone(
    mortals: tuple[Far, Far], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loom_host.supervisor.HEALTH_EVERY_S", 0.1)
    address = f"ipv4:{mortals[0].address},{mortals[1].address}"
    async with hosted(tables(tmp_path, address), tmp_path) as host:
        handle = host.plugins["outpost"]
        os.kill(mortals[0].pid, signal.SIGKILL)
        await until(lambda: handle.state == "degraded")
        assert mortals[0].address in handle.reason
        with far(mortals[0].address, *PLAIN):
            await until(lambda: handle.state == "ready")


# ---- What the operator sees ------------------------------------------------------------------


async def test_what_is_not_enforced_there_is_told(alone: Far, tmp_path: Path) -> None:
    async with hosted(tables(tmp_path, alone.address), tmp_path) as host:
        row = plugin_row(host, host.plugins["outpost"])
        assert row["isolation"] == "remote"
        assert row["placement"] == "cloud"
        assert row["unenforced"]["memory"] == "unenforced: remote"
        assert row["usage"]["replicas_ready"] == 1
        assert row["pid"] == 0


async def test_a_host_needs_nothing_but_its_settings(alone: Far, tmp_path: Path) -> None:
    settings = tables(tmp_path, f"dns:///localhost:{alone.port}")
    async with Host(load_settings(None, settings)) as host:
        assert (await host.invoke("outpost.who")).output["pid"] == alone.pid


async def test_require_enforced_refuses_it(alone: Far, tmp_path: Path) -> None:
    settings = tables(tmp_path, alone.address)
    settings["host"]["require_enforced"] = True
    with pytest.raises(ConfigError, match="outpost: memory is unenforced: remote"):
        async with hosted(settings, tmp_path):
            pass


def check(folder: Path, line: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    config = folder / "loom.toml"
    config.write_text(f'[host]\nplugin_paths = ["{PLUGINS}"]\n[plugins.outpost]\n{line}\n')
    code = main(["--config", str(config), "check", "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_check_tells_of_plaintext_and_of_certificates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = check(tmp_path, 'address = "127.0.0.1:1"\ninsecure = true', capsys)
    told = [finding["message"] for finding in report["findings"]]
    assert code == 0
    assert any("insecure = true: plaintext" in message for message in told)
    assert any("cannot hold it to quotas" in message for message in told)
    assert report["sandbox"]["profiles"] == {}
    (plugin,) = report["plugins"]
    assert any("nothing that it does there is isolated" in words for words in plugin["reach"])

    Authority(tmp_path).issue("host", days=3)
    address = 'address = "stt.example:50051"\n'
    tls = 'tls = { ca = "ca.pem", cert = "host.pem", key = "host.key" }'
    code, report = check(tmp_path, address + tls, capsys)
    told = [finding["message"] for finding in report["findings"]]
    assert code == 0
    assert any(f"{tmp_path / 'host.pem'} expires on" in message for message in told)

    code, report = check(tmp_path, address + tls.replace("host.key", "none.key"), capsys)
    assert code == 1
    assert "none.key: No such file" in report["findings"][-1]["message"]


def test_two_addresses_of_a_plugin_that_keeps_state_are_a_config_error(tmp_path: Path) -> None:
    settings = tables(tmp_path, "ipv4:127.0.0.1:1,127.0.0.2:1")
    shutil.copytree(PLUGINS / "outpost", tmp_path / "plugins" / "outpost")
    manifest = tmp_path / "plugins" / "outpost" / "plugin.toml"
    manifest.write_text(manifest.read_text().replace('"pool"', '"single"'))
    settings["host"]["plugin_paths"] = [str(tmp_path / "plugins")]
    parsed = load_settings(None, settings)
    with pytest.raises(ConfigError, match="has one address, not 2"):
        make_handle("outpost", manifests_of(parsed)["outpost"], parsed)
