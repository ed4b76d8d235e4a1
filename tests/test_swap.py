"""Hot swap: a new instance or another plugin takes a plugin's place, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loom_host import Event, Host, load_settings
from loom_host import supervisor as supervisor_module
from loom_host.bus import Subscription
from loom_host.config import merge
from loom_host.handle import InFlight
from loom_host.runtimes.base import PluginSpec
from loom_host.runtimes.fake import FakeInstance, FakeRuntime, Serve
from loom_host.status import plugin_row
from loom_sdk import Call, Result
from loom_sdk.errors import ConfigError, LoomError, PluginLoadError, PluginUnhealthy
from loom_sdk.port import AsyncPort

from .hosting import PLUGINS, answering, dead_letters, host_tables, next_of, until
from .test_three_tiers import TIERS, host_in

ALLOW: dict[str, Any] = {
    "provide": ["*"], "subscribe": ["tell.heard"], "publish": ["tell.said"], "storage": True,
}  # fmt: skip


def tell_host(folder: Path, **changes: Any) -> Host:
    """`teller`; `herald` stands by, in a role that nobody has."""
    herald = {"allow": ALLOW, "role": "stand-in"}
    tables = host_tables(folder, teller={"allow": ALLOW}, herald=herald)
    base = {"providers": {"tell.who": ["teller"]}}
    return Host(load_settings(None, merge(merge(tables, base), changes)))


BOTH: dict[str, Any] = {
    "providers": {"tell.who": ["teller", "herald"]},
    "roles": {"stand-in": ["herald"]},
}


async def who(host: Host, seconds: float = 0.0) -> dict[str, Any]:
    return dict((await host.invoke("tell.who", {"seconds": seconds})).output)


# -- calls


class Callers:
    """Ask without a pause, many at a time, and count; `failed` holds what went wrong."""

    def __init__(self, host: Host, capability: str, arguments: dict[str, Any]) -> None:
        self._host, self._capability, self._arguments = host, capability, arguments
        self.sent = self.answered = 0
        self.failed: list[LoomError] = []
        self._going = True

    async def _ask(self) -> None:
        while self._going:
            self.sent += 1
            try:
                await self._host.invoke(self._capability, self._arguments)
            except LoomError as error:
                self.failed.append(error)
            else:
                self.answered += 1
            await asyncio.sleep(0)

    @asynccontextmanager
    async def asking(self, callers: int = 8) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._ask()) for _ in range(callers)]
        try:
            await until(lambda: self.answered > 10)
            yield
            here = self.answered
            await until(lambda: self.answered > here + 10)
        finally:
            self._going = False
            await asyncio.gather(*tasks)


@pytest.mark.parametrize("tier", TIERS)
async def test_no_call_fails_or_is_lost_while_instances_are_swapped(
    tier: str, tmp_path: Path
) -> None:
    async with host_in(tier, tmp_path) as host:
        before = host.plugins["notebook"].instance
        callers = Callers(host, "notebook.work", {"seconds": 0.002})
        async with callers.asking():
            for count in (1, 2, 3):
                swapped = await host.swap("notebook", config={"owner": f"owner {count}"})
                assert (swapped.plugin, swapped.tier) == ("notebook", tier)
        assert callers.failed == []
        assert callers.sent == callers.answered
        handle = host.plugins["notebook"]
        counters = handle.counters
        assert (counters.calls, counters.errors) == (callers.sent, 0)
        assert (counters.swaps, counters.restarts) == (3, 0)
        assert handle.instance is not before
        assert (await host.invoke("notebook.read")).output["owner"] == "owner 3"
        assert (await host.invoke("notebook.work", {"seconds": 0})).output == 1  # one at a time


@pytest.mark.slow
async def test_a_plugin_moves_to_another_tier_under_load(tmp_path: Path) -> None:
    async with host_in("native", tmp_path) as host:
        callers = Callers(host, "notebook.work", {"seconds": 0.001})
        async with callers.asking():
            for tier in ("grpc", "wasm", "native"):
                await host.swap("notebook", tier=tier)
                assert host.plugins["notebook"].spec.tier == tier
        assert (callers.failed, callers.sent) == ([], callers.answered)
        with pytest.raises(ConfigError, match="claims only native, wasm, grpc"):
            await host.swap("notebook", tier="quantum")
        with pytest.raises(ConfigError, match="did you mean 'owner'"):
            await host.swap("notebook", config={"ownre": "x"})


async def test_what_is_in_hand_ends_on_the_old_one_and_what_waits_goes_to_the_new(
    tmp_path: Path,
) -> None:
    async with tell_host(tmp_path) as host:
        slow = asyncio.create_task(who(host, 0.5))
        await until(lambda: host.plugins["teller"].inflight)
        waiting = asyncio.create_task(who(host))
        await until(lambda: host.plugins["teller"].slots._waiting)
        swapping = asyncio.create_task(host.swap("teller", config={"word": "new"}))
        assert (await waiting)["word"] == "new"
        row = plugin_row(host, host.plugins["teller"])
        assert row["note"] == "a swap is under way: the old one (native) ends what it has in hand"
        assert host.busy()
        assert not slow.done()
        assert (await who(host))["word"] == "new"
        with pytest.raises(PluginUnhealthy, match="teller is being changed"):
            await host.disable("teller", "too early")
        assert not swapping.done()
        assert (await slow)["word"] == "teller"
        swapped = await swapping
        assert swapped.drained_ms > 100
        assert plugin_row(host, host.plugins["teller"])["note"] == ""


@pytest.mark.slow
async def test_a_stream_in_hand_ends_on_the_old_one(tmp_path: Path) -> None:
    async with host_in("grpc", tmp_path) as host:
        items = host.stream("notebook.pages", {"count": 200})
        first = await anext(items)
        swapping = asyncio.create_task(host.swap("notebook"))
        rest = [item async for item in items]
        assert [item.output["page"] for item in (first, *rest[:-1])] == list(range(200))
        await swapping


async def test_storage_stays_and_the_memory_of_the_old_one_does_not(tmp_path: Path) -> None:
    async with tell_host(tmp_path) as host:
        for _ in range(3):
            await who(host)
        await host.swap("teller")
        told = await who(host)
        assert (told["stored"], told["asked"]) == (4, 1)


async def test_a_caller_that_leaves_does_not_break_a_swap_off(tmp_path: Path) -> None:
    async with tell_host(tmp_path) as host:
        swapping = asyncio.create_task(host.swap("teller", config={"word": "new"}))
        await asyncio.sleep(0)
        swapping.cancel()
        await until(lambda: host.plugins["teller"].counters.swaps == 1)
        assert (await who(host))["word"] == "new"


async def test_a_host_that_stops_amid_a_swap_stops_both(tmp_path: Path) -> None:
    async with tell_host(tmp_path) as host:
        await host.swap("teller", tier="grpc")
        slow = asyncio.create_task(host.invoke("tell.who", {"seconds": 0.3}))
        await until(lambda: host.plugins["teller"].inflight)
        pids = [row_pid(host)]
        swapping = asyncio.create_task(host.swap("teller", config={"word": "new"}))
        await until(lambda: host.plugins["teller"].counters.swaps == 2)
        pids.append(row_pid(host))
    assert (await slow).output["word"] == "teller"  # within the grace of a stop
    with pytest.raises(asyncio.CancelledError):
        await swapping
    assert not any(map(alive, pids))


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def row_pid(host: Host) -> int:
    return int(plugin_row(host, host.plugins["teller"])["pid"])


# -- roll back


@pytest.mark.parametrize("tier", ["native", pytest.param("grpc", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("config", "told"),
    [({"fail": "no model"}, "no model"), ({"ail": "out of disk"}, "not well: out of disk")],
)
async def test_a_new_one_that_fails_or_ails_is_rolled_back(
    tier: str, config: dict[str, str], told: str, tmp_path: Path
) -> None:
    async with tell_host(tmp_path, plugins={"teller": {"tier": tier}}) as host:
        old = host.plugins["teller"]
        callers = Callers(host, "tell.who", {})
        async with callers.asking(2):
            with pytest.raises(PluginUnhealthy, match=f"nothing was swapped.*{told}"):
                await host.swap("teller", config=config)
        assert (callers.failed, callers.sent) == ([], callers.answered)
        assert host.plugins["teller"] is old
        assert old.state == "ready"
        assert "the last swap was rolled back" in plugin_row(host, old)["note"]
        assert (old.counters.swaps, old.counters.restarts) == (0, 0)
        await host.swap("teller")
        assert plugin_row(host, host.plugins["teller"])["note"] == ""


# -- new code


async def test_new_code_and_a_new_manifest_are_taken_up(tmp_path: Path) -> None:
    home = tmp_path / "plugins" / "teller"
    shutil.copytree(PLUGINS / "teller", home, ignore=shutil.ignore_patterns("__pycache__"))
    paths = {"plugin_paths": [str(tmp_path / "plugins")]}
    tables = host_tables(tmp_path, teller={"tier": "grpc", "allow": ALLOW})
    async with Host(load_settings(None, merge(tables, {"host": paths}))) as host:
        code, manifest = home / "teller_plugin.py", home / "plugin.toml"
        code.write_text(code.read_text().replace('"word": word,', '"word": word.upper(),'))
        manifest.write_text(manifest.read_text().replace("1.0.0", "1.1.0"))
        swapped = await host.swap("teller")
        assert swapped.version == plugin_row(host, host.plugins["teller"])["version"] == "1.1.0"
        assert (await who(host))["word"] == "TELLER"


async def test_native_code_that_changed_is_not_served_as_if_it_were_new(tmp_path: Path) -> None:
    async with tell_host(tmp_path) as host:
        code = PLUGINS / "teller" / "teller_plugin.py"
        old = code.stat()
        os.utime(code, ns=(old.st_atime_ns, old.st_mtime_ns + 1_000_000_000))
        try:
            with pytest.raises(PluginUnhealthy, match="its code changed, and native code is") as e:
                await host.swap("teller")
            assert isinstance(e.value.__cause__, PluginLoadError)
        finally:
            os.utime(code, ns=(old.st_atime_ns, old.st_mtime_ns))


# -- watching


async def test_the_old_ones_end_is_no_crash_and_the_new_ones_is(tmp_path: Path) -> None:
    async with tell_host(tmp_path, plugins={"teller": {"tier": "grpc"}}) as host:
        first = row_pid(host)
        await host.swap("teller")
        second = row_pid(host)
        assert not alive(first)
        handle = host.plugins["teller"]
        assert (handle.state, handle.counters.restarts) == ("ready", 0)
        os.kill(second, signal.SIGKILL)
        await until(lambda: handle.counters.restarts == 1 and handle.state == "ready", 10)
        assert row_pid(host) not in (first, second)
        assert await who(host)


async def test_a_swap_saves_the_calls_and_events_that_wait_for_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tell_host(tmp_path, plugins={"teller": {"tier": "grpc"}}) as host:
        said = host.bus.subscribe("tell.said")
        monkeypatch.setattr(supervisor_module, "BACKOFF_FIRST_S", 60.0)
        monkeypatch.setattr(supervisor_module, "BACKOFF_MOST_S", 60.0)
        os.kill(row_pid(host), signal.SIGKILL)
        await until(lambda: host.plugins["teller"].state == "starting")
        call = asyncio.create_task(who(host))
        await host.bus.publish("tell.heard", Event("note", b"1"))
        await asyncio.sleep(0.05)
        await host.swap("teller", config={"word": "new"})
        assert (await call)["word"] == "new"
        assert (await next_of(said)).payload == b"1"
        assert host.plugins["teller"].counters.errors == 0
        (heard,) = [s for s in host.bus.subscriptions() if s.pattern == "tell.heard"]
        assert heard.stats()["redelivered"] == 0


# -- events


async def published(host: Host, count: int, pause_s: float = 0.0) -> None:
    for number in range(count):
        await host.bus.publish("tell.heard", Event("note", str(number).encode()))
        await asyncio.sleep(pause_s)


async def numbers(said: Subscription, count: int) -> list[int]:
    return [int((await next_of(said)).payload) for _ in range(count)]


@pytest.mark.parametrize("tier", ["native", pytest.param("grpc", marks=pytest.mark.slow)])
async def test_events_are_handled_once_and_in_order_through_swaps(
    tier: str, tmp_path: Path
) -> None:
    async with tell_host(tmp_path, plugins={"teller": {"tier": tier}}) as host:
        said, dead = host.bus.subscribe("tell.said"), dead_letters(host.bus)
        publishing = asyncio.create_task(published(host, 300, 0.002))
        for _ in range(3):
            await asyncio.sleep(0.02)
            await host.swap("teller")
        await publishing
        assert await numbers(said, 300) == list(range(300))
        await until(lambda: not host.busy())
        assert (said.depth, dead.depth) == (0, 0)
        (heard,) = [s for s in host.bus.subscriptions() if s.pattern == "tell.heard"]
        stats = heard.stats()
        assert (stats["matched"], stats["acked"], stats["redelivered"]) == (300, 300, 0)
        assert host.plugins["teller"].counters.events == 300


async def test_an_event_in_hand_ends_on_the_old_one_and_the_next_begins_after_it(
    tmp_path: Path,
) -> None:
    async with tell_host(tmp_path) as host:
        said = host.bus.subscribe("tell.said")
        for number, seconds in enumerate(("0.3", "0", "0")):
            event = Event("note", str(number).encode(), {"seconds": seconds})
            await host.bus.publish("tell.heard", event)
        await until(lambda: host.plugins["teller"].inflight)
        await host.swap("teller", config={"word": "new"})
        heard = [await next_of(said) for _ in range(3)]
        assert [e.payload for e in heard] == [b"0", b"1", b"2"]
        assert [e.metadata["word"] for e in heard] == ["teller", "new", "new"]


async def test_what_the_new_one_does_not_hear_becomes_dead_letters(tmp_path: Path) -> None:
    deaf = {"plugins": {"herald": {"allow": {"provide": ["*"], "subscribe": []}}}}
    async with tell_host(tmp_path, **deaf) as host:
        dead = dead_letters(host.bus)
        for seconds in ("0.2", "0", "0"):
            await host.bus.publish("tell.heard", Event("note", b"", {"seconds": seconds}))
        await until(lambda: host.plugins["teller"].inflight)
        await host.swap("teller", "herald")
        why = "herald, which took the place of teller, does not hear it"
        assert [(await next_of(dead)).metadata["reason"] for _ in range(2)] == [why, why]
        assert not [s for s in host.bus.subscriptions() if s.pattern == "tell.heard"]


async def test_a_plugin_whose_health_changes_as_another_takes_over_stays_withdrawn(
    tmp_path: Path,
) -> None:
    async with tell_host(tmp_path, **BOTH) as host:
        old = host.plugins["teller"]
        slow = asyncio.create_task(who(host, 0.3))
        await until(lambda: old.inflight)
        await published(host, 1)
        swapping = asyncio.create_task(host.swap("teller", "herald"))
        await until(lambda: not host.broker.offered(old))
        host._changed(old)  # as the supervisor tells of a change of health
        assert host.broker.offered(old)
        await slow
        await swapping
        assert not host.broker.offered(old)


async def test_what_outlives_its_deadline_does_not_hold_a_swap_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with tell_host(tmp_path, telemetry={"log_level": "warning"}) as host:
        old, ended = host.plugins["teller"], list[Exception]()
        stuck = InFlight("stuck-1", "teller", deadline=time.monotonic(), end=ended.append)
        old.inflight[stuck.id] = stuck  # as of a call that swallows its cancellation
        async with asyncio.timeout(5):
            await host.swap("teller", config={"word": "new"})
        assert "stuck-1" in str(ended[0])
        assert "did not end within the deadline: stuck-1" in caplog.text
        assert (await who(host))["word"] == "new"


# -- a moment's chance, with fakes


def fake_host(folder: Path, *answers: Serve) -> tuple[Host, FakeRuntime]:
    """`teller` as a fake; each of its instances serves by the next of `answers`."""
    runtime = FakeRuntime(serve={"teller": {"tell.who": answers[0]}})
    start, rest = runtime.start, list(answers)

    async def next_start(spec: PluginSpec, services: AsyncPort) -> FakeInstance:
        runtime.serve["teller"] = {"tell.who": rest.pop(0)}
        return await start(spec, services)

    runtime.start = next_start  # type: ignore[method-assign]  # a probe on the fake
    return Host(tell_host(folder).settings, runtimes={"native": runtime}), runtime


async def test_a_call_that_wakes_the_old_one_as_it_is_stopped_goes_to_the_new(
    tmp_path: Path,
) -> None:
    host, runtime = fake_host(tmp_path, answering("old"), answering("new"))
    async with host:
        (old,) = runtime.started["teller"]
        closed = asyncio.Event()

        async def wake() -> None:
            await closed.wait()
            raise PluginUnhealthy("it was closed", plugin_id="test/teller")

        async def aclose(grace_s: float) -> None:
            closed.set()

        old.asleep, old.wake, old.aclose = True, wake, aclose  # type: ignore[method-assign]  # asleep
        call = asyncio.create_task(host.invoke("tell.who"))
        await asyncio.sleep(0.02)
        await host.swap("teller")
        assert (await call).output == "new"
        assert host.plugins["teller"].counters.errors == 0


async def test_what_the_old_one_takes_with_it_is_tried_again_at_the_new(tmp_path: Path) -> None:
    async def forever(call: Call, services: AsyncPort) -> Result:
        await asyncio.sleep(60)
        return Result("old")

    host, runtime = fake_host(tmp_path, forever, answering("new"))
    async with host:
        call = asyncio.create_task(host.invoke("tell.who"))
        await until(lambda: host.plugins["teller"].inflight)
        swapping = asyncio.create_task(host.swap("teller"))
        await until(lambda: host.plugins["teller"].counters.swaps)
        runtime.started["teller"][0].crash("killed")
        assert (await call).output == "new"
        await swapping
        assert host.plugins["teller"].counters.restarts == 0
        assert len(runtime.started["teller"]) == 2


# -- another plugin


async def test_another_plugin_takes_the_place_and_gives_it_back(tmp_path: Path) -> None:
    async with tell_host(tmp_path) as host:
        assert list(host.plugins) == ["teller"]
        said = host.bus.subscribe("tell.said")
        callers = Callers(host, "tell.who", {})
        async with callers.asking():
            publishing = asyncio.create_task(published(host, 100, 0.002))
            swapped = await host.swap("teller", "herald", config={"word": "hear ye"})
            assert (swapped.plugin, swapped.instead_of) == ("herald", "teller")
            assert (await who(host))["word"] == "hear ye"
            assert (await host.invoke("tell.who")).provider == "herald"
            old = host.plugins["teller"]
            assert (old.state, old.reason) == ("stopped", "replaced by herald 1.0.0 (native)")
            await host.swap("herald", "teller")
            assert (await who(host))["word"] == "teller"
            await publishing
        assert (callers.failed, callers.sent) == ([], callers.answered)
        assert await numbers(said, 100) == list(range(100))
        names = {s.name for s in host.bus.subscriptions() if s.pattern == "tell.heard"}
        assert names == {"teller:tell.heard"}


async def test_one_that_runs_already_moves_up_in_the_order(tmp_path: Path) -> None:
    async with tell_host(tmp_path, **BOTH) as host:
        herald, said = host.plugins["herald"].instance, host.bus.subscribe("tell.said")
        assert (await host.invoke("tell.who")).provider == "teller"
        await published(host, 20)
        swapped = await host.swap("teller", "herald")
        assert swapped.plugin == "herald"
        assert host.plugins["herald"].instance is herald
        assert (await host.invoke("tell.who")).provider == "herald"
        heard = [await next_of(said) for _ in range(40)]  # both heard them all
        for word in ("teller", "herald"):
            own = [int(e.payload) for e in heard if e.metadata["word"] == word]
            assert own == list(range(20))
        assert host.broker.offered(host.plugins["teller"]) == set()


async def test_another_that_cannot_take_the_place_is_refused(tmp_path: Path) -> None:
    less = {"plugins": {"herald": {"allow": {"provide": ["other.*"]}}}}
    async with tell_host(tmp_path, **less) as host:
        with pytest.raises(ConfigError, match="herald cannot take the place of teller.*tell.who"):
            await host.swap("teller", "herald")
        with pytest.raises(ConfigError, match="'heralt' has no table; did you mean 'herald'"):
            await host.swap("teller", "heralt")
        with pytest.raises(ConfigError, match="no plugin 'x' runs here; there are: teller"):
            await host.swap("x")
        assert (await who(host))["word"] == "teller"


async def test_another_that_fails_or_ails_is_rolled_back(tmp_path: Path) -> None:
    async with tell_host(tmp_path) as host:
        for config, told in (({"fail": "no voice"}, "no voice"), ({"ail": "hoarse"}, "hoarse")):
            with pytest.raises(PluginUnhealthy, match=f"teller goes on.*{told}"):
                await host.swap("teller", "herald", config=config)
            assert list(host.plugins) == ["teller"]
            assert (await who(host))["word"] == "teller"


async def test_one_that_runs_already_and_ails_is_refused(tmp_path: Path) -> None:
    ailing = {"plugins": {"herald": {"config": {"ail": "hoarse"}}}}
    async with tell_host(tmp_path, **merge(BOTH, ailing)) as host:
        with pytest.raises(PluginUnhealthy, match="herald is not well: hoarse"):
            await host.swap("teller", "herald")
        with pytest.raises(ConfigError, match="herald runs already"):
            await host.swap("teller", "herald", tier="grpc")
        assert (await host.invoke("tell.who")).provider == "teller"


async def test_require_enforced_holds_for_the_new_one(tmp_path: Path) -> None:
    async with tell_host(tmp_path, plugins={"teller": {"tier": "grpc"}}) as host:
        object.__setattr__(host.settings.host, "require_enforced", True)
        with pytest.raises(PluginUnhealthy, match="does not enforce: teller: memory is unenf"):
            await host.swap("teller", tier="native")
        assert host.plugins["teller"].spec.tier == "grpc"
        assert isinstance(await host.invoke("tell.who"), Result)
