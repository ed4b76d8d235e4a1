"""A plugin that loops, hoards memory or floods fails alone: the question is answered meanwhile."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loom_host import Host
from loom_host.turn import Turn, speak_file
from loom_sdk.errors import DeadlineExceeded, PluginError, QuotaExceeded

from .hosting import next_of, until
from .support import ROOT, within
from .test_voice_loop import RECORDINGS, transcribed, voice_host

pytestmark = pytest.mark.slow

GUESTS = ROOT / "tests" / "guests"
LIMIT_MS = 1000
EXPECTED = {
    entry["file"]: entry["expected"]
    for entry in json.loads((RECORDINGS / "index.json").read_text())
}


@dataclass(frozen=True)
class Fault:
    """What a plugin does wrong, the error that it must end in, and what is asked meanwhile."""

    capability: str
    arguments: dict[str, Any]
    error: type[PluginError]
    quota: str
    recording: str


LOOP = Fault("t.spin", {}, DeadlineExceeded, "", "piper_joe_12x9_clean.wav")
FLOOD = Fault(
    "t.big", {"size": 100_000_000}, QuotaExceeded, "output_bytes", "piper_joe_100by8_clean.wav"
)
BOMB = Fault("t.bomb", {}, QuotaExceeded, "memory", "espeak_us_f3_12x9_clean.wav")


@asynccontextmanager
async def faulty_host(tier: str, folder: Path) -> AsyncIterator[Host]:
    """The whole voice loop and, beside it, the hostile plugin in `tier`."""
    hostile = {
        "tier": tier,
        "allow": {"provide": ["t.*"]},
        "quotas": {"deadline_ms": LIMIT_MS},
    }
    changes = {"host": {"plugin_paths": [str(GUESTS)]}, "plugins": {"hostile": hostile}}
    async with voice_host(folder, **changes) as host:
        yield host


async def ends_typed(host: Host, fault: Fault) -> None:
    """The fault's error, within its limit plus half of it."""
    with within(LIMIT_MS), pytest.raises(fault.error) as caught:
        await host.invoke(fault.capability, fault.arguments)
    assert caught.value.plugin_id == "test/hostile"
    assert getattr(caught.value, "quota", "") == fault.quota


async def fault_amid_turn(host: Host, fault: Fault) -> Turn:
    """Ask by voice; call the fault while the question is spoken and again while it is answered."""
    hostile = host.plugins["hostile"]
    spoken = host.bus.subscribe("audio.out", types=["audio.first_sample"])
    async with spoken, host.bus.subscribe("utterance") as utterances:
        turning = asyncio.create_task(speak_file(host, RECORDINGS / fault.recording, "realtime"))
        await ends_typed(host, fault)
        await until(lambda: hostile.state == "ready", 10)
        await next_of(utterances, 30)
        answering_ms = time.time() * 1000
        await ends_typed(host, fault)
        turn = await turning
        assert answering_ms < float((await next_of(spoken)).metadata["unix_ms"])
    return turn


@pytest.mark.parametrize("tier", ["wasm", "grpc"])
async def test_faults_end_in_their_error_while_questions_are_answered(
    tier: str, tmp_path: Path
) -> None:
    async with faulty_host(tier, tmp_path) as host:
        others = {name: h for name, h in host.plugins.items() if name != "hostile"}
        for fault in (LOOP, FLOOD, BOMB):
            turn = await fault_amid_turn(host, fault)
            expected = EXPECTED[fault.recording]
            assert expected in turn.report()["answer"]
            assert expected in await transcribed(host, tmp_path / "answer.wav")
            await until(lambda: host.plugins["hostile"].state == "ready", 10)
        assert {name: h.state for name, h in others.items()} == dict.fromkeys(others, "ready")
        assert {h.counters.restarts for h in others.values()} == {0}
