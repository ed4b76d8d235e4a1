"""One contract, three tiers: the same plugins, byte for byte, pass the same tests in each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from loom_host import Event, Host
from loom_host import supervisor as supervisor_module
from loom_sdk.errors import (
    ActionFailed,
    CapabilityNotFound,
    DeadlineExceeded,
    InvalidArguments,
    QuotaExceeded,
)

from .hosting import PLUGINS, dead_letters, host_tables, next_of, until
from .support import ROOT, within

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIERS = ("native", "wasm", "grpc")
NOTEBOOK = PLUGINS / "notebook"
CALCULATOR = ROOT / "plugins" / "wasm" / "calculator"
OUTPUT_LIMIT = 65536
ALLOW: dict[str, Any] = {
    "provide": ["*"], "subscribe": ["notes.*"], "publish": ["notebook"],
    "invoke": ["calculator.evaluate"], "storage": True,
}  # fmt: skip


def host_in(tier: str, folder: Path, **quotas: Any) -> Host:
    """A host with both plugins in one tier; `quotas` are the notebook's. Its storage is kept."""
    notebook = {"tier": tier, "allow": ALLOW, "config": {"owner": "bo"}, "quotas": quotas}
    tables = host_tables(folder, notebook=notebook)
    del tables["host"]["cache_dir"]  # a guest is built once for all tests
    tables["plugins"]["calculator"] = {"tier": tier, "allow": {"provide": ["calculator.*"]}}
    path = folder / "loom.toml"
    path.touch()
    return Host.from_config(path, tables)


@pytest.fixture(scope="module", params=TIERS)
def tier(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(tier: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Host]:
    """Shared by the tests that leave it as it was. Its plugins are asked for health often."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervisor_module, "HEALTH_EVERY_S", 0.1)
        async with host_in(tier, tmp_path_factory.mktemp(tier)) as running:
            yield running


async def read(host: Host) -> dict[str, Any]:
    return dict((await host.invoke("notebook.read")).output)


# -- answers and errors


async def test_both_plugins_run_in_the_tier_from_the_same_bytes(tier: str, host: Host) -> None:
    plugins = host.plugins
    assert {(h.spec.tier, h.state) for h in plugins.values()} == {(tier, "ready")}
    assert (plugins["notebook"].spec.folder, plugins["calculator"].spec.folder) == (
        NOTEBOOK,
        CALCULATOR,
    )
    running = (await host.invoke("notebook.source")).output
    assert running == (NOTEBOOK / "notebook_plugin.py").read_text()


async def test_manifest_and_code_say_the_same_in_every_tier(host: Host) -> None:
    for handle in host.plugins.values():
        assert handle.instance is not None
        said = handle.instance.declaration
        assert {c.name for c in said.capabilities} == {c.name for c in handle.manifest.capabilities}
        assert [(s.topic, s.qos, s.types) for s in said.subscriptions] == [
            (s.topic, s.qos, s.types) for s in handle.manifest.subscribes
        ]


@pytest.mark.parametrize(
    ("expression", "result", "speech"),
    [
        ("12 * 9", "108", "12 times 9 is 108."),
        ("twelve times nine", "108", "12 times 9 is 108."),
        ("0.1 + 0.2", "0.3", "0.1 plus 0.2 is 0.3."),
        ("1/3", "0.333333333333", "1 divided by 3 is about 0.3333."),
        (
            "2 ** 100",
            str(2**100),
            "2 to the power of 100 is about 1.27 times 10 to the power of 30.",
        ),
        ("√2", "1.41421356237", "The square root of 2 is about 1.4142."),
    ],
)
async def test_sums_come_out_alike(host: Host, expression: str, result: str, speech: str) -> None:
    answer = await host.invoke("calculator.evaluate", {"expression": expression})
    assert answer.output == {"result": result, "speech": speech}
    assert (answer.provider, answer.elapsed_us > 0) == ("calculator", True)


@pytest.mark.parametrize(
    ("expression", "code", "message"),
    [
        ("1/0", "DIVISION_BY_ZERO", "zero"),
        ("9**9**9", "TOO_LARGE", "large"),
        ("sqrt(-1)", "DOMAIN", "negative number has no real value"),
        ("3 $ 4", "SYNTAX", r"cannot read '\$' at character 3 of '3 \$ 4'"),
        ("__import__('os')", "SYNTAX", "__import__"),
    ],
)
async def test_wrong_sums_fail_with_the_plugins_own_code(
    host: Host, expression: str, code: str, message: str
) -> None:
    with pytest.raises(ActionFailed, match=message) as caught:
        await host.invoke("calculator.evaluate", {"expression": expression})
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "expression"),
        ({"expression": 12}, "12 is not of type"),
        ({"expression": ""}, "expression"),
        ({"expression": "1" * 501}, "longer than 500"),
        ({"expression": "1", "x": 1}, "'x' was unexpected"),
    ],
)
async def test_bad_arguments_never_reach_the_plugin(
    host: Host, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArguments, match=message):
        await host.invoke("calculator.evaluate", arguments)


@pytest.mark.parametrize(
    ("how", "kind", "code", "message"),
    [
        ("typed", ActionFailed, "NO_PAPER", "out of paper"),
        ("arguments", InvalidArguments, "", "not that one"),
        ("bug", ActionFailed, "CAPABILITY_ERROR", "ValueError: a bug"),
    ],
)
async def test_what_a_plugin_raises_is_what_its_caller_gets(
    host: Host, how: str, kind: type[Exception], code: str, message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        await host.invoke("notebook.fail", {"how": how})
    assert type(caught.value) is kind
    assert getattr(caught.value, "code", "") == code


async def test_an_answer_is_the_callers_own_and_not_the_plugins_state(host: Host) -> None:
    before = await read(host)
    before["notes"].append("scribbled in by the caller")
    assert (await read(host))["notes"] == before["notes"][:-1]


async def test_what_nobody_offers_is_not_found(host: Host) -> None:
    with pytest.raises(CapabilityNotFound, match="notebook.read"):
        await host.invoke("notebook.burn")


@pytest.mark.parametrize("size", [0, 1, 30_000])
async def test_json_and_binary_pass_both_ways(host: Host, size: int) -> None:
    payload = bytes(index % 251 for index in range(size))
    value: dict[str, Any] = {"ä": [1, -2.5, None, True, "\0", {"deep": []}]}
    result = await host.invoke(
        "notebook.reverse", {"value": value}, payload=payload, content_type="audio/pcm;rate=16000"
    )
    assert result.output == {"value": value}
    assert (result.payload, result.content_type) == (payload[::-1], "audio/pcm;rate=16000")


async def test_items_stream_in_order_before_the_result(host: Host) -> None:
    stream = host.stream("notebook.pages", {"count": 5, "size": 3})
    items = [(item.output, item.payload, item.content_type) async for item in stream]
    assert items == [({"page": n}, bytes(3), "x/page") for n in range(5)] + [
        ({"pages": 5}, b"", "")
    ]


# -- events, storage, nested calls, grants


async def test_an_event_in_is_kept_stored_and_an_event_out(host: Host) -> None:
    before = (await read(host))["notes"]
    async with host.bus.subscribe("notebook") as told:
        await host.bus.publish("notes.a", Event("note", "früh".encode(), {"by": "bo"}))
        await host.bus.publish("notes.b", Event("other", b"not heard"))
        await host.bus.publish("notes.b", Event("sum", b"12 * 9", priority=90))
        events = {event.type: event for event in [await next_of(told), await next_of(told)]}
    note, worked_out = events["note"], events["sum"]
    assert (note.payload.decode(), note.tags, note.source) == ("früh", ("kept",), "notebook")
    assert note.metadata["topic"] == "notes.a"
    assert note.metadata["by"] == "bo"
    assert worked_out.payload == b"108"
    after = await read(host)
    assert sorted(after["notes"][len(before) :]) == ["108", "früh"]
    assert after["owner"] == "bo"
    assert {"note/notes.a": "früh", "note/notes.b": "108"}.items() <= after["stored"].items()


async def test_a_handler_that_raises_costs_its_event_and_nothing_else(host: Host) -> None:
    async with dead_letters(host.bus) as letters, host.bus.subscribe("notebook") as told:
        await host.bus.publish("notes.c", Event("torn", b"x"))
        letter = await next_of(letters)
        await host.bus.publish("notes.c", Event("note", b"whole"))
        assert (await next_of(told)).payload == b"whole"
    assert "half of it is missing" in letter.metadata["reason"]


@pytest.mark.parametrize(
    ("what", "kind", "named"),
    [
        ("publish", "PermissionDenied", "secrets"),
        ("invoke", "PermissionDenied", "notebook.read"),
        ("hoard", "QuotaExceeded", "storage_bytes"),
    ],
)
async def test_more_than_was_granted_is_refused_inside_the_plugin(
    host: Host, what: str, kind: str, named: str
) -> None:
    answer = (await host.invoke("notebook.overreach", {"what": what})).output
    assert answer[0] == kind
    assert named in answer[1]


# -- quotas


@pytest.mark.parametrize("where", ["output", "payload"])
async def test_an_answer_over_its_quota_is_refused(host: Host, where: str) -> None:
    for size in (OUTPUT_LIMIT + 1, 1_000_000):
        with pytest.raises(QuotaExceeded) as caught:
            await host.invoke("notebook.fill", {"size": size, "where": where})
        assert (caught.value.quota, caught.value.limit) == ("output_bytes", OUTPUT_LIMIT)
        assert caught.value.plugin_id == "test/notebook"
    below = await host.invoke("notebook.fill", {"size": OUTPUT_LIMIT - 500, "where": where})
    assert len(below.output or below.payload) == OUTPUT_LIMIT - 500


async def test_a_stream_over_its_quota_is_refused(host: Host) -> None:
    with pytest.raises(QuotaExceeded) as caught:
        async for item in host.stream("notebook.pages", {"count": 100, "size": 10_000}):
            assert item.output["page"] < OUTPUT_LIMIT / 10_000
    assert caught.value.quota == "output_bytes"
    assert (await host.invoke("notebook.reverse", {"value": 1})).output == {"value": 1}


async def test_calls_take_turns_and_one_that_waits_too_long_is_told(host: Host) -> None:
    call = host.invoke("notebook.work", {"seconds": 0.02})
    most = [(await call).output]
    calls = [host.invoke("notebook.work", {"seconds": 0.01}) for _ in range(4)]
    most += [result.output for result in await asyncio.gather(*calls)]
    assert most == [1] * 5
    long = asyncio.create_task(host.invoke("notebook.work", {"seconds": 0.5}))
    await until(lambda: host.plugins["notebook"].slots.active == 1)
    with within(100), pytest.raises(QuotaExceeded) as caught:
        await host.invoke("notebook.read", timeout_ms=100)
    assert (caught.value.quota, caught.value.limit) == ("concurrency", 1)
    assert (await long).output == 1


async def test_a_call_over_its_deadline_ends_and_the_next_is_served(
    tier: str, tmp_path: Path
) -> None:
    async with host_in(tier, tmp_path, deadline_ms=300) as host:
        with within(300), pytest.raises(DeadlineExceeded, match="within 300 ms") as caught:
            await host.invoke("notebook.work", {"seconds": 1.0})
        assert caught.value.plugin_id == "test/notebook"
        assert (await read(host))["owner"] == "bo"


@pytest.mark.slow
async def test_busy_calls_and_slow_handlers_end_at_their_deadline(
    tier: str, tmp_path: Path
) -> None:
    async with host_in(tier, tmp_path, deadline_ms=300) as host:
        with within(300), pytest.raises(DeadlineExceeded, match="within 300 ms"):
            await host.invoke("notebook.work", {"seconds": 1.0, "how": "spin"})
        assert (await read(host))["owner"] == "bo"
        letters, told = dead_letters(host.bus), host.bus.subscribe("notebook")
        with within(300):
            await host.bus.publish("notes.a", Event("slow", b"1.0"))
            letter = await next_of(letters)
        assert "within 300 ms" in letter.metadata["reason"]
        await host.bus.publish("notes.a", Event("note", b"next"))
        assert (await next_of(told)).payload == b"next"


# -- life


async def test_a_sick_plugin_is_degraded_until_it_is_well(host: Host) -> None:
    notebook = host.plugins["notebook"]
    await host.invoke("notebook.ail", {"problem": "the ink is dry"})
    await until(lambda: notebook.state == "degraded")
    assert "the ink is dry" in notebook.reason
    await host.invoke("notebook.ail", {"problem": ""})
    await until(lambda: notebook.state == "ready")
    assert host.plugins["calculator"].state == "ready"


async def test_stop_is_asked_for_and_storage_outlives_it(tier: str, tmp_path: Path) -> None:
    async with host_in(tier, tmp_path) as host:
        async with host.bus.subscribe("notebook") as told:
            await host.bus.publish("notes.a", Event("note", b"kept"))
            await next_of(told)
        assert (await read(host))["stored"] == {"starts": "1", "note/notes.a": "kept"}
    assert {handle.state for handle in host.plugins.values()} == {"stopped"}
    async with host_in(tier, tmp_path) as host:
        again = await read(host)
    assert again["notes"] == []
    assert again["stored"] == {
        "starts": "2", "note/notes.a": "kept", "stopped": "with 1 notes",
    }  # fmt: skip
