"""Parts of the conformance kit that judge: samples of events, growth, the process, the loop."""

from __future__ import annotations

import asyncio
import importlib.util
import locale
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from loom_host.conformance.census import Census
from loom_host.conformance.checks import contract
from loom_host.conformance.kit import Fault, Skip
from loom_host.conformance.plan import Plan, StandIns
from loom_host.conformance.process_state import ProcessState
from loom_host.conformance.samples import STANDARD, garbage, samples_of, topic_of
from loom_host.conformance.soak import Soak
from loom_host.conformance.stalls import Stalls
from loom_host.manifest import Manifest
from loom_host.runtimes.base import Declaration
from loom_sdk import QoS
from loom_sdk.plugin import CapabilitySpec, SubscriptionSpec
from loom_sdk.topics import matches

MIB = 1024**2
SAY = CapabilitySpec("ear.say", effects="none")


def plan_of(*topics: str, types: tuple[str, ...] = (), seed: int = 0, **stand_ins: object) -> Plan:
    specs = tuple(SubscriptionSpec(topic, QoS.BATCHED, types) for topic in topics)
    manifest = Manifest(
        id="test/ear", version="1", type="tool", tier="native", tiers=("native",), entry="ear:Ear",
        folder=Path(), subscribes=specs,
    )  # fmt: skip
    return Plan(Path(), manifest, StandIns(**stand_ins), seed=seed)  # type: ignore[arg-type]


# -- what a plugin says at Init


class Listed:
    """A subject whose plugin.toml lists one capability."""

    plan = replace(plan_of(), manifest=replace(plan_of().manifest, capabilities=(SAY,)))


@pytest.mark.parametrize(
    ("said", "end"),
    [
        ((), "plugin.toml alone"),
        ((CapabilitySpec("ear.other", effects="none"),), "'ear.other', which plugin.toml does not"),
    ],
)
async def test_who_says_nothing_at_init_does_not_pass_for_one_that_says_the_same(
    said: tuple[CapabilitySpec, ...], end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def declaration(_: object) -> Declaration:
        return Declaration(said)

    monkeypatch.setattr(contract, "_declaration", declaration)
    with pytest.raises((Skip, Fault), match=end) as told:
        await contract.contract_offers(Listed())  # type: ignore[arg-type]
    assert isinstance(told.value, Fault if said else Skip)


async def test_schemas_that_promise_more_than_the_code_takes_are_noted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}}
    wider = {"type": "object", "properties": {"n": {"type": "integer"}}}
    said = replace(SAY, input_schema=own, output_schema={"type": "object"})
    listed = replace(SAY, input_schema=wider, output_schema={"type": "string"})

    async def declaration(_: object) -> Declaration:
        return Declaration((said,))

    class Wide:
        plan = replace(Listed.plan, manifest=replace(Listed.plan.manifest, capabilities=(listed,)))

    monkeypatch.setattr(contract, "_declaration", declaration)
    note = await contract.contract_offers(Wide())  # type: ignore[arg-type]
    assert note == (
        "ear.say: input of plugin.toml: n: maximum is None, in the code 9; "
        "ear.say: output of plugin.toml: string where the code gives object"
    )


# -- samples


@pytest.mark.parametrize("pattern", ["words", "words.*", "words.*.of", "a.>", ">"])
def test_a_made_up_topic_is_one_that_the_plugin_hears(pattern: str) -> None:
    assert matches(pattern, topic_of(pattern))


@pytest.mark.parametrize("topic", sorted(STANDARD))
def test_a_plugin_that_hears_a_standard_topic_gets_well_made_events(topic: str) -> None:
    found = samples_of(plan_of(topic))
    assert [sample.event.type for sample in found] == [kind for kind, *_ in STANDARD[topic]]
    assert {sample.topic for sample in found} == {topic}


def test_every_subscription_has_a_sample_of_a_type_that_it_takes() -> None:
    found = samples_of(plan_of("audio.*", "own.*", types=("audio_end", "mine")))
    assert [(s.spec.topic, s.event.type) for s in found] == [
        ("audio.*", "audio_end"), ("audio.*", "mine"), ("own.*", "audio_end"), ("own.*", "mine"),
    ]  # fmt: skip


def test_the_plugins_own_samples_go_before_made_up_ones() -> None:
    own = {"topic": "words.new", "type": "word", "metadata": {"n": 1}, "text": "cat"}
    (sample,) = samples_of(plan_of("words.*", events=(own, {"topic": "elsewhere"})))
    event = sample.event
    assert (sample.topic, event.type, event.payload) == ("words.new", "word", b"cat")
    assert event.metadata == {"n": "1"}


def test_garbage_is_the_same_for_the_same_seed() -> None:
    def shown(seed: int) -> list[object]:
        plan = plan_of("words.*", seed=seed)
        return [(s.topic, s.event.type, s.event.payload) for s in garbage(plan, 50)]

    assert shown(1) == shown(1) != shown(2)


def test_garbage_holds_bytes_that_are_no_text_and_numbers_that_are_none() -> None:
    events = [sample.event for sample in garbage(plan_of("audio.mic"), 200)]
    assert any(b"\xff" in event.payload for event in events)
    assert {event.metadata.get("sample_rate") for event in events} >= {"nan", "", "-1"}


# -- growth


def soak_of(calls: int, *memory: int) -> Soak:
    return Soak(Census(), [Census(one) for one in memory], calls)


@pytest.mark.parametrize(
    ("sizes", "leaks"),
    [
        ([50, 50, 50], False),
        ([50, 55, 60], True),  # 50 KB a call
        ([50, 55, 55], False),  # an allocator took more, once
        ([50, 51, 52], False),  # 10 KB a call: nobody can tell that from chance
        ([50, 55, 60, 65, 60, 65], True),  # a collector came between, once
        ([50, 55, 60, 60, 60], False),  # full, and then no more
    ],
)
def test_growth_is_a_leak_where_it_does_not_end(sizes: list[int], leaks: bool) -> None:
    assert soak_of(100, *(size * MIB for size in sizes)).leaking == leaks


# -- the host's process


def changed(before: ProcessState) -> str:
    return "; ".join(ProcessState.now().changes(before, Path("/plugin")))


def set_handler() -> None:
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda: os.environ.update(OF_A_PLUGIN="1"), "the environment (OF_A_PLUGIN)"),
        (lambda: os.environ.pop("PATH"), "the environment (PATH)"),
        (lambda: os.chdir("/"), "the working directory (/)"),
        (lambda: os.umask(0o077), "the umask (077)"),
        (lambda: sys.path.insert(0, "/elsewhere"), "sys.path"),
        (lambda: sys.path.append("/plugin"), ""),  # which the host does
        (set_handler, "the handler of SIGUSR2"),
        (lambda: logging.getLogger().addHandler(logging.NullHandler()), "the root logger"),
        (lambda: logging.getLogger().setLevel("CRITICAL"), "the root logger"),
        (lambda: locale.setlocale(locale.LC_ALL, "C.UTF-8"), "the locale (C.UTF-8)"),
        (lambda: None, ""),
    ],
)
def test_a_change_of_the_hosts_process_is_told_and_undone(
    change: Callable[[], object], told: str
) -> None:
    before = ProcessState.now()
    if "C.UTF-8" in told and before.locale == "C.UTF-8":
        locale.setlocale(locale.LC_ALL, "C")
        before = ProcessState.now()
    try:
        change()
        assert changed(before) == told
    finally:
        before.restore()
    assert changed(before) == ""


# -- the loop


def plugin_module(folder: Path) -> ModuleType:
    source = folder / "busy_plugin.py"
    source.write_text("import time\n\ndef busy(seconds):\n    time.sleep(seconds)\n")
    spec = importlib.util.spec_from_file_location("busy_plugin", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_a_plugin_that_holds_the_loop_is_told_with_the_line(tmp_path: Path) -> None:
    module = plugin_module(tmp_path)
    async with Stalls(tmp_path) as stalls:
        module.busy(0.3)
    assert 0.2 < stalls.longest_s < 2
    assert stalls.where == "busy_plugin.py:4"


async def test_many_short_turns_on_the_loop_are_no_stall(tmp_path: Path) -> None:
    module = plugin_module(tmp_path)
    async with Stalls(tmp_path) as stalls:
        for _ in range(15):
            module.busy(0.02)
            await asyncio.sleep(0.015)
    assert stalls.longest_s < 0.2


async def test_what_others_hold_the_loop_for_is_not_the_plugins(tmp_path: Path) -> None:
    async with Stalls(tmp_path) as stalls:
        time.sleep(0.3)  # noqa: ASYNC251  # what is to be seen
    assert stalls.longest_s == 0
