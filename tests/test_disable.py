"""Plugins that are switched off: on a running host, in `loom.toml`, and in safe mode."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from loom_host import Event, Host, load_settings
from loom_host.config import merge
from loom_host.lineup import only
from loom_host.status import plugin_row
from loom_sdk.errors import (
    CapabilityNotFound,
    ConfigError,
    NoProvider,
    PluginLoadError,
    PluginUnhealthy,
)

from .hosting import dead_letters, host_tables, next_of, until
from .test_swap import ALLOW, BOTH, published, tell_host, who

# -- on a running host


async def test_a_disabled_plugin_tells_its_reason_to_callers_and_in_ps(tmp_path: Path) -> None:
    async with tell_host(tmp_path) as host:
        await host.disable("teller", "it lies")
        row = plugin_row(host, host.plugins["teller"])
        assert (row["state"], row["reason"]) == ("stopped", "disabled: it lies")
        told = "tell.who: teller is disabled: it lies; `loom enable teller` starts it"
        with pytest.raises(NoProvider, match=told):
            await who(host)
        tools = (await host.invoke("loom.tools")).output["tools"]
        assert "tell.who" not in [tool["name"] for tool in tools]
        assert host.plugins["teller"].counters.errors == 0
        with pytest.raises(CapabilityNotFound, match="nobody offers 'tell.whom'"):
            await host.invoke("tell.whom")


async def test_an_enabled_plugin_is_as_before(tmp_path: Path) -> None:
    async with tell_host(tmp_path, plugins={"teller": {"config": {"word": "own"}}}) as host:
        said = host.bus.subscribe("tell.said")
        for _ in range(2):
            await host.disable("teller", "a while")
            await published(host, 1)
            await host.enable("teller")
        assert (await who(host))["word"] == "own"
        await published(host, 3)
        heard = [(await next_of(said)).payload for _ in range(3)]
        assert heard == [b"0", b"1", b"2"]
        assert said.depth == 0  # what came while it was disabled was not for it
        assert plugin_row(host, host.plugins["teller"])["state"] == "ready"


async def test_what_is_in_hand_ends_and_another_provider_takes_over(tmp_path: Path) -> None:
    async with tell_host(tmp_path, **BOTH) as host:
        slow = asyncio.create_task(host.invoke("tell.who", {"seconds": 0.2}))
        await until(lambda: host.plugins["teller"].inflight)
        disabling = asyncio.create_task(host.disable("teller", "tired"))
        await asyncio.sleep(0.01)
        assert (await host.invoke("tell.who")).provider == "herald"
        assert (await slow).provider == "teller"
        await disabling
        assert host.plugins["teller"].state == "stopped"


async def test_what_does_not_end_within_the_grace_is_told_why(tmp_path: Path) -> None:
    async with tell_host(tmp_path, plugins={"teller": {"tier": "grpc"}}) as host:
        slow = asyncio.create_task(who(host, 20))
        await until(lambda: host.plugins["teller"].inflight)
        began = time.monotonic()
        await host.disable("teller", "stuck")
        assert time.monotonic() - began < 5
        with pytest.raises(PluginUnhealthy):
            await slow


async def test_events_in_the_queue_are_handled_or_become_dead_letters(tmp_path: Path) -> None:
    async with tell_host(tmp_path) as host:
        said, dead = host.bus.subscribe("tell.said"), dead_letters(host.bus)
        await published(host, 5)
        await host.disable("teller", "enough")
        assert [(await next_of(said)).payload for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
        await host.enable("teller")
        for number in range(3):  # more than the grace of 500 ms
            event = Event("note", str(number).encode(), {"seconds": "0.4"})
            await host.bus.publish("tell.heard", event)
        await host.disable("teller", "too slow")
        letters = [await next_of(dead) for _ in range(dead.depth)]
        assert len(letters) + said.depth == 3
        assert letters[-1].metadata["reason"] == "disabled: too slow"


async def test_a_failed_plugin_is_enabled_again_once_it_is_mended(tmp_path: Path) -> None:
    broken = {"plugins": {"teller": {"config": {"fail": "no model"}}}}
    async with tell_host(tmp_path, **broken) as host:
        said = host.bus.subscribe("tell.said")
        assert host.plugins["teller"].state == "failed"
        with pytest.raises(PluginLoadError, match="no model"):
            await host.enable("teller")
        assert host.plugins["teller"].state == "failed"
        host.plugins["teller"].settings.config["fail"] = ""  # type: ignore[index]  # mended
        await host.enable("teller")
        assert (await who(host))["word"] == "teller"
        await published(host, 1)
        assert (await next_of(said)).payload == b"0"


async def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    async with tell_host(tmp_path) as host:
        with pytest.raises(PluginUnhealthy, match="teller is ready: there is nothing to enable"):
            await host.enable("teller")
        with pytest.raises(ConfigError, match="'tellr' has no table; did you mean 'teller'"):
            await host.enable("tellr")
        with pytest.raises(ConfigError, match="no plugin 'herald' runs here"):
            await host.disable("herald", "x")
        await host.disable("teller", "x")
        with pytest.raises(PluginUnhealthy, match="nothing to disable"):
            await host.disable("teller", "y")
        with pytest.raises(PluginUnhealthy, match="`loom enable teller` starts it"):
            await host.swap("teller")
        assert host.plugins["teller"].reason == "disabled: x"


async def test_a_plugin_whose_health_changes_as_it_is_disabled_stays_withdrawn(
    tmp_path: Path,
) -> None:
    async with tell_host(tmp_path, **BOTH) as host:
        handle = host.plugins["teller"]
        slow = asyncio.create_task(host.invoke("tell.who", {"seconds": 0.3}))
        await until(lambda: handle.inflight)
        await published(host, 1)  # waits behind the call, and the plugin is watched meanwhile
        disabling = asyncio.create_task(host.disable("teller", "tired"))
        await until(lambda: not host.broker.offered(handle))
        host._changed(handle)  # as the supervisor tells of a change of health
        assert host.broker.offered(handle)
        await slow
        await disabling
        assert not host.broker.offered(handle)


# -- in loom.toml


@pytest.mark.parametrize(
    ("reason", "told"), [("it lies", "disabled: it lies"), ("", "disabled in loom.toml")]
)
async def test_the_reason_in_the_file_is_told(reason: str, told: str, tmp_path: Path) -> None:
    off = {"plugins": {"teller": {"enabled": False, "reason": reason}}}
    async with tell_host(tmp_path, **off) as host:
        assert plugin_row(host, host.plugins["teller"])["reason"] == told
        with pytest.raises(NoProvider, match=f"teller is {told}; `loom enable teller`"):
            await who(host)
        assert not [s for s in host.bus.subscriptions() if s.name.startswith("teller")]
        await host.enable("teller")
        assert (await who(host))["word"] == "teller"


async def test_one_that_may_not_run_is_told_of_and_not_enabled(tmp_path: Path) -> None:
    off = {"plugins": {"teller": {"enabled": False, "reason": "new", "trusted": False}}}
    async with tell_host(tmp_path, **off) as host:
        with pytest.raises(NoProvider, match="teller is disabled: new"):
            await who(host)
        with pytest.raises(PluginLoadError, match="teller may not run in the host"):
            await host.enable("teller")
        assert host.plugins["teller"].state == "stopped"


async def test_wrong_settings_of_a_disabled_plugin_do_not_keep_the_host_from_starting(
    tmp_path: Path,
) -> None:
    off = {"plugins": {"teller": {"enabled": False, "config": {"wrod": "x"}}}}
    async with tell_host(tmp_path, **off) as host:
        assert "teller" not in host.plugins


# -- safe mode


def settings_with(folder: Path, **changes: Any) -> Any:
    tables = host_tables(folder, teller={"allow": ALLOW}, lab={"allow": {"provide": ["*"]}})
    tables["plugins"]["wake-phrase"] = {"allow": {"provide": ["wake.match"]}}
    return load_settings(None, merge(tables, changes))


async def test_safe_mode_runs_only_what_ships_with_the_host(tmp_path: Path) -> None:
    async with Host(only(settings_with(tmp_path), ["first-party"])) as host:
        states = {name: (h.state, h.reason) for name, h in host.plugins.items()}
        assert states == {
            "wake-phrase": ("ready", ""),
            "teller": ("stopped", "disabled: safe mode"),
            "lab": ("stopped", "disabled: safe mode"),
        }
        with pytest.raises(NoProvider, match="lab is disabled: safe mode"):
            await host.invoke("lab.greet", {"name": "bo"})
        await host.enable("teller")  # an operator may know better
        assert await who(host)


@pytest.mark.parametrize(
    ("words", "running"),
    [
        (["teller"], {"teller"}),
        (["teller", "lab"], {"teller", "lab"}),
        (["first-party", "lab"], {"wake-phrase", "lab"}),
    ],
)
async def test_only_the_named_run(words: list[str], running: set[str], tmp_path: Path) -> None:
    async with Host(only(settings_with(tmp_path), words)) as host:
        assert {name for name, h in host.plugins.items() if h.state == "ready"} == running


def test_only_knows_its_words_and_keeps_older_reasons(tmp_path: Path) -> None:
    off = {"plugins": {"lab": {"enabled": False, "reason": "closed"}}}
    kept = only(settings_with(tmp_path, **off), ["teller"]).plugins["lab"]
    assert (kept.enabled, kept.reason) == (False, "closed")
    with pytest.raises(ConfigError, match="--only: 'tellr' has no table; did you mean 'teller'"):
        only(settings_with(tmp_path), ["tellr"])
