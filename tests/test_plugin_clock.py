"""The clock: places, words, and timers that ring once, also after a restart."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_host import Host, QoS, load_settings
from loom_host.storage import MemoryStore
from loom_sdk.errors import ActionFailed

from .hosting import host_tables
from .support import load_plugin, run_capability, start

ALLOW = {"provide": ["clock.*"], "publish": ["clock"], "storage": True}


def clock_host(folder: Path, store: MemoryStore | None = None, **config: Any) -> Host:
    tables = host_tables(folder)
    tables["plugins"] = {"clock": {"allow": ALLOW, "config": config}}
    return Host(load_settings(None, tables), store=store)


def now(**arguments: Any) -> dict[str, Any]:
    plugin = load_plugin("native", "clock", timezone="Europe/Berlin")
    output: dict[str, Any] = run_capability(plugin, "clock.now", arguments).output
    return output


@pytest.mark.parametrize(
    ("place", "zone"),
    [
        ("Tokyo", "Asia/Tokyo"),
        ("new york", "America/New_York"),
        ("San Francisco", "America/Los_Angeles"),
        ("São Paulo", "America/Sao_Paulo"),
        ("Paris, France", "Europe/Paris"),
        ("Kenya", "Africa/Nairobi"),
        ("United States", "America/New_York"),
        ("Asia/Kolkata", "Asia/Kolkata"),
        ("UTC", "UTC"),
    ],
)
def test_a_place_has_the_time_of_its_zone(place: str, zone: str) -> None:
    answer = now(place=place)
    assert answer["timezone"] == zone
    told = datetime.fromisoformat(answer["iso"])
    assert told.utcoffset() == datetime.now(ZoneInfo(zone)).utcoffset()
    assert abs(told.timestamp() - time.time()) < 5


def test_without_a_place_it_is_the_time_at_home() -> None:
    answer = now()
    assert answer["timezone"] == "Europe/Berlin"
    assert answer["speech"].startswith("It is ")


def test_an_unknown_place_says_what_to_name_instead() -> None:
    with pytest.raises(ActionFailed, match="name a larger city") as raised:
        now(place="Nowhere at all")
    assert raised.value.code == "UNKNOWN_PLACE"


def test_a_wrong_zone_at_home_is_refused_at_the_start() -> None:
    with pytest.raises(ActionFailed, match="Mars/Olympus"):
        start(load_plugin("native", "clock", timezone="Mars/Olympus"))


@given(st.integers(min_value=1, max_value=10_000_000))
def test_a_duration_in_words_adds_up(seconds: int) -> None:
    load_plugin("native", "clock")
    from clock_words import duration  # type: ignore[import-not-found]

    sizes = {"day": 86_400, "hour": 3600, "minute": 60, "second": 1}
    parts = [p.split() for p in duration(seconds).replace(" and ", ", ").split(", ")]
    assert sum(int(count) * sizes[name.removesuffix("s")] for count, name in parts) == seconds
    assert all((count == "1") is not name.endswith("s") for count, name in parts)


async def test_a_timer_rings_once_and_is_forgotten(tmp_path: Path) -> None:
    async with clock_host(tmp_path) as host:
        async with host.bus.subscribe("clock", qos=QoS.BATCHED) as events:
            began = time.monotonic()
            set_to = await host.invoke("clock.timer", {"seconds": 1, "name": "tea"})
            assert set_to.output["speech"] == "tea timer set for 1 second."
            running = (await host.invoke("clock.timers", {})).output["timers"]
            assert [timer["name"] for timer in running] == ["tea"]
            event = await anext(events)
        assert time.monotonic() - began >= 0.99
        assert (event.type, event.metadata["text"]) == ("timer.done", "Time is up: tea.")
        assert (await host.invoke("clock.timers", {})).output["timers"] == []


async def test_a_cancelled_timer_does_not_ring(tmp_path: Path) -> None:
    async with clock_host(tmp_path) as host:
        async with host.bus.subscribe("clock", qos=QoS.BATCHED) as events:
            for seconds in (1, 2):
                await host.invoke("clock.timer", {"seconds": seconds})
            assert (await host.invoke("clock.cancel", {"id": 1})).output["cancelled"] == 1
            assert (await anext(events)).metadata["id"] == "2"
        assert (await host.invoke("clock.cancel", {})).output["cancelled"] == 0


async def test_one_timer_too_many_is_refused(tmp_path: Path) -> None:
    async with clock_host(tmp_path, max_timers=1) as host:
        await host.invoke("clock.timer", {"seconds": 60})
        with pytest.raises(ActionFailed, match="cancel one first"):
            await host.invoke("clock.timer", {"seconds": 60})


async def test_a_timer_that_ended_while_the_plugin_was_away_rings_at_its_start() -> None:
    plugin = load_plugin("native", "clock")
    from .support import FakePort, driver_of

    port = FakePort()
    timer = {"id": 7, "name": "", "seconds": 90, "due": time.time() - 30}
    port.store["timer/0000000007"] = json.dumps(timer).encode()
    driver = driver_of(plugin, port)
    begin, context, _ = driver.lifecycle("start")
    await begin(context)
    (waiting,) = plugin._waiting.values()  # type: ignore[attr-defined]
    await waiting
    (event,) = port.published
    assert event.metadata["text"] == "Time is up: 1 minute and 30 seconds."
    assert 29 < float(event.metadata["late_s"]) < 60
    assert port.store == {}
