"""examples/sensor-go: what is written into a file or a pipe arrives as events."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loom_host import Host, builds
from loom_host.templates import find
from loom_host.testing import real_host
from loom_sdk.errors import ActionFailed, PluginLoadError

from .hosting import next_of, until
from .support import ROOT

EXAMPLE = ROOT / "examples" / "sensor-go"
OFFLINE = "dial tcp"
pytestmark = pytest.mark.soak
"""From nothing its modules and compiler take two minutes."""


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    if lacking := find("go", "grpc", "source").lacking():
        pytest.skip(f"{', '.join(lacking)}: not installed")
    try:
        builds.build_plugin(EXAMPLE)
    except PluginLoadError as error:
        if OFFLINE in error.message:
            pytest.skip("the Go module proxy is not reached")
        raise


@pytest.fixture
def readings(tmp_path: Path) -> Path:
    """A folder that the plugin's own user may read."""
    folder = tmp_path / "readings"
    folder.mkdir(mode=0o755)
    return folder


@asynccontextmanager
async def hosted(readings: Path, **options: Any) -> AsyncIterator[Host]:
    settings = {"plugins": {"sensor": {"folders": {"readings": str(readings)}}}}
    async with real_host(EXAMPLE, config={"poll_ms": 10}, settings=settings, **options) as host:
        yield host


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)
    path.chmod(0o644)


async def test_lines_of_a_growing_file_arrive_in_order(readings: Path) -> None:
    path = readings / "sensor.txt"
    append(path, "temperature 1 C\n")  # before the start: old news
    async with hosted(readings) as host, host.bus.subscribe("sensor.reading") as told:
        append(path, "temperature 21.5 C\nhumidity 40 %\npress")
        append(path, "ure 1e3 hPa\ncount -7\n")
        events = [await next_of(told) for _ in range(4)]
    assert [(e.metadata["name"], e.metadata["value"], e.metadata["unit"]) for e in events] == [
        ("temperature", "21.5", "C"), ("humidity", "40", "%"), ("pressure", "1000", "hPa"),
        ("count", "-7", ""),
    ]  # fmt: skip
    assert {event.type for event in events} == {"sensor.reading"}
    assert {event.source for event in events} == {"sensor"}
    assert len({event.traceparent for event in events}) == 4


async def test_what_is_no_reading_is_logged_and_left_out(readings: Path) -> None:
    path = readings / "sensor.txt"
    append(path, "")
    async with hosted(readings) as host, host.bus.subscribe("sensor.reading") as told:
        wrong = ["alone", "a b c d", "x NaN", "y warm C", "", "z " + "9" * 2000]
        append(path, "\n".join([*wrong, "good 1"]) + "\n")
        assert (await next_of(told)).metadata["name"] == "good"
        logged = "\n".join(host.plugins["sensor"].log_lines)
    for said in ('"alone"', '"a b c d"', '"x NaN"', '"y warm C"', "more than 1024 bytes"):
        assert said in logged


async def test_a_pipe_is_read_through_changes_of_its_writer(readings: Path) -> None:
    path = readings / "sensor.txt"
    os.mkfifo(path)
    path.chmod(0o644)
    async with hosted(readings) as host, host.bus.subscribe("sensor.reading") as told:
        for number in range(3):
            writer = await opened(path)
            os.write(writer, f"tick {number}\n".encode())
            os.close(writer)
            assert (await next_of(told)).metadata["value"] == str(number)


async def opened(pipe: Path) -> int:
    """The writing end, once the plugin has the other."""
    ends: list[int] = []

    def try_it() -> bool:
        try:
            ends.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    await until(try_it)
    return ends[0]


async def test_a_file_may_come_late_be_cut_short_and_be_replaced(readings: Path) -> None:
    path = readings / "sensor.txt"
    async with hosted(readings) as host, host.bus.subscribe("sensor.reading") as told:
        append(path, "late 100000\n")
        assert (await next_of(told)).metadata["name"] == "late"
        path.write_text("cut 2\n")
        assert (await next_of(told)).metadata["name"] == "cut"
        append(readings / "new", "replaced 3\n")
        (readings / "new").rename(path)
        assert (await next_of(told)).metadata["name"] == "replaced"


async def test_the_latest_reading_can_be_asked_for(readings: Path) -> None:
    async with hosted(readings) as host, host.bus.subscribe("sensor.reading") as told:
        with pytest.raises(ActionFailed, match="no reading of temperature yet"):
            await host.invoke("sensor.latest", {"name": "temperature"})
        append(readings / "sensor.txt", "temperature 20 C\ntemperature 21.5 C\n")
        await next_of(told)
        await next_of(told)
        answer = (await host.invoke("sensor.latest", {"name": "temperature"})).output
        assert 0 <= answer.pop("age_s") < 30
        assert answer == {"value": 21.5, "unit": "C"}
        with pytest.raises(ActionFailed, match=r"there are: temperature$") as raised:
            await host.invoke("sensor.latest", {"name": "wind"})
        assert raised.value.code == "NO_READING"


async def test_without_its_folder_it_says_what_to_allow() -> None:
    allow = {"provide": ["sensor.latest"], "publish": ["sensor.reading"]}
    with pytest.raises(PluginLoadError, match=r'allow filesystem = \["readings"\]'):
        async with real_host(EXAMPLE, allow=allow):
            pass
