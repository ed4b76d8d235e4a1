"""Several replicas of a remote plugin: load, streams, losses, names that change."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from loom_host.endpoint import Endpoint
from loom_host.runtimes.grpc import replicas
from loom_host.runtimes.grpc.remote import RemoteInstance
from loom_sdk import Call, Event
from loom_sdk.errors import PluginCrashed

from .far import Far, far, two_far
from .hosting import until
from .remote_rig import PLAIN, Names, outpost, plain, refused, work


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Far, Far]]:
    """Two that nobody ends."""
    with two_far(*PLAIN) as processes:
        yield processes


@pytest.fixture
def mortals() -> Iterator[tuple[Far, Far]]:
    """Two that a test may end."""
    with two_far(*PLAIN) as processes:
        yield processes


def both(pair: tuple[Far, Far]) -> Endpoint:
    return plain(f"ipv4:{pair[0].address},{pair[1].address}")


async def test_a_plugin_that_keeps_state_refuses_a_second_address(pair: tuple[Far, Far]) -> None:
    where = plain(f"localhost:{pair[0].port}")
    message = await refused(where, Names("127.0.0.1", "127.0.0.2"), instances="single")
    assert 'keeps state (instances = "single")' in message
    assert "127.0.0.2" in message


async def test_calls_go_where_the_fewest_are(pair: tuple[Far, Far]) -> None:
    async with outpost(both(pair)) as instance:
        await until(lambda: len(instance.replicas.ready) == 2)
        slow = [asyncio.create_task(work(instance, 700)) for _ in range(4)]
        await asyncio.sleep(0.05)
        assert [replica.outstanding for replica in instance.replicas] == [2, 2]
        quick = Counter([await work(instance, 1) for _ in range(10)])
        assert set(quick.values()) == {5}
        assert Counter(await asyncio.gather(*slow)) == {pair[0].pid: 2, pair[1].pid: 2}


async def test_events_of_a_stream_stay_at_one_replica_until_it_is_gone(
    mortals: tuple[Far, Far],
) -> None:
    async with outpost(both(mortals)) as instance:
        await until(lambda: len(instance.replicas.ready) == 2)
        streams = [f"s{number}" for number in range(6)]
        await _tell(instance, streams * 4)
        heard = {
            (await replica.invoke(Call("outpost.heard", {}))).output["pid"]: (
                await replica.invoke(Call("outpost.heard", {}))
            ).output["heard"]
            for replica in instance.replicas.ready
        }
        one, two = (set(heard[process.pid]) for process in mortals)
        assert one | two == set(streams)
        assert not one & two
        assert one
        assert two
        assert all(Counter(told).most_common()[-1][1] == 4 for told in heard.values())

        mortals[0].kill()
        await until(lambda: len(instance.replicas.ready) == 1)
        await _tell(instance, streams)
        (left,) = instance.replicas.ready
        answer = await left.invoke(Call("outpost.heard", {}))
        assert set(answer.output["heard"]) == set(streams)


async def _tell(instance: RemoteInstance, streams: list[str]) -> None:
    for stream in streams:
        await instance.handle_event(
            Event("note", metadata={"stream_id": stream}, topic="notes.far")
        )


async def test_a_killed_replica_ends_its_calls_at_once_and_is_used_again_when_back(
    mortals: tuple[Far, Far],
) -> None:
    one, two = mortals
    async with outpost(both(mortals)) as instance:
        await until(lambda: len(instance.replicas.ready) == 2)
        calls = [asyncio.create_task(work(instance, 1500)) for _ in range(4)]
        await asyncio.sleep(0.1)
        began = time.monotonic()
        os.kill(one.pid, signal.SIGKILL)
        done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_EXCEPTION)
        assert time.monotonic() - began < 0.5
        await asyncio.sleep(0.05)
        lost = [call.exception() for call in calls if call.done()]
        assert len(lost) == 2
        for error in lost:
            assert isinstance(error, PluginCrashed)
            assert one.address in error.message
        assert "1 of 2 replicas are away" in await instance.health()
        assert [await work(instance, 1) for _ in range(3)] == [two.pid] * 3
        rest = await asyncio.gather(*(c for c in calls if c not in done or not c.exception()))
        assert rest == [two.pid] * 2

        with far(one.address, *PLAIN) as back:
            await until(lambda: len(instance.replicas.ready) == 2)
            assert await instance.health() == ""
            pids = {await work(instance, 1) for _ in range(4)}
            assert pids == {back.pid, two.pid}


async def test_the_name_is_asked_again_and_what_it_drops_is_drained(
    pair: tuple[Far, Far], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "RESOLVE_EVERY_S", 0.1)
    names = Names("127.0.0.1")
    async with outpost(plain(f"localhost:{pair[0].port}"), names) as instance:
        assert {await work(instance, 1) for _ in range(4)} == {pair[0].pid}
        last = asyncio.create_task(work(instance, 600))
        await asyncio.sleep(0.05)
        names.addresses = ["127.0.0.2"]
        await until(lambda: [str(r.address) for r in instance.replicas.ready] == [pair[1].address])
        assert await work(instance, 1) == pair[1].pid
        assert not last.done()
        assert await last == pair[0].pid
        names.addresses = []
        asked = names.asked
        await until(lambda: names.asked > asked + 1)
        assert await work(instance, 1) == pair[1].pid  # what was known stays
        assert "is not found" in await instance.health()


@pytest.mark.slow
async def test_a_drained_replica_gets_nothing_new_and_ends_what_it_has(
    mortals: tuple[Far, Far],
) -> None:
    async with outpost(both(mortals)) as instance:
        await until(lambda: len(instance.replicas.ready) == 2)
        calls = [asyncio.create_task(work(instance, 2000)) for _ in range(4)]
        await asyncio.sleep(0.1)
        mortals[0].send(signal.SIGTERM)
        await until(lambda: len(instance.replicas.ready) == 1)
        assert {await work(instance, 1) for _ in range(4)} == {mortals[1].pid}
        assert Counter(await asyncio.gather(*calls)) == {mortals[0].pid: 2, mortals[1].pid: 2}
        await asyncio.to_thread(mortals[0].end)
        assert mortals[0].code == 0
