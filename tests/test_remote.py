"""A plugin at one address: a real process on loopback, and cables that are cut."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from loom_host.endpoint import endpoint_of
from loom_host.runtimes.grpc import remote
from loom_host.runtimes.grpc.remote import RemoteInstance, start_remote
from loom_host.runtimes.grpc.resolve import Unresolved, addresses, lookup
from loom_sdk import Call, Event
from loom_sdk._proto import plugin_pb2_grpc as pb_grpc
from loom_sdk.errors import PluginCrashed

from .far import Far, far, free_port, wire
from .remote_rig import PLAIN, Names, outpost, plain, refused, spec_of, who, work
from .test_runtime_grpc import AsyncServices, Services, timed


@pytest.fixture(scope="module")
def alone() -> Iterator[Far]:
    """One that nobody ends."""
    with far("127.0.0.1:0", *PLAIN) as process:
        yield process


@pytest.fixture
def mortal() -> Iterator[Far]:
    """One that a test may spoil."""
    with far("127.0.0.1:0", *PLAIN) as process:
        yield process


async def test_calls_events_and_asks_travel_as_with_a_child(alone: Far) -> None:
    port = Services()
    async with outpost(plain(alone.address), port=port) as instance:
        said = await who(instance)
        assert said["pid"] == alone.pid
        assert said["folders"] == ["", ""]
        assert await instance.handle_event(Event("note", topic="notes.far")) >= 0
        answer = await instance.invoke(Call("outpost.ask", {"topic": "notes.near"}))
        assert answer.output == {"kept": "from afar"}
        assert port.store == {"seen": b"from afar"}
        assert [event.topic for event in port.published] == ["notes.near"]
        assert await instance.health() == ""
        assert instance.enforcement["memory"] == "unenforced: remote"
        assert instance.enforcement["rate"] == "enforced"


async def test_the_machine_s_own_resolver_finds_it(alone: Far) -> None:
    where = plain(f"dns:///localhost:{alone.port}")
    async with outpost(where, lookup) as instance:
        assert (await who(instance))["pid"] == alone.pid
        assert [str(replica.address) for replica in instance.replicas] == [alone.address]


async def test_each_address_is_one_replica_and_bears_its_name() -> None:
    tls = {"ca": "/ca", "cert": "/cert", "key": "/key"}
    one = endpoint_of("dns:///stt.example.:5", tls, False, 10.0)
    found = await addresses(one, Names("10.0.0.7", "10.0.0.8", "10.0.0.7"))
    assert [(str(a), a.name, a.uri) for a in found] == [
        ("10.0.0.7:5", "stt.example", "ipv4:10.0.0.7:5"),
        ("10.0.0.8:5", "stt.example", "ipv4:10.0.0.8:5"),
    ]
    literal = endpoint_of("ipv6:[fd00::1]:5", {**tls, "name": "stt"}, False, 10.0)
    (only,) = await addresses(literal, Names())
    assert (only.name, only.uri) == ("stt", "ipv6:[fd00::1]:5")
    with pytest.raises(Unresolved, match="the name stt.example. is not found"):
        await addresses(one, Names())


async def test_deadline_and_cancellation_reach_it(alone: Far) -> None:
    async with outpost(plain(alone.address), deadline_ms=300) as instance:
        call = Call("outpost.who", {}, remaining_ms=777)
        assert 0 < (await instance.invoke(call)).output["remaining_ms"] <= 777

        hang = Call("outpost.hang", {}, remaining_ms=300)
        seconds, error = await timed(in_time(instance, hang, 0.3))
        assert isinstance(error, TimeoutError)
        assert seconds < 0.3 + 0.25

        async def told() -> bool:
            answer = await instance.invoke(Call("outpost.heard", {}))
            return "told to stop" in answer.output["heard"]

        async with asyncio.timeout(3):
            while not await told():  # noqa: ASYNC110  # another process does not set our events
                await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_work_that_does_not_stop_costs_the_replica_its_session(
    mortal: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loom_host.runtimes.grpc.replica.STUCK_S", 0.2)
    async with outpost(plain(mortal.address)) as instance:
        before = (await who(instance))["object"]
        hang = Call("outpost.hang", {"stubborn": True}, remaining_ms=100)
        seconds, error = await timed(in_time(instance, hang, 0.1))
        assert isinstance(error, TimeoutError)
        assert seconds < 0.1 + 0.25 + 0.2
        async with asyncio.timeout(5):
            assert "a cancelled call did not stop" in await instance.wait_exit()
    async with outpost(plain(mortal.address)) as instance:
        assert (await who(instance))["object"] != before


async def test_each_session_has_an_object_of_its_own_and_ends_it(alone: Far) -> None:
    async with outpost(plain(alone.address)) as one, outpost(plain(alone.address)) as two:
        first, second = await who(one), await who(two)
        assert first["pid"] == second["pid"]
        assert first["object"] != second["object"]
        assert second["calls"] == 1
        ended = second["stopped"]
    async with outpost(plain(alone.address)) as three:
        assert (await who(three))["stopped"] == ended + 2


async def test_a_plugin_that_keeps_state_serves_one_host_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote, "REACH_S", 0.5)
    with far("127.0.0.1:0", *PLAIN, "--instances", "single") as process:
        where = plain(process.address)
        async with outpost(where, instances="single") as instance:
            assert (await who(instance))["pid"] == process.pid
            spec = spec_of(where, instances="single")
            services: Any = AsyncServices(Services())
            slow = asyncio.create_task(start_remote(spec, services))
            await asyncio.sleep(0.3)
            assert not slow.done()
        second = await slow  # once the first has left
        assert (await who(second))["calls"] == 1
        await second.aclose(1)


async def test_one_that_is_not_there_is_told_and_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote, "REACH_S", 0.5)
    where = plain(f"127.0.0.1:{free_port()}")
    with pytest.raises(PluginCrashed, match="is not reached.*start it, or correct `address`"):
        async with outpost(where):
            pass
    with pytest.raises(PluginCrashed, match="the name localhost is not found"):
        async with outpost(plain("localhost:50051"), Names()):
            pass


async def test_a_plugin_without_session_is_refused_with_what_to_do() -> None:
    server = grpc.aio.server()
    pb_grpc.add_PluginServicer_to_server(pb_grpc.PluginServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        message = await refused(plain(f"127.0.0.1:{port}"))
    finally:
        await server.stop(0)
    assert "UNIMPLEMENTED to Session" in message
    assert "--listen" in message


# ---- The network -----------------------------------------------------------------------------


async def test_a_cut_cable_is_noticed_within_the_keepalive(alone: Far) -> None:
    async with wire(alone.port) as between:
        where = plain(f"127.0.0.1:{between.port}", keepalive_s=1.0)
        async with outpost(where) as instance:
            call = asyncio.create_task(work(instance, 20_000))
            await asyncio.sleep(0.1)
            between.cut()
            seconds, error = await timed(_of(call))
            assert seconds < 1.0 + 0.25
            assert isinstance(error, PluginCrashed)
            assert "answered nothing for 0.5 s" in error.message
            async with asyncio.timeout(1):
                assert "no replica is left" in await instance.wait_exit()


async def in_time(instance: RemoteInstance, call: Call, seconds: float) -> Any:
    async with asyncio.timeout(seconds):
        return await instance.invoke(call)


@pytest.mark.slow
async def test_a_host_behind_a_cut_cable_gives_its_place_up() -> None:
    single = ("--instances", "single", "--keepalive", "2")
    with far("127.0.0.1:0", *PLAIN, *single) as process:
        async with wire(process.port) as between:
            where = plain(f"127.0.0.1:{between.port}", keepalive_s=1.0)
            async with outpost(where, instances="single") as lost:
                between.cut()
                async with asyncio.timeout(2):
                    await lost.wait_exit()
                async with outpost(plain(process.address), instances="single") as instance:
                    assert (await who(instance))["calls"] == 1


async def _of(task: asyncio.Task[Any]) -> Any:
    return await task
