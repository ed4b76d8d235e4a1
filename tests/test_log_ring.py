"""The last log entries of plugins: bounded, and followed without holding up who writes."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from loom_host.telemetry.ring import ENTRY_BYTES, PLUGINS_MAX, RING, Kept, Ring


def entry_of(record: logging.LogRecord) -> dict[str, Any]:
    return {
        "time": f"{record.created:020.6f}",
        "level": record.levelname.lower(),
        "plugin": vars(record).get("plugin", ""),
        "message": record.getMessage(),
    }


def say(ring: Ring, plugin: str, message: str, level: int = logging.INFO) -> None:
    record = logging.LogRecord("loom", level, "", 0, message, (), None)
    record.plugin = plugin
    ring.handle(record)


def texts(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["message"] for entry in entries]


@given(st.lists(st.integers(0, 3000), max_size=60), st.integers(1, 20), st.integers(1, 20_000))
def test_what_is_kept_is_the_newest_and_fits(sizes: list[int], most: int, room: int) -> None:
    kept = Kept(most, room)
    gone = sum(kept.add({"message": "x" * size, "number": n}) for n, size in enumerate(sizes))
    entries = kept.entries()
    assert gone + len(entries) == len(sizes)
    assert [e["number"] for e in entries] == list(range(gone, len(sizes)))
    assert len(entries) <= most
    used = sum(ENTRY_BYTES + len(e["message"]) + len(str(e["number"])) for e in entries)
    assert used <= room or len(entries) == 1
    assert kept.take() == entries
    assert kept.entries() == []


async def test_a_follower_gets_what_comes_after_what_was_there() -> None:
    ring = Ring(entry_of)
    say(ring, "a", "one")
    say(ring, "b", "other")
    kept, follower = ring.follow("a", logging.INFO)
    assert texts(kept) == ["one"]
    say(ring, "a", "quiet", logging.DEBUG)
    say(ring, "", "the host's own")
    say(ring, "b", "other")
    say(ring, "a", "two")
    missed, entries = await follower.take()
    assert (missed, texts(entries)) == (0, ["two"])
    ring.unfollow(follower)
    say(ring, "a", "three")
    waiting = asyncio.ensure_future(follower.take())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    waiting.cancel()


async def test_followers_of_all_do_not_get_the_hosts_own_lines() -> None:
    ring = Ring(entry_of)
    say(ring, "", "the host's own")
    say(ring, "a", "one")
    kept, follower = ring.follow(None, logging.DEBUG)
    assert texts(kept) == ["one"]
    say(ring, "", "the host's own")
    say(ring, "b", "two")
    assert texts((await follower.take())[1]) == ["two"]


async def test_a_follower_that_is_late_is_told_how_many_it_missed() -> None:
    ring = Ring(entry_of)
    _, follower = ring.follow("a", logging.INFO)
    for number in range(RING + 30):
        say(ring, "a", str(number))
    missed, entries = await follower.take()
    assert missed == 30
    assert texts(entries) == [str(number) for number in range(30, RING + 30)]
    say(ring, "a", "on time")
    assert await follower.take() == (0, [entries[-1] | ring.entries("a")[-1]])


async def test_lines_from_threads_reach_a_follower() -> None:
    ring = Ring(entry_of)
    _, follower = ring.follow("a", logging.INFO)

    def chat() -> None:
        for _ in range(50):
            say(ring, "a", "x")

    threads = [threading.Thread(target=chat) for _ in range(4)]
    for thread in threads:
        thread.start()
    found: list[str] = []
    async with asyncio.timeout(10):
        while len(found) < 200:
            found += texts((await follower.take())[1])
    for thread in threads:
        thread.join()
    assert found == ["x"] * 200


def test_beyond_so_many_plugins_lines_are_kept_with_the_hosts() -> None:
    ring = Ring(entry_of)
    for number in range(PLUGINS_MAX + 1):
        say(ring, f"p{number}", str(number))
    assert texts(ring.entries("")) == [str(PLUGINS_MAX)]
    assert len(ring.entries(None)) == PLUGINS_MAX + 1
