"""Levels of privacy: their rules, and that no chain of calls, events and storage lowers one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loom_host import privacy
from loom_host.announce import told_by
from loom_host.desk import Desk, card_of
from loom_host.grants import Audit
from loom_host.handle import PluginHandle
from loom_host.manifest import Permissions
from loom_host.privacy import DEFAULT, KEY, LEVEL_OF, LOCAL_ONLY, NAMES, PRIVATE, PUBLIC
from loom_host.runtimes.fake import FakeRuntime, Hear, Serve
from loom_host.settings import PluginSettings, Policy
from loom_host.storage import MemoryStore
from loom_sdk import Call, Event, Result
from loom_sdk.errors import (
    CapabilityNotFound,
    InvalidArguments,
    LoomError,
    NoProvider,
    PermissionDenied,
    PluginLoadError,
)
from loom_sdk.port import AsyncPort

from .hosting import Rig, handle_of, hears, next_of, offers, until

LEVELS = range(4)
BOTH = ("private", "local-only")


def test_the_levels_are_in_order_and_have_names() -> None:
    assert [LEVEL_OF[name] for name in NAMES] == list(LEVELS)
    assert privacy.parse("private", "here") == PRIVATE
    with pytest.raises(InvalidArguments, match="here: privacy 'secret' is not one of public, "):
        privacy.parse("secret", "here")


@pytest.mark.parametrize(
    ("level", "listed", "may"),
    [(0, False, True), (1, False, True), (2, False, False), (2, True, True), (3, True, False)],
)
def test_what_has_a_way_out_is_reached_up_to_sensitive_and_listed_up_to_private(
    level: int, listed: bool, may: bool
) -> None:
    assert privacy.may_send(level, listed) is may
    assert privacy.may_serve(level, "cloud", listed) is may
    assert privacy.may_serve(level, "local", listed)


@given(st.dictionaries(st.sampled_from([KEY, "routing.privacy", "k"]), st.text()))
def test_a_label_that_nobody_knows_counts_as_the_strictest(metadata: dict[str, str]) -> None:
    said = [metadata.get(key, "") for key in (KEY, "routing.privacy")]
    strange = any(text and text not in LEVEL_OF for text in said)
    assert not strange or privacy.level_of(metadata) == LOCAL_ONLY


@given(st.dictionaries(st.text(), st.text()), st.sampled_from(LEVELS))
def test_a_label_that_the_host_writes_is_the_one_that_is_read(
    metadata: dict[str, str], level: int
) -> None:
    metadata.pop("routing.privacy", None)
    labelled = privacy.labelled(metadata, level)
    assert privacy.level_of(labelled) == level
    assert {**labelled, KEY: ""} == {**metadata, KEY: ""}


@given(
    st.sampled_from(LEVELS), st.sampled_from(["", *LEVEL_OF]), st.sampled_from(["local", "cloud"])
)
def test_nothing_local_only_can_be_read_by_what_has_a_way_out(
    level: int, label: str, placement: str
) -> None:
    labels = privacy.granted([label] if label in BOTH else [])
    clear = privacy.clearance(placement, labels)
    assert placement == "local" or clear < LOCAL_ONLY
    assert clear >= DEFAULT


# -- placement


def placed(tier: str, enforcement: str = "", **fields: Any) -> str:
    """Where the host takes a plugin of strangers to be."""
    handle = stranger(handle_of("p", tier=tier, **fields))
    return handle.labels.placement(Running(enforcement) if enforcement else None)  # type: ignore[arg-type]


class Running:
    def __init__(self, network: str) -> None:
        self.enforcement = {"network": network}


def stranger(handle: PluginHandle, **changes: Any) -> PluginHandle:
    """The same, as one that is not trusted."""
    spec = replace(handle.spec, first_party=False, **changes)
    return PluginHandle(handle.manifest, handle.settings, handle.grants, spec, handle.slots)


def test_placement_is_derived_and_not_believed() -> None:
    assert handle_of("p").placement == "local"
    wants = Permissions(network=("https://api.example",))
    assert handle_of("p", permissions=wants).placement == "cloud"
    assert handle_of("p", permissions=wants, allow={}).placement == "local"  # it was not granted
    assert placed("native") == "cloud"
    assert placed("native", settings=PluginSettings(trusted=True)) == "local"
    assert placed("wasm") == placed("wasm", settings=PluginSettings(trusted=True)) == "local"
    assert placed("grpc") == placed("grpc", "enforced") == "local"
    assert placed("grpc", "partial: Unix sockets") == "cloud"
    assert placed("grpc", "unenforced", settings=PluginSettings(trusted=True)) == "cloud"
    assert stranger(handle_of("p", tier="grpc"), sandbox="none").placement == "cloud"


def test_a_manifest_can_only_lower_trust() -> None:
    handle = handle_of("p")
    for says, placement in (("cloud", "cloud"), ("local", "local")):
        told = replace(handle.manifest, placement=says)
        made = PluginHandle(told, handle.settings, handle.grants, handle.spec, handle.slots)
        assert made.placement == placement
    networked = handle_of("p", permissions=Permissions(network=("https://api.example",)))
    told = replace(networked.manifest, placement="local")
    liar = PluginHandle(told, networked.settings, networked.grants, networked.spec, networked.slots)
    assert liar.placement == "cloud"


# -- chains

NAMED = ("a", "b", "c")


class Chain:
    """Plugins that do what the steps say, one after another, each handing on the rest.

    At every step they also try to reach `out`, which has a way out.
    """

    def __init__(self) -> None:
        self.levels: list[int] = []
        self.sent: list[str] = []
        self.done = asyncio.Event()

    def serve(self, name: str) -> dict[str, Serve]:
        async def go(call: Call, services: AsyncPort) -> Result:
            await self.step(name, call.arguments["steps"], call.id, services)
            return Result("went")

        async def resume(call: Call, services: AsyncPort) -> Result:
            kept = await services.kv_get("steps")
            assert kept is not None
            await self.step(name, json.loads(kept), call.id, services)
            return Result("went")

        return {f"{name}.go": go, f"{name}.resume": resume}

    def hear(self, name: str) -> Hear:
        async def heard(event: Event, services: AsyncPort) -> None:
            await self.step(name, json.loads(event.payload), event.id, services)

        return heard

    async def step(self, name: str, steps: list[Any], call_id: str, services: AsyncPort) -> None:
        self.levels.append(self.rig.handles[name].inflight[call_id].level)
        await self.leak(call_id, services)
        if not steps:
            self.done.set()
            return
        (kind, target, lie), rest = steps[0], steps[1:]
        if kind == "invoke":
            await services.invoke(Call(f"{target}.go", {"steps": rest}, parent_call_id=call_id))
        elif kind == "publish":
            metadata = {KEY: lie} if lie else {}
            event = Event("t", json.dumps(rest).encode(), metadata, topic=f"to.{target}")
            await services.publish(event, call_id)
        else:
            await services.kv_put("steps", json.dumps(rest).encode())
            self.later = name
            self.done.set()

    async def leak(self, call_id: str, services: AsyncPort) -> None:
        with contextlib.suppress(NoProvider):
            await services.invoke(Call("out.send", {}, parent_call_id=call_id))
        await services.publish(Event("t", b"heard", topic="to.out"), call_id)

    async def run(self, steps: list[Any], level: int, trusted: bool) -> None:
        async def send(call: Call, services: AsyncPort) -> Result:
            self.sent.append("called")
            return Result("sent")

        async def out(event: Event, services: AsyncPort) -> None:
            self.sent.append("heard")

        self.rig = ChainRig(self, send, out, trusted)
        self.later = ""
        async with self.rig as rig:
            policy = Policy(privacy=NAMES[level])
            await rig.invoke("a.go", arguments={"steps": steps}, policy=policy)
            for _ in range(len(steps) + 1):
                await asyncio.wait_for(self.done.wait(), 5)
                if not self.later:
                    break
                name, self.later = self.later, ""
                self.done.clear()
                await rig.invoke(f"{name}.resume", policy=Policy(privacy="public"))
            await asyncio.sleep(0)


class ChainRig(Rig):
    def __init__(self, chain: Chain, send: Serve, out: Hear, trusted: bool) -> None:
        handles = [self.one(name, trusted) for name in NAMED]
        wants = Permissions(network=("https://api.example",))
        handles.append(
            handle_of("out", offers("out.send"), subscribes=[hears("to.out")], permissions=wants)
        )
        serve = {name: chain.serve(name) for name in NAMED} | {"out": {"out.send": send}}
        hear = {name: chain.hear(name) for name in NAMED} | {"out": out}
        super().__init__(*handles, serve=serve, hear=hear)

    @staticmethod
    def one(name: str, trusted: bool) -> PluginHandle:
        wants = Permissions(invoke=("*",), storage=True, labels=BOTH)
        handle = handle_of(
            name, offers(f"{name}.go"), offers(f"{name}.resume"),
            subscribes=[hears(f"to.{name}")], publishes=["to.*"], permissions=wants,
        )  # fmt: skip
        return handle if trusted else stranger(handle, tier="wasm")

    async def _runtime(self, tier: str) -> FakeRuntime | None:
        return self.runtime


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["invoke", "publish", "keep"]),
        st.sampled_from(NAMED[1:]),
        st.sampled_from(["", *NAMES]),
    ),
    max_size=5,
    unique_by=lambda step: step[1],  # so that no plugin waits for itself
)


@settings(max_examples=40, deadline=None)
@given(STEPS, st.sampled_from(LEVELS), st.booleans())
def test_no_chain_of_calls_events_and_storage_lowers_a_label(
    steps: list[Any], level: int, trusted: bool
) -> None:
    chain = Chain()
    asyncio.run(chain.run(steps, level, trusted))
    strictest = level
    for step, got in zip([None, *steps], chain.levels, strict=True):
        if step is not None and step[0] == "publish" and step[2]:
            strictest = max(strictest, LEVEL_OF[step[2]])
        assert got >= strictest
    if level >= PRIVATE:
        assert chain.sent == []
    else:
        assert "called" in chain.sent
        assert "heard" in chain.sent


# -- one thing at a time


async def test_an_event_of_a_private_turn_reaches_only_who_was_granted_the_label() -> None:
    wants = Permissions(labels=("private",))
    heard: list[str] = []

    def hear(name: str) -> Hear:
        async def note(event: Event, services: AsyncPort) -> None:
            heard.append(f"{name} {event.type}")

        return note

    names = ("granted", "plain")
    rig = Rig(
        handle_of("granted", subscribes=[hears("t")], permissions=wants),
        handle_of("plain", subscribes=[hears("t")]),
        hear={name: hear(name) for name in names},
    )
    async with rig, rig.bus.subscribe("loom.dead_letter") as letters:
        for level in ("private", "local-only", "sensitive"):
            await rig.bus.publish("t", Event(level, metadata={KEY: level}))
        await until(lambda: "plain sensitive" in heard and "granted sensitive" in heard)
        assert not letters.depth  # it was not even queued
    assert sorted(heard) == ["granted private", "granted sensitive", "plain sensitive"]
    lines = {(r.plugin, r.value): r.line for r in rig.audit.refusals if r.kind == "labels"}
    assert set(lines) == {("plain", "private"), ("plain", "local-only"), ("granted", "local-only")}
    assert 'labels = ["private"]' in lines["plain", "private"]


async def test_a_plugin_cannot_lower_or_forge_the_label_of_its_event() -> None:
    async def lie(call: Call, services: AsyncPort) -> Result:
        event = Event("t", metadata={KEY: call.arguments["says"]}, topic="t")
        return Result(await services.publish(event, call.id))

    rig = Rig(handle_of("p", offers("p.do"), publishes=["t"]), serve={"p": {"p.do": lie}})
    async with rig, rig.bus.subscribe("t") as seen:
        policy = Policy(privacy="private")
        for says, label in (("public", "private"), ("local-only", "local-only")):
            await rig.invoke("p.do", arguments={"says": says}, policy=policy)
            assert (await next_of(seen)).metadata[KEY] == label
        with pytest.raises(InvalidArguments, match="p, an event on t: privacy 'no'"):
            await rig.invoke("p.do", arguments={"says": "no"}, policy=policy)


async def test_a_dead_letter_keeps_its_label() -> None:
    async with Rig() as rig, rig.bus.subscribe("loom.dead_letter") as letters:
        full = rig.bus.subscribe("t", capacity=1)
        for _ in range(2):
            rig.bus.publish_nowait("t", Event("t", metadata={KEY: "local-only"}))
        assert (await next_of(letters)).metadata[KEY] == "local-only"
        full.close()


def keeper(caller: Permissions | None = None, **permissions: Any) -> tuple[Rig, dict[str, Any]]:
    """A plugin that keeps and reads a value, and one that calls it and tells its own level."""
    levels: dict[str, Any] = {}

    async def put(call: Call, services: AsyncPort) -> Result:
        await services.kv_put("k", b"v")
        return Result(None)

    async def get(call: Call, services: AsyncPort) -> Result:
        value = await services.kv_get("k")
        return Result([value.decode() if value else "", await services.kv_list("")])

    async def ask(call: Call, services: AsyncPort) -> Result:
        result = await services.invoke(Call("keeper.get", {}, parent_call_id=call.id))
        levels["caller"] = rig.handles["caller"].inflight[call.id].level
        return result

    names = ("keeper.put", "keeper.get")
    wants = Permissions(storage=True, **permissions)
    rig = Rig(
        handle_of("keeper", *map(offers, names), permissions=wants),
        handle_of("caller", offers("caller.ask"), permissions=caller or Permissions(invoke=("*",))),
        serve={"keeper": {"keeper.put": put, "keeper.get": get}, "caller": {"caller.ask": ask}},
    )
    return rig, levels


async def test_a_value_written_in_a_private_turn_raises_whoever_reads_it_and_waits_for_it() -> None:
    rig, levels = keeper(labels=BOTH)
    async with rig:
        await rig.invoke("keeper.put", policy=Policy(privacy="private"))
        result = await rig.invoke("caller.ask", policy=Policy(privacy="public"))
    assert result.output == ["v", ["k"]]
    assert levels == {"caller": PRIVATE}


@pytest.mark.parametrize("level", BOTH)
async def test_no_result_comes_back_to_what_may_not_have_it(level: str) -> None:
    """One with a way out calls one without, in a turn of no level, for what is of a strict one."""
    abroad = Permissions(invoke=("*",), network=("https://api.example",))
    rig, levels = keeper(abroad, labels=BOTH)
    async with rig:
        await rig.invoke("keeper.put", policy=Policy(privacy=level))
        with pytest.raises(PermissionDenied, match=f"caller waits for what is {level}"):
            await rig.invoke("caller.ask", policy=Policy(privacy="public"))
        assert levels == {}
        assert rig.handles["caller"].labels.seen < PRIVATE


async def test_what_has_a_floor_is_not_called_for_one_that_may_not_have_it() -> None:
    called: list[str] = []

    async def serve(call: Call, services: AsyncPort) -> Result:
        called.append(call.id)
        return Result("vitals")

    async def ask(call: Call, services: AsyncPort) -> Result:
        return await services.invoke(Call("sensor.read", {}, parent_call_id=call.id))

    abroad = Permissions(invoke=("*",), network=("https://api.example",))
    rig = Rig(
        handle_of("sensor", offers("sensor.read"), settings=PluginSettings(privacy="local-only")),
        handle_of("caller", offers("caller.ask"), permissions=abroad),
        serve={"sensor": {"sensor.read": serve}, "caller": {"caller.ask": ask}},
    )
    async with rig:
        with pytest.raises(PermissionDenied, match="caller waits for what is local-only"):
            await rig.invoke("caller.ask")
    assert called == []


async def test_a_value_written_in_a_private_turn_cannot_be_read_without_its_label() -> None:
    rig, _ = keeper()
    async with rig:
        await rig.invoke("keeper.put", policy=Policy(privacy="private"))
        same = await rig.invoke("keeper.get", policy=Policy(privacy="private"))
        assert same.output == ["v", ["k"]]  # in such a turn it needs no grant
        with pytest.raises(PermissionDenied, match="keeper may not read what is private"):
            await rig.invoke("keeper.get")
        await rig.invoke("keeper.put")
        assert (await rig.invoke("keeper.get")).output == ["v", ["k"]]  # the new value is another


async def test_a_listed_tool_with_a_way_out_serves_private_turns_never_local_only_ones() -> None:
    async def serve(call: Call, services: AsyncPort) -> Result:
        return Result("served")

    wants = Permissions(network=("https://api.example",))
    rig = Rig(
        handle_of("tool", offers("tool.do"), permissions=wants),
        serve={"tool": {"tool.do": serve}},
        policies={
            "listing": Policy(privacy="private", private_tools=("tool",)),
            "plain": Policy(privacy="private"),
            "strict": Policy(privacy="local-only", private_tools=("tool",)),
        },
    )
    async with rig:
        assert (await rig.invoke("tool.do", agent="listing")).output == "served"
        with pytest.raises(NoProvider, match=r"routing.private_tools = \[.tool.\]"):
            await rig.invoke("tool.do", agent="plain")
        with pytest.raises(NoProvider, match="nothing local-only reaches it"):
            await rig.invoke("tool.do", agent="strict")
        assert (await rig.invoke("tool.do")).output == "served"
    refused = [(r.plugin, r.kind, r.value) for r in rig.audit.refusals]
    assert refused == [("tool", "privacy", "private"), ("tool", "privacy", "local-only")]
    assert rig.audit.used["tool", "privacy", "sensitive: tool.do"] == 1


async def test_a_call_outside_of_any_carries_the_strictest_label_that_was_seen() -> None:
    async def serve(call: Call, services: AsyncPort) -> Result:
        return Result(None)

    wants = Permissions(invoke=("*",), labels=BOTH)
    way_out = Permissions(network=("https://api.example",))
    rig = Rig(
        handle_of("p", offers("p.do"), publishes=["t"], permissions=wants),
        handle_of("out", offers("out.send"), permissions=way_out),
        serve={"p": {"p.do": serve}, "out": {"out.send": serve}},
    )
    async with rig, rig.bus.subscribe("t") as seen:
        services = rig.instance("p").services
        told: list[tuple[str | None, str]] = []
        for level in ("public", "sensitive", "local-only", "public"):
            await rig.invoke("p.do", policy=Policy(privacy=level))
            await services.publish(Event("t", topic="t"), "")
            label, sent = (await next_of(seen)).metadata.get(KEY), "sent"
            try:
                await services.invoke(Call("out.send", {}))
            except NoProvider:
                sent = "refused"
            told.append((label, sent))
    assert told == [(None, "sent")] * 2 + [("local-only", "refused")] * 2


async def test_what_a_stranger_does_in_a_later_call_counts_as_what_it_saw_before() -> None:
    async def say(call: Call, services: AsyncPort) -> Result:
        return Result(await services.publish(Event("t", topic="t"), call.id))

    labels: dict[str, str | None] = {}
    for name, trusted in (("friend", True), ("stranger", False)):
        handle = handle_of("p", offers("p.do"), publishes=["t"])
        rig = AnyTier(handle if trusted else stranger(handle, tier="wasm"),
                      serve={"p": {"p.do": say}})  # fmt: skip
        async with rig, rig.bus.subscribe("t") as seen:
            for level in ("private", "sensitive"):
                await rig.invoke("p.do", policy=Policy(privacy=level))
                labels[name] = (await next_of(seen)).metadata.get(KEY)
    assert labels == {"friend": None, "stranger": "private"}


class AnyTier(Rig):
    async def _runtime(self, tier: str) -> FakeRuntime | None:
        return self.runtime


async def test_a_plugins_floor_raises_what_it_serves_and_who_called_it() -> None:
    levels: list[int] = []

    async def serve(call: Call, services: AsyncPort) -> Result:
        return Result("vitals")

    async def ask(call: Call, services: AsyncPort) -> Result:
        await services.invoke(Call("sensor.read", {}, parent_call_id=call.id))
        levels.append(rig.handles["caller"].inflight[call.id].level)
        return Result(None)

    rig = Rig(
        handle_of("sensor", offers("sensor.read"), settings=PluginSettings(privacy="local-only")),
        handle_of("caller", offers("caller.ask"), permissions=Permissions(invoke=("*",))),
        serve={"sensor": {"sensor.read": serve}, "caller": {"caller.ask": ask}},
    )
    async with rig:
        await rig.invoke("caller.ask")
    assert levels == [LOCAL_ONLY]


# -- what outlives an instance


def test_the_state_of_an_agent_keeps_its_level() -> None:
    store, card = MemoryStore(), card_of("ann", {}, 1)
    first = Desk(store, card)
    assert first.label == PUBLIC  # there is none yet
    first.write(b"{}", LOCAL_ONLY)
    store.write(first.batch())
    assert Desk(store, card).label == LOCAL_ONLY


def test_what_was_seen_outlives_an_instance_where_files_may_hold_it(tmp_path: Path) -> None:
    folder = tmp_path / "plugins" / "test" / "p"
    native = stranger(handle_of("p"), data_dir=folder)
    native.labels.open(Audit())
    native.labels.enter(LOCAL_ONLY)
    again = stranger(handle_of("p"), data_dir=folder)
    again.labels.open(Audit())
    assert again.labels.seen == LOCAL_ONLY
    guest = stranger(handle_of("p", tier="wasm"), data_dir=folder)
    guest.labels.open(Audit())
    assert guest.labels.seen == PUBLIC
    for files, seen in ((False, PUBLIC), (True, LOCAL_ONLY)):
        folder.mkdir(parents=True, exist_ok=True)
        if files:
            (folder / "notes").write_text("heard")
        child = stranger(handle_of("p", tier="grpc"), data_dir=folder, cache_dir=tmp_path / "none")
        child.labels.open(Audit())
        assert child.labels.seen == seen


def test_a_plugin_whose_files_may_hold_a_label_is_not_started_with_a_socket(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    before = stranger(handle_of("p"), data_dir=folder)
    before.labels.open(Audit())
    before.labels.enter(LOCAL_ONLY)
    dialled = handle_of("p", permissions=Permissions(network=("tcp:db.example:5432",)))
    with pytest.raises(PluginLoadError, match="its files may hold what is local-only"):
        stranger(dialled, data_dir=folder).labels.open(Audit())


async def test_http_is_refused_to_one_that_has_seen_more_than_it_may_send() -> None:
    errors: list[LoomError] = []

    async def send(call: Call, services: AsyncPort) -> Result:
        try:
            await services.http_request("GET", "http://127.0.0.1:1/", {}, b"", 100)
        except LoomError as error:
            errors.append(error)
        return Result(None)

    wants = Permissions(network=("http://127.0.0.1:1",))
    rig = Rig(
        handle_of("tool", offers("tool.do"), permissions=wants), serve={"tool": {"tool.do": send}}
    )
    async with rig:
        await rig.invoke("tool.do")
        rig.handles["tool"].inflight.clear()
        rig.handles["tool"].labels.enter(LOCAL_ONLY)
        rig.handles["tool"].labels._trusted = False
        await rig.invoke("tool.do")
    assert not isinstance(errors[0], PermissionDenied)
    assert isinstance(errors[1], PermissionDenied)
    assert errors[1].permission == "privacy:local-only"


async def test_no_plugin_answers_in_the_hosts_name() -> None:
    async def forged(call: Call, services: AsyncPort) -> Result:
        return Result({"kind": "host", "reads": "local-only"})

    rig = Rig(
        handle_of("liar", offers("loom.caller"), version="9.0.0"),
        serve={"liar": {"loom.caller": forged}},
    )
    async with rig:
        with pytest.raises(CapabilityNotFound):
            await rig.invoke("loom.caller")


async def test_words_of_a_plugin_in_the_hosts_events_bear_what_it_has_seen() -> None:
    handle = handle_of("p", offers("p.do"), permissions=Permissions(labels=BOTH))
    assert KEY not in told_by(handle, {"reason": "x"})
    handle.labels.enter(LOCAL_ONLY)
    assert told_by(handle, {"reason": "x"})[KEY] == "local-only"
