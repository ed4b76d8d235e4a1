"""The whole host over real native plugins: what works, what is denied, what fails alone."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loom_host import Event, Host, load_settings, tiers
from loom_host import supervisor as supervisor_module
from loom_host.handle import InFlight, health_of
from loom_host.runtimes.fake import FakeRuntime
from loom_host.settings import Settings
from loom_host.status import capability_rows, plugin_rows, reach_row, refusals
from loom_sdk import Call
from loom_sdk.errors import (
    ActionFailed,
    BusError,
    CapabilityError,
    CapabilityNotFound,
    ConfigError,
    DeadlineExceeded,
    InvalidArguments,
    LoomError,
    OutcomeUnknown,
    PermissionDenied,
    PluginLoadError,
    PluginUnhealthy,
    QuotaExceeded,
)

from .hosting import dead_letters, host_tables, native_host, next_of, until
from .test_egress import serving

LAB: dict[str, Any] = {
    "allow": {"provide": ["*"], "subscribe": ["notes.*", "anotes"], "publish": ["echo", "aecho"]}
}
PROBER: dict[str, Any] = {
    "allow": {
        "provide": ["*"], "publish": ["probe.*"], "subscribe": ["audio.mic"], "storage": True,
        "invoke": ["lab.*", "prober.*", "loom.*"], "secrets": ["token"],
        "network": ["http://127.0.0.1:*"],
    }
}  # fmt: skip
MUTE: dict[str, Any] = {"allow": {"provide": ["*"]}}


# -- life


async def test_capabilities_events_and_streams_of_a_real_plugin(tmp_path: Path) -> None:
    async with native_host(tmp_path, lab=LAB) as host:
        assert (await host.invoke("lab.greet", {"name": "bo"})).output == {"greeting": "hi bo"}
        result = await host.invoke("lab.reverse", payload=b"abc", content_type="x/y")
        assert (result.payload, result.content_type, result.provider) == (b"cba", "x/y", "lab")
        items = [(item.output, item.payload) async for item in host.stream("lab.count", {"to": 2})]
        assert items == [(0, b"\0"), (1, b"\1"), ({"counted": 2}, b"")]
        async with host.bus.subscribe("echo") as echoes:
            await host.bus.publish("notes.a", Event("x", b"1"))
            echo = await next_of(echoes)
        assert (echo.type, echo.payload, echo.source) == ("x", b"1", "lab")
        assert echo.metadata == {"topic": "notes.a"}
        await until(lambda: not host.busy())


async def test_the_host_tells_when_it_is_ready_and_what_becomes_of_plugins(
    tmp_path: Path,
) -> None:
    host = native_host(tmp_path, lab=LAB)
    states = host.bus.subscribe("loom.plugin")
    ready = host.bus.subscribe("loom.host")
    async with host:
        event = await next_of(ready)
        assert (event.type, event.metadata) == ("host.ready", {"plugins": "lab"})
        seen = [(await next_of(states)).metadata for _ in range(2)]
        assert seen == [
            {"plugin": "lab", "state": "starting", "reason": ""},
            {"plugin": "lab", "state": "ready", "reason": ""},
        ]
        assert host.started_at > 0
    left = [event.metadata["state"] async for event in states]
    assert left == []
    await host.aclose()
    with pytest.raises(BusError, match="the bus is closed"):
        await host.bus.publish("x", Event("x"))


async def test_a_stop_lets_calls_end(tmp_path: Path) -> None:
    host = native_host(tmp_path, lab=LAB)
    async with host:
        slow = {"to": 3, "pause_s": 0.1}
        call = asyncio.create_task(host.invoke("lab.acount", slow))
        await until(lambda: bool(host.plugins["lab"].inflight))
    assert (await call).output == {"counted": 3}


async def test_a_call_that_outlasts_the_stop_is_ended(tmp_path: Path) -> None:
    tables = host_tables(tmp_path, lab=LAB)
    tables["host"]["stop_grace_ms"] = 100
    async with Host(load_settings(None, tables)) as host:
        hung = {"to": 3, "pause_s": 20}
        call = asyncio.create_task(host.invoke("lab.acount", hung))
        await until(lambda: bool(host.plugins["lab"].inflight))
    with pytest.raises(PluginUnhealthy, match="lab is stopped|was stopped while"):
        await asyncio.wait_for(call, 1)


async def test_a_stop_lets_an_event_in_hand_end_and_takes_no_other(tmp_path: Path) -> None:
    host = native_host(tmp_path, lab=LAB)
    echoes = host.bus.subscribe("echo")
    async with host:
        for topic in ("notes.a", "notes.b"):
            await host.bus.publish(topic, Event("nap"))
        await until(lambda: bool(host.plugins["lab"].inflight))
        stopping = asyncio.create_task(host.aclose())
        assert (await next_of(echoes)).metadata == {"topic": "notes.a"}
        await stopping
    assert [event async for event in echoes] == []


async def test_a_host_without_plugins() -> None:
    async with Host(Settings()) as host:
        assert host.plugins == {}
        own = r"offered: loom.approve, loom.caller, loom.forget, loom.route, loom.tools"
        with pytest.raises(CapabilityNotFound, match=own):
            await host.invoke("a.b")


async def test_two_hosts_live_in_one_process(tmp_path: Path) -> None:
    one = native_host(tmp_path / "1", lab={**LAB, "config": {"greeting": "one"}})
    two = native_host(tmp_path / "2", lab={**LAB, "config": {"greeting": "two"}})
    async with one, two:
        answers = [await host.invoke("lab.greet", {"name": "x"}) for host in (one, two)]
        assert [a.output["greeting"] for a in answers] == ["one x", "two x"]


async def test_from_config_keeps_its_store(tmp_path: Path) -> None:
    path = tmp_path / "loom.toml"
    path.write_text("")
    overrides = host_tables(tmp_path, prober=PROBER)
    for expected in (None, "1"):
        async with Host.from_config(path, overrides) as host:
            got = await host.invoke("prober.ask", {"what": "get", "of": "k"})
            assert got.output["value"] == expected
            await host.invoke("prober.ask", {"what": "put", "of": "k", "text": "1"})
    with pytest.raises(ConfigError):
        Host.from_config(tmp_path / "other.toml")


async def test_a_plugin_that_fails_takes_nothing_else_with_it(tmp_path: Path) -> None:
    for bad in (
        {"sulky": MUTE, "lab": LAB},
        {"lab": {**LAB, "config": {"fail_at_start": "raise"}}, "prober": PROBER},
        {"lab": {**LAB, "config": {"fail_at_start": "exit"}}, "prober": PROBER},
    ):
        async with native_host(tmp_path, **bad) as host:
            states = {name: handle.state for name, handle in host.plugins.items()}
            assert sorted(states.values()) == ["failed", "ready"]
            name = next(name for name, state in states.items() if state == "failed")
            assert host.plugins[name].reason
            assert health_of(host.plugins) == (False, {"plugins": states})
            other = next(handle for handle in host.plugins.values() if handle.state == "ready")
            assert other.instance is not None
            await until(lambda: not host.busy())


async def test_a_plugin_whose_stop_hangs_or_fails_ends_with_its_host(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for how in ("hang", "raise", "exit"):
        tables = host_tables(tmp_path, lab={**LAB, "config": {"fail_at_stop": how}})
        tables["host"]["stop_grace_ms"] = 50
        tables["telemetry"]["log_level"] = "warning"
        async with Host(load_settings(None, tables)) as host:
            pass
        assert host.plugins["lab"].state == "stopped"
        assert "lab did not stop cleanly" in caplog.text
        caplog.clear()


async def test_a_start_that_fails_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = native_host(tmp_path, lab=LAB)

    def broken() -> None:
        raise ConfigError("no")

    monkeypatch.setattr(host, "_require_enforced", broken)
    with pytest.raises(ConfigError, match="no"):
        async with host:
            raise AssertionError("it must not start")
    assert host.bus.closed
    assert host.plugins["lab"].state == "stopped"
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_what_cannot_be_enforced_may_be_refused(tmp_path: Path) -> None:
    tables = host_tables(tmp_path, lab=LAB)
    tables["host"]["require_enforced"] = True
    with pytest.raises(ConfigError, match=r"lab: memory is unenforced: native code") as caught:
        async with Host(load_settings(None, tables)):
            pass
    assert "deadline_ms is partial" in caught.value.message


async def test_untrusted_native_code_stops_the_start(tmp_path: Path) -> None:
    host = native_host(tmp_path, lab={**LAB, "trusted": False})
    with pytest.raises(PluginLoadError, match="may not run in the host"):
        async with host:
            pass


async def test_a_runtime_can_be_given(tmp_path: Path) -> None:
    settings = load_settings(None, host_tables(tmp_path, lab=LAB))
    runtime = FakeRuntime()
    async with Host(settings, runtimes={"native": runtime}) as host:
        assert set(runtime.started) == {"lab"}
        await host.settled()


def test_every_tier_has_its_runtime() -> None:
    for tier, make in tiers.RUNTIMES.items():
        assert make(load_settings()).tier == tier


# -- time, quotas, effects


async def test_a_blocking_thread_is_a_deadline_and_degrades_the_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "HEALTH_EVERY_S", 0.02)
    async with native_host(tmp_path, lab=LAB) as host:
        with pytest.raises(DeadlineExceeded, match=r"lab.block did not end within \d+ ms"):
            await host.invoke("lab.block", {"seconds": 0.4}, timeout_ms=50)
        await until(lambda: host.plugins["lab"].state == "degraded")
        assert host.plugins["lab"].reason == "1 blocked thread(s) abandoned"
        assert (await host.invoke("lab.greet", {"name": "bo"})).output == {"greeting": "hi bo"}
        (row,) = plugin_rows(host)
        assert row["usage"] == {"abandoned_threads": 1}
        assert (row["state"], row["quota_hits"]) == ("degraded", 1)
        await until(lambda: host.plugins["lab"].state == "ready")


async def test_output_over_its_quota_in_one_piece_and_in_items(tmp_path: Path) -> None:
    async with native_host(tmp_path, lab={**LAB, "quotas": {"output_bytes": 1000}}) as host:
        for name in ("lab.large", "lab.large_item"):
            with pytest.raises(QuotaExceeded) as caught:
                await host.invoke(name, {"size": 2000})
            assert (caught.value.quota, caught.value.limit) == ("output_bytes", 1000)
            assert caught.value.used > 2000


async def test_an_event_handler_that_fails_or_is_too_slow(tmp_path: Path) -> None:
    async with (
        native_host(tmp_path, lab={**LAB, "quotas": {"deadline_ms": 50}}) as host,
        dead_letters(host.bus) as dead,
    ):
        await host.bus.publish("notes.a", Event("bad"))
        await host.bus.publish("anotes", Event("slow"))
        reasons = {(await next_of(dead)).metadata["reason"] for _ in range(2)}
        assert reasons == {
            "handler failed: lab raised RuntimeError: cannot read this",
            "handler failed: lab did not handle anotes within 50 ms",
        }


async def test_arguments_and_failures_are_typed(tmp_path: Path) -> None:
    async with native_host(tmp_path, lab=LAB) as host:
        with pytest.raises(InvalidArguments, match="'nam' was unexpected"):
            await host.invoke("lab.greet", {"nam": "bo"})
        with pytest.raises(ActionFailed, match="out of paper") as caught:
            await host.invoke("lab.fail", {"how": "typed"})
        assert caught.value.code == "NO_PAPER"
        with pytest.raises(ActionFailed, match="SystemExit"):
            await host.invoke("lab.fail", {"how": "exit"})


async def test_the_same_id_gives_the_kept_result(tmp_path: Path) -> None:
    async with native_host(tmp_path, lab=LAB) as host:
        for _ in range(3):
            await host.invoke("lab.greet", {"name": "bo"}, id="1")
        assert host.plugins["lab"].counters.calls == 1


# -- what the host itself offers


async def test_the_host_is_a_plugin_like_any_other() -> None:
    async with Host(Settings()) as host:
        handle = host.broker._registry._offers["loom.tools"]["host"].handle
        instance = await handle.ready()
        assert (await instance.health(), await instance.handle_event(Event("x"))) == ("", 0)
        assert (instance.usage().pid, handle.placement) == (0, "local")
        await instance.aclose(0.0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(instance.wait_exit(), 0.01)
        handle.inflight["c"] = InFlight("c", "host")
        with pytest.raises(CapabilityNotFound, match=r"does not offer 'loom\.fly'"):
            await instance.invoke(Call("loom.fly", {}, id="c"))


async def test_loom_tools_are_those_that_the_caller_may_invoke(tmp_path: Path) -> None:
    async with native_host(tmp_path, lab=LAB, prober=PROBER) as host:
        (tool,) = (await host.invoke("loom.tools")).output["tools"]
        assert (tool["name"], tool["description"]) == ("lab.greet", "Greet somebody.")
        assert tool["input_schema"]["required"] == ["name"]
        assert tool["examples"] == [{"arguments": {"name": "bo"}, "output": {"greeting": "hi bo"}}]
        assert tool["effects"] == "none"
        json.dumps(tool)
    narrow = {"allow": {**PROBER["allow"], "invoke": ["loom.tools", "lab.count"]}}
    async with native_host(tmp_path, lab=LAB, prober=narrow) as host:
        api = host._services(host.plugins["prober"])
        assert (await api.invoke(Call("loom.tools", {}))).output == {"tools": []}


async def test_loom_route_tells_the_decision_under_the_callers_policy(tmp_path: Path) -> None:
    tables = host_tables(tmp_path, lab={**LAB, "quality": 0.9})
    tables["agents"] = {"spy": {"parameters": {"routing": {"privacy": "local-only"}}}}
    async with Host(load_settings(None, tables)) as host:
        arguments = {"capability": "lab.greet"}
        plain = (await host.invoke("loom.route", arguments)).output
        assert (plain["route"], plain["providers"]) == ("Local", ("lab",))
        private = (await host.invoke("loom.route", arguments, agent="spy")).output
        assert private["reason"] == "Privacy policy requires local-only processing"
        with pytest.raises(CapabilityError):
            await host.invoke("loom.route", {"capability": "a.b"})


# -- grants, through a plugin that asks for everything


async def ask(host: Host, what: str, of: str = "", text: str = "", how: str = "ask") -> Any:
    result = await host.invoke(f"prober.{how}", {"what": what, "of": of, "text": text})
    return result.output


DENIED = [
    ("publish", "probe.x", "publish:probe.x"),
    ("invoke", "lab.greet", "invoke:lab.greet"),
    ("stream", "lab.count", "invoke:lab.count"),
    ("put", "k", "storage:own"),
    ("get", "k", "storage:own"),
    ("delete", "k", "storage:own"),
    ("secret", "token", "secrets:token"),
    ("http", "http://127.0.0.1:9/", "network:http://127.0.0.1:9"),
]


@pytest.mark.parametrize("how", ["ask", "aask"])
async def test_every_kind_is_denied_where_it_is_not_allowed(tmp_path: Path, how: str) -> None:
    async with native_host(tmp_path, lab=LAB, prober=MUTE) as host:
        for what, of, permission in DENIED:
            with pytest.raises(PermissionDenied) as caught:
                await ask(host, what, of, how=how)
            assert (caught.value.plugin_id, caught.value.permission) == ("prober", permission)
        rows = refusals(host)
        withheld = {"subscribe:audio.>", "env:PROBER_ENV"}
        assert withheld < {f"{row['kind']}:{row['value']}" for row in rows}
        assert [row["plugin"] for row in rows].count("prober") == len(DENIED) + len(withheld)
        assert {row["line"] for row in rows} >= {
            '[plugins.prober]\nallow = { provide = ["*"], publish = ["probe.x"] }',
            '[plugins.prober]\nallow = { provide = ["*"], subscribe = ["audio.>"] }',
        }
        row = next(row for row in plugin_rows(host) if row["name"] == "prober")
        assert row["denials"] == len(rows)


@pytest.mark.parametrize("how", ["ask", "aask"])
async def test_every_kind_works_where_it_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("PROBER_TOKEN", "s3cret-value")
    tables = host_tables(tmp_path, lab=LAB, prober=PROBER)
    tables["secrets"] = {"token": {"env": "PROBER_TOKEN"}}
    async with Host(load_settings(None, tables)) as host:
        async with host.bus.subscribe("probe.x") as heard:
            assert await ask(host, "publish", "probe.x", how=how) == 1
            event = await next_of(heard)
        assert (event.source, event.topic) == ("prober", "probe.x")
        assert event.priority <= 100
        assert await ask(host, "invoke", "lab.greet", how=how) == {"greeting": "hi x"}
        assert await ask(host, "stream", "lab.count", how=how) == [0, 1, 2, {"counted": 3}]
        assert await ask(host, "secret", "token", how=how) == "s3cret-value"
        put = await ask(host, "put", "k", "v", how=how)
        assert put == {"value": "v", "keys": ["k"]}
        assert (await ask(host, "delete", "k", how=how))["keys"] == []
        with pytest.raises(QuotaExceeded, match="storage_bytes"):
            await ask(host, "put", "k", "v" * 200, how=how)
        async with serving() as server:
            server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
            url = f"http://127.0.0.1:{server.port}/"
            assert await ask(host, "http", url, how=how) in ({}, 200)
            posted = await ask(host, "post", url, "text")
        assert posted == {"status": 200, "body": "{}"}
        assert "x-probe: text" in server.requests[1].lower()


async def test_a_secret_is_redacted_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROBER_TOKEN", "s3cret-value")
    tables = host_tables(tmp_path, prober=PROBER)
    tables["secrets"] = {"token": {"env": "PROBER_TOKEN"}}
    async with Host(load_settings(None, tables)) as host:
        await ask(host, "secret", "token")
        logging.getLogger("loom.test").error("the key is s3cret-value")
    assert "the key is [redacted]" in capsys.readouterr().err


async def test_what_is_not_provided_is_not_offered(tmp_path: Path) -> None:
    async with native_host(tmp_path, lab={"allow": {"provide": ["lab.greet"]}}) as host:
        names = [row["name"] for row in capability_rows(host)]
        assert names == [
            "lab.greet", "loom.approve", "loom.caller", "loom.forget", "loom.route", "loom.tools",
        ]  # fmt: skip
        with pytest.raises(CapabilityNotFound):
            await host.invoke("lab.count", {"to": 1})
        assert '[plugins.lab]\nallow = { provide = ["lab.greet", "lab.count"] }' in {
            row["line"] for row in refusals(host)
        }


async def test_a_wider_subscription_hears_only_what_is_granted(tmp_path: Path) -> None:
    async with native_host(tmp_path, prober=PROBER) as host:
        row = reach_row(host.plugins["prober"])
        assert row["asked_not_granted"] == ["publish:lab.out", "env:PROBER_ENV"]
        assert "can hear: microphone" in row["reach"]
        async with host.bus.subscribe("probe.heard") as heard:
            await host.bus.publish("audio.out", Event("x"))
            await host.bus.publish("audio.mic", Event("x"))
            assert (await next_of(heard)).type == "audio.mic"


async def test_emitting_into_another_plugins_call_is_refused(tmp_path: Path) -> None:
    async with native_host(tmp_path, prober=PROBER) as host:
        with pytest.raises(LoomError, match="a call it is not serving"):
            await ask(host, "emit")


async def test_plugins_call_themselves_and_each_other(tmp_path: Path) -> None:
    async with native_host(tmp_path, lab=LAB, prober=PROBER) as host:
        with pytest.raises(InvalidArguments):
            await ask(host, "invoke", "prober.ask")
        assert await ask(host, "first", "lab.acount") == 0
        await until(lambda: not host.busy())
    single = {**PROBER, "quotas": {"concurrency": 1}}
    async with native_host(tmp_path, lab=LAB, prober=single) as host:
        offer = host.broker._registry._offers["prober.ask"]["prober"]
        offer.spec = replace(offer.spec, input_schema=None)
        with pytest.raises(QuotaExceeded, match="prober -> prober"):
            await ask(host, "invoke", "prober.ask")
        with pytest.raises((OutcomeUnknown, QuotaExceeded)):
            await ask(host, "invoke", "prober.ask", how="aask")


# -- the trace


async def test_one_trace_from_a_call_through_its_plugins(tmp_path: Path) -> None:
    async with native_host(tmp_path, lab=LAB, prober=PROBER) as host:
        await ask(host, "invoke", "lab.greet")
        rows = {row["name"]: row for row in host.telemetry.last_trace()}
        assert rows["invoke lab.greet"]["parent_id"] == rows["invoke prober.ask"]["span_id"]
        await host.invoke("lab.spanned")
        await until(lambda: "inner" in {row["name"] for row in host.telemetry.last_trace()})
        rows = {row["name"]: row for row in host.telemetry.last_trace()}
        assert rows["inner"]["parent_id"] == rows["invoke lab.spanned"]["span_id"]
