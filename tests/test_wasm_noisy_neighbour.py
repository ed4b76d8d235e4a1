"""An untrusted plugin does its worst for half a minute; those beside it do not notice.

`make soak` runs it for a minute. Both numbers of a comparison come from the same host, one right
after the other, so that what else the machine does counts on both sides.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loom_host import Host, load_settings, status
from loom_host.config import merge
from loom_host.runtimes.wasm.cache import default_folder
from loom_host.turn import Listener, settle
from loom_sdk.errors import LoomError

from .hosting import until
from .intruder_host import INTRUDER
from .support import ROOT

QUESTION = ROOT / "loom_host" / "data" / "question.wav"
MARGIN_S = 0.005
PACE_S = 0.005
"""Between two calls to the neighbour."""
TRICKS: list[tuple[str, str, int]] = [
    ("spin", "", 0),
    ("sleep", "", 0),
    ("flood_get", "", 0),
    ("flood_log", "", 0),
    ("flood_publish", "", 0),
    ("emit_flood", "", 0),
    ("bomb", "", 0),
    ("answer", "", 4_000_000),
]


@asynccontextmanager
async def voice_and_a_stranger(folder: Path) -> AsyncIterator[Host]:
    """The voice profile, warm, with a plugin that nobody should trust."""
    sink = {"sink": "wav", "sink_path": str(folder / "answer.wav")}
    tables: dict[str, Any] = {
        "extends": "voice",
        "host": {"plugin_paths": [str(INTRUDER)], "cache_dir": str(default_folder().parent)},
        "plugins": {
            "audio-io": {"config": sink},
            "intruder": {
                "quotas": {"memory": "64MiB", "deadline_ms": 1000, "output_bytes": 65_536},
                "allow": {"provide": ["intruder.*"], "publish": ["intruder.out"], "storage": True},
            },
        },
    }
    async with Host(load_settings(None, merge(tables, {}))) as host:
        await host.settled()
        await settle(host, time.monotonic() + 60)
        assert host.plugins["intruder"].spec.confined
        yield host


async def noise(host: Host) -> dict[str, int]:
    """Call the stranger, one trick after the other, until cancelled: how each ended, counted."""
    ends: dict[str, int] = {}
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            for what, of, size in TRICKS:
                name = f"{what}: {await _trick(host, what, of, size)}"
                ends[name] = ends.get(name, 0) + 1
    return ends


async def _trick(host: Host, what: str, of: str, size: int) -> str:
    arguments = {"what": what, "of": of, "text": "", "size": size}
    try:
        await host.invoke("intruder.try", arguments)
    except LoomError as error:
        return str(getattr(error, "quota", "")) or type(error).__name__
    return "nothing"


async def p99(host: Host, seconds: float) -> float:
    """Of calls to the calculator, one every few milliseconds, in seconds."""
    took, ends = [], time.monotonic() + seconds
    while time.monotonic() < ends:
        began = time.perf_counter()
        answer = await host.invoke("calculator.evaluate", {"expression": "12 * 9"})
        took.append(time.perf_counter() - began)
        assert answer.output["result"] == "108"
        await asyncio.sleep(PACE_S)
    assert len(took) > 100
    return sorted(took)[int(len(took) * 0.99)]


async def _answers(host: Host) -> None:
    """As `loom demo` asks; a host with such a plugin is never idle, so the answer is waited for."""
    async with Listener(host) as listener:
        arguments = {"path": str(QUESTION), "pace": "realtime"}
        await host.invoke("audio.stream_file", arguments, timeout_ms=60_000)
        await until(lambda: listener.turn.result, 60)
        report = listener.turn.report()
    assert report["tool"]["result"]["result"] == "108"
    assert "108" in report["answer"]


@pytest.mark.parametrize(
    "seconds",
    [pytest.param(30, marks=pytest.mark.soak), pytest.param(60, marks=pytest.mark.soak)],
)
async def test_a_stranger_that_does_its_worst_is_not_noticed(tmp_path: Path, seconds: int) -> None:
    async with voice_and_a_stranger(tmp_path) as host:
        await _answers(host)
        quiet = await p99(host, seconds / 4)
        noisy = asyncio.create_task(noise(host))
        try:
            beside = await p99(host, seconds / 2)
            await _answers(host)
            await asyncio.sleep(seconds / 4)
        finally:
            noisy.cancel()
        ends = await noisy
        print(f"p99 quiet {quiet * 1000:.2f} ms, beside {beside * 1000:.2f} ms; {ends}")
        assert beside <= quiet + MARGIN_S
        assert {end.partition(":")[0] for end in ends} == {what for what, _, _ in TRICKS}
        assert not [end for end in ends if end.endswith(": nothing")], ends
        rows = {row["name"]: row for row in status.plugin_rows(host)}
        assert rows["intruder"]["quota_hits"] >= sum(ends.values())
        assert rows["intruder"]["usage"]["abandoned_threads"] == 0
        for name, row in rows.items():
            if name != "intruder":
                assert (row["restarts"], row["quota_hits"]) == (0, 0), row
