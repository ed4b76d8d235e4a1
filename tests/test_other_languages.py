"""One plugin in several languages, with an SDK and from plugin.proto alone: one behaviour.

Where a language's tools are not on the machine its tests are skipped and say so.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from loom_host import Host
from loom_sdk import Event
from loom_sdk._proto import plugin_pb2 as pb
from loom_sdk.errors import (
    ActionFailed,
    DeadlineExceeded,
    InvalidArguments,
    OutcomeUnknown,
    PermissionDenied,
    PluginCrashed,
    QuotaExceeded,
)

from .hosting import dead_letters, next_of, until
from .languages.rig import LANGUAGES, build, hosted, missing, served

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


MINUTES = ("go",)
"""From nothing its modules and compiler take three minutes: `make soak`."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.soak if name in MINUTES else ()) for name in LANGUAGES
    ],
)
def language(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if why := missing(name) or build(name):
        pytest.skip(why)
    return name


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(language: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Host]:
    """One for all tests that leave the plugin as it was."""
    async with hosted(tmp_path_factory.mktemp("host"), language) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def fresh(language: str, tmp_path: Path) -> AsyncIterator[Host]:
    """One of its own for a test that ends the plugin's process."""
    async with hosted(tmp_path, language) as running:
        yield running


def handle(host: Host) -> Any:
    return next(found for name, found in host.plugins.items() if name.startswith("demo-"))


async def test_every_language_has_the_same_manifest() -> None:
    texts = [tomllib.loads((folder / "plugin.toml").read_text()) for folder in LANGUAGES.values()]
    for manifest in texts:
        for key in ("id", "entry", "description"):
            del manifest["plugin"][key]
        assert manifest == texts[0]


async def test_json_and_settings_arrive_as_they_are(language: str, tmp_path: Path) -> None:
    async with hosted(tmp_path, language, greeting="moin") as host:
        value: dict[str, Any] = {"text": 'äöü \x00 😀 "', "list": [1, -2.5, None, True, {}]}
        answer = await host.invoke("demo.echo", {"value": value})
        assert answer.output == {"value": value, "config": {"greeting": "moin", "unwell": ""}}
        assert answer.provider == f"demo-{language}"


@pytest.mark.parametrize("size", [0, 1, 32_000, 6_000_000])
async def test_binary_crosses_both_ways(host: Host, size: int) -> None:
    sound = os.urandom(size)
    answer = await host.invoke("demo.reverse", {}, payload=sound, content_type="audio/pcm")
    assert (answer.output, answer.payload) == ({"size": size}, sound[::-1])
    assert answer.content_type == "audio/pcm"


async def test_items_of_a_stream_come_in_order(host: Host) -> None:
    arguments = {"to": 300, "size": 3000}
    items = [item async for item in host.stream("demo.count", arguments)]
    assert [item.output for item in items[:300]] == [{"index": index} for index in range(300)]
    assert {item.payload for item in items[:300]} == {b"x" * 3000}
    assert {item.content_type for item in items[:300]} == {"application/octet-stream"}
    assert items[300].output == {"counted": 300}


async def test_calls_are_served_at_once_up_to_the_concurrency(host: Host) -> None:
    waiting = asyncio.create_task(host.invoke("demo.wait"))
    answers = await asyncio.gather(*(host.invoke("demo.echo", {"value": n}) for n in range(20)))
    assert [answer.output["value"] for answer in answers] == list(range(20))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_errors_keep_code_and_message(host: Host) -> None:
    with pytest.raises(ActionFailed, match='so ä it "is"') as raised:
        await host.invoke("demo.fail", {"code": "MY_CODE", "message": 'so ä it "is"'})
    assert raised.value.code == "MY_CODE"
    with pytest.raises(ActionFailed, match="no such thing") as raised:
        await host.invoke("demo.bug")
    assert raised.value.code == "CAPABILITY_ERROR"
    with pytest.raises(InvalidArguments):
        await host.invoke("demo.fail", {"code": "QUOTA_EXCEEDED"})
    with pytest.raises(QuotaExceeded, match="enough"):
        await host.invoke("demo.fail", {"code": "QUOTA_EXCEEDED", "message": "enough"})


async def test_a_call_out_of_time_is_stopped_in_the_plugin(host: Host) -> None:
    with pytest.raises(DeadlineExceeded):
        await host.invoke("demo.wait", {}, timeout_ms=300)
    await until(lambda: "stopped waiting" in handle(host).log_lines)
    assert handle(host).counters.restarts == 0  # it did so by itself
    assert (await host.invoke("demo.echo", {"value": 1})).output["value"] == 1


async def test_a_call_that_does_not_stop_costs_the_process_its_life(fresh: Host) -> None:
    pid = handle(fresh).instance.usage().pid
    with pytest.raises((DeadlineExceeded, PluginCrashed)):
        await fresh.invoke("demo.loop", {}, timeout_ms=300)
    await until(lambda: handle(fresh).counters.restarts == 1 and handle(fresh).serves, 20)
    assert (await fresh.invoke("demo.echo", {"value": 1})).output["value"] == 1
    assert handle(fresh).instance.usage().pid != pid


async def test_an_exit_in_a_call_quotes_the_last_words(fresh: Host) -> None:
    with pytest.raises(OutcomeUnknown, match=r"exit code 5.*about to exit"):
        await fresh.invoke("demo.exit", {"code": 5})


async def test_everything_that_a_plugin_may_ask_of_the_host(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    async with host.bus.subscribe("notes") as notes:
        with caplog.at_level(logging.WARNING, logger="loom.plugin"):
            output = (await host.invoke("demo.host")).output
        note = await next_of(notes)
    assert 0 < output.pop("remaining_ms") <= 10_000
    assert output == {
        "missing": True,
        "value": "value",
        "keys": ["key"],
        "published": 1,
        "reversed": [{"size": 2}, "ni", "lab"],
        "items": [0, 1],
        "streamed": [0, 1, 2, {"counted": 3}],
    }
    assert (note.type, note.payload, note.metadata) == ("made", b"data", {"a": "b"})
    assert (note.priority, note.source) == (7, handle(host).name)
    assert "in the middle" in handle(host).log_lines


async def test_a_refusal_of_the_host_passes_through_as_it_was(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOOR_OF_THE_TEST", "open sesame")
    assert (await host.invoke("demo.secret", {"name": "door"})).output == {"secret": "open sesame"}
    with pytest.raises(PermissionDenied) as raised:
        await host.invoke("demo.secret", {"name": "safe"})
    assert raised.value.permission == "secrets:safe"


async def test_a_call_back_into_the_host_ends_with_the_call_that_made_it(host: Host) -> None:
    lab = host.plugins["lab"]
    call = asyncio.create_task(host.invoke("demo.nested", {}, timeout_ms=1000))
    await until(lambda: lab.inflight)
    with pytest.raises(DeadlineExceeded):
        await call
    await until(lambda: not lab.inflight)
    assert handle(host).counters.restarts == 0
    assert (await host.invoke("demo.echo", {"value": 1})).output["value"] == 1


async def test_an_event_is_heard_answered_and_acknowledged(host: Host) -> None:
    before = handle(host).counters.events
    async with host.bus.subscribe("notes") as notes:
        for number in ("1", "2"):
            await host.bus.publish("room.a", Event("word", b"\x00\xff" * 320, {"n": number}))
            note = await next_of(notes)
            assert (note.type, note.payload) == ("heard", b"\x00\xff" * 320)
            assert note.metadata == {"n": number, "topic": "room.a", "attempt": "1"}
    await until(lambda: handle(host).counters.events == before + 2)


async def test_an_event_that_is_refused_is_dead_lettered(host: Host) -> None:
    async with dead_letters(host.bus) as dead:
        await host.bus.publish("room.a", Event("word", b"poison"))
        letter = await next_of(dead, 15)
    assert "will not eat that" in str(letter.metadata)


async def test_an_event_that_broke_the_plugin_is_delivered_again_after_its_restart(
    fresh: Host,
) -> None:
    async with fresh.bus.subscribe("notes") as notes:
        await fresh.bus.publish("room.a", Event("word", b"crash"))
        note = await next_of(notes, 20)
    assert (note.payload, note.metadata["attempt"]) == (b"crash", "2")
    assert handle(fresh).counters.restarts == 1


async def test_health_is_what_the_plugin_says(host: Host, language: str, tmp_path: Path) -> None:
    assert await handle(host).instance.health() == ""
    async with hosted(tmp_path, language, unwell="the microphone is gone") as unwell:
        assert await handle(unwell).instance.health() == "the microphone is gone"


async def test_the_token_is_not_left_in_the_environment(host: Host) -> None:
    names = (await host.invoke("demo.environment")).output
    assert "LOOM_SOCKET" in names
    assert "LOOM_TOKEN" not in names


async def test_a_stop_is_asked_for_and_obeyed(language: str, tmp_path: Path) -> None:
    async with hosted(tmp_path, language) as host:
        data, child = handle(host).spec.data_dir, handle(host).instance.child
    assert (data / "stopped").exists()
    assert child.exited.result() == "exit code 0"


# ---- The process without a host --------------------------------------------------------------


async def test_whoever_has_another_token_is_refused_everything(
    language: str, tmp_path: Path
) -> None:
    async with served(tmp_path, language) as child:
        assert (await child.init(tmp_path)).api_version == "1"
        for metadata in ((), (("loom-token", "guessed"),)):
            strange: dict[str, Any] = {"metadata": metadata, "timeout": 10}
            for call in (
                child.stub.Init(pb.InitRequest(api_versions=["1"]), **strange),
                child.stub.HandleEvent(pb.Event(topic="room.a"), **strange),
                child.stub.Health(pb.HealthRequest(), **strange),
                child.stub.Shutdown(pb.ShutdownRequest(), **strange),
                child.stub.Invoke(pb.ActionCall(id="1", capability="demo.echo"), **strange).read(),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await call
                assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
        status = await child.stub.Health(pb.HealthRequest(), **child.admitted)
        assert status.healthy


async def test_a_host_of_another_version_is_told_both(language: str, tmp_path: Path) -> None:
    async with served(tmp_path, language) as child:
        answer = await child.init(tmp_path, api_versions=["7", "8"])
    assert answer.error.code == "PROTOCOL_MISMATCH"
    assert "api 1" in answer.error.message
    assert "7" in answer.error.message


async def test_the_end_of_the_host_is_the_end_of_the_plugin(language: str, tmp_path: Path) -> None:
    async with served(tmp_path, language) as child:
        await child.init(tmp_path)
        assert child.process.stdin is not None
        child.process.stdin.close()
        await asyncio.wait_for(child.process.wait(), 5)
    assert not (tmp_path / "stopped").exists()


async def test_sigterm_stops_it_in_good_order(language: str, tmp_path: Path) -> None:
    async with served(tmp_path, language) as child:
        await child.init(tmp_path)
        child.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(child.process.wait(), 5) == 0
    assert (tmp_path / "stopped").exists()
