"""memory in a real host, with real embeddings: whose it is, how private, gone when forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loom_host import Event, Host, load_settings
from loom_host.discovery import code_hash
from loom_sdk import Result
from loom_sdk.context_builder import build, estimate
from loom_sdk.errors import InvalidArguments, PermissionDenied, StorageError
from loom_sdk.models import models_dir

from .support import FakePort, load_plugin, run_capability, start

pytest.importorskip("apsw", reason="needs loom-host[memory]")
pytest.importorskip("sqlite_vec", reason="needs loom-host[memory]")

MANIFEST = """
[plugin]
id = "test/{name}"
version = "1"
api = "1"
type = "tool"
tier = "native"
entry = "memory_relay_{name}:Relay"
[[capability]]
name = "{name}.relay"
effects = "once"
[permissions]
invoke = ["memory.*", "*.relay"]
[quotas]
concurrency = 4
"""
CODE = """
from loom_sdk import Plugin, capability

class Relay(Plugin):
    @capability("{name}.relay")
    def relay(self, ctx, to: str, arguments: dict) -> dict:
        return ctx.invoke(to, arguments).output
"""
POLICIES = {
    level: {"parameters": {"routing": {"privacy": level}}}
    for level in ("sensitive", "private", "local-only")
}


def relay(folder: Path, name: str, **table: Any) -> dict[str, Any]:
    """A plugin that invokes what it is told to."""
    place = folder / "plugins" / name
    place.mkdir(parents=True)
    (place / "plugin.toml").write_text(MANIFEST.format(name=name))
    (place / f"memory_relay_{name}.py").write_text(CODE.format(name=name))
    allow = {"provide": ["*"], "invoke": ["memory.*", "*.relay"], **table.pop("allow", {})}
    return {"trusted": True, "code": code_hash(place), "allow": allow, **table}


def memory_host(folder: Path, *, memory: Mapping[str, Any] | None = None, **tables: Any) -> Host:
    """A host with the memory and its embeddings; `one` and `two` are plugins that call it."""
    pytest.importorskip("tokenizers", reason="needs loom-host[voice]")
    if not (models_dir() / "minilm-l6-v2").is_dir():
        pytest.skip("needs `loom models pull minilm-l6-v2`")
    plugins = tables.pop("plugins", None) or {n: relay(folder, n) for n in ("one", "two")}
    allow = {"provide": ["memory.*"], "invoke": ["embed.text", "loom.caller", "loom.forget"]}
    return Host(
        load_settings(
            None,
            {
                "host": {
                    "plugin_paths": [str(folder / "plugins")],
                    "data_dir": str(folder / "data"),
                    "cache_dir": str(folder / "cache"),
                    "runtime_dir": str(folder / "run"),
                },
                "telemetry": {"log_level": "error"},
                "plugins": {
                    "memory": {"tier": "native", "allow": allow, **(memory or {})},
                    "embed-minilm": {"allow": {"provide": ["embed.text"]}},
                    **plugins,
                },
                **tables,
            },
        )
    )


async def by(host: Host, name: str, what: str, agent: str = "", **arguments: Any) -> Any:
    """What the plugin `name` gets when it invokes `memory.WHAT`."""
    told = {"to": f"memory.{what}", "arguments": arguments}
    return (await host.invoke(f"{name}.relay", told, agent=agent)).output


async def host_search(host: Host, **arguments: Any) -> Any:
    """What the operator finds."""
    return (await host.invoke("memory.search", arguments)).output


def texts(answer: Mapping[str, Any]) -> list[str]:
    return [item["text"] for item in answer["items"]]


def said(*lines: str, **fields: Any) -> list[dict[str, Any]]:
    return [{"text": text, "time_ms": i + 1, **fields} for i, text in enumerate(lines)]


@pytest.mark.parametrize("tier", ["native", "grpc"])
async def test_what_was_said_is_found_by_meaning_and_by_time(tmp_path: Path, tier: str) -> None:
    lines = said("I only ever drink green tea.", "My car broke down in Ulm.", "Zoë plays the harp.")
    async with memory_host(tmp_path, memory={"tier": tier}) as host:
        answer = await by(host, "one", "append", items=lines)
        assert answer == {"ids": [1, 2, 3], "embedded": True}
        found = await by(host, "one", "search", query="Which beverage do I like?", k=2)
        assert found["kind"] == "semantic"
        assert texts(found)[0] == lines[0]["text"]
        scores = [item["score"] for item in found["items"]]
        assert scores == sorted(scores, reverse=True)
        found = await by(host, "one", "search", query="a musical instrument", min_score=0.3)
        assert texts(found) == [lines[2]["text"]]
        found = await by(host, "one", "search", until_ms=3)
        assert (found["kind"], texts(found)) == ("episodic", texts({"items": lines[:2]}))
    async with memory_host(tmp_path / "again", memory={"tier": tier}) as host:
        assert texts(await host_search(host)) == []


async def test_it_outlives_the_host(tmp_path: Path) -> None:
    plugins = {"one": relay(tmp_path, "one")}
    async with memory_host(tmp_path, plugins=plugins) as host:
        await by(host, "one", "append", items=said("still here", metadata={"mood": "calm"}))
    async with memory_host(tmp_path, plugins=plugins) as host:
        (item,) = (await by(host, "one", "search", query="are you there?"))["items"]
        assert (item["text"], item["metadata"]) == ("still here", {"mood": "calm"})


async def test_each_plugin_has_a_memory_of_its_own(tmp_path: Path) -> None:
    async with memory_host(tmp_path) as host:
        await by(host, "one", "append", items=said("one's secret"))
        assert texts(await by(host, "two", "search", query="secret")) == []
        assert texts(await by(host, "two", "search")) == []
        with pytest.raises(PermissionDenied, match='"plugin/one" = \\["plugin/two"\\]'):
            await by(host, "two", "search", spaces=["plugin/one"])
        assert (await by(host, "two", "forget", ids=[1]))["items"] == 0
        with pytest.raises(PermissionDenied, match="the operator may"):
            await by(host, "two", "forget", ids=[1], spaces=["plugin/one"])
        (item,) = (await host_search(host, query="secret"))["items"]  # the operator sees all
        assert item["space"] == "plugin/one"


async def test_a_memory_is_shared_where_the_operator_says_so(tmp_path: Path) -> None:
    shared = {"config": {"shared": {"plugin/one": ["plugin/two"]}}}
    async with memory_host(tmp_path, memory=shared) as host:
        await by(host, "one", "append", items=said("from one"))
        await by(host, "two", "append", items=said("from two"))
        assert texts(await by(host, "two", "search", spaces=["plugin/one"])) == ["from one"]
        both = await by(host, "two", "search", query="from", spaces=["plugin/one", "plugin/two"])
        assert sorted(texts(both)) == ["from one", "from two"]
        with pytest.raises(PermissionDenied):
            await by(host, "one", "search", spaces=["plugin/two"])


async def test_an_agent_is_known_by_its_name(tmp_path: Path) -> None:
    agents = {"ann": {"plugin": "one"}}
    async with memory_host(tmp_path, agents=agents) as host:
        await by(host, "one", "append", items=said("hello"))
        (item,) = (await host_search(host))["items"]
        assert (item["space"], item["privacy"]) == ("agent/ann", "sensitive")


async def test_a_private_turn_is_read_only_in_one_and_by_who_may(tmp_path: Path) -> None:
    plugins = {
        "one": relay(tmp_path, "one", allow={"labels": ["private"]}),
        "two": relay(tmp_path, "two"),
    }
    manifest = tmp_path / "plugins" / "one" / "plugin.toml"
    asks = '[permissions]\nlabels = ["private", "local-only"]'
    manifest.write_text(manifest.read_text().replace("[permissions]", asks))
    plugins["one"]["code"] = code_hash(manifest.parent)
    async with memory_host(tmp_path, plugins=plugins, agents=POLICIES) as host:
        await by(host, "one", "append", items=said("my shoe size is 43"))
        for level in ("private", "local-only"):
            await by(host, "one", "append", level, items=said(f"my {level} diagnosis"))
        plain, private = "my shoe size is 43", "my private diagnosis"
        for arguments in ({"query": "what about me?"}, {}):
            found = {
                level: sorted(texts(await by(host, "one", "search", level, **arguments)))
                for level in POLICIES
            }
            # Its grant ends at private, so a local-only turn gives it no more than that.
            assert found == {
                "sensitive": [plain], "private": [private, plain], "local-only": [private, plain],
            }  # fmt: skip
        labels = {i["text"]: i["privacy"] for i in (await host_search(host))["items"]}
        assert labels == {
            plain: "sensitive", private: "private", "my local-only diagnosis": "local-only",
        }  # fmt: skip
        await by(host, "two", "append", "private", items=said("two's diagnosis"))
        assert texts(await by(host, "two", "search", "private")) == []  # without the label


async def test_what_waits_is_not_embedded_in_a_less_private_turn(tmp_path: Path) -> None:
    tables = {"agents": POLICIES, "plugins": {"one": relay(tmp_path, "one")}}
    async with memory_host(tmp_path, **tables) as host:
        await host.disable("embed-minilm", "for a test")
        for level in ("sensitive", "private"):
            answer = await by(host, "one", "append", level, items=said(f"{level} words"))
            assert answer["embedded"] is False
        await host.enable("embed-minilm")
        found = await host.invoke("memory.search", {"query": "words"}, agent="sensitive")
        assert texts(found.output) == ["sensitive words"]
        found = await host.invoke("memory.search", {"query": "words"}, agent="private")
        assert sorted(texts(found.output)) == ["private words", "sensitive words"]


@pytest.mark.parametrize("tier", ["native", "grpc"])
async def test_a_user_is_forgotten_in_store_index_and_log(tmp_path: Path, tier: str) -> None:
    from loom_host.storage import RocksStore

    plugins = {name: relay(tmp_path, name) for name in ("one", "two")}
    log = {"topics": ["transcript"]}
    host = memory_host(tmp_path, memory={"tier": tier}, plugins=plugins, event_log=log)
    host = Host(host.settings, store=RocksStore(tmp_path / "data" / "store"))
    async with host:
        for number, user in enumerate(["ann", "bob"] * 10):
            words = f"xyzzy-{user} likes number {number}"
            who = "one" if number % 3 else "two"
            await by(host, who, "append", items=said(words, user=user, session=f"s-{user}"))
            heard = Event("transcript.final", words.encode(), {"user": user})
            await host.bus.publish("transcript", heard)
        vector = await host.invoke("embed.text", {"texts": ["xyzzy-ann likes number 0"]})
        pieces = [vector.payload[i : i + 16] for i in range(0, len(vector.payload), 16)]
        assert b"xyzzy-ann" in raw(tmp_path)
        assert all(piece in raw(tmp_path) for piece in pieces[:8])
        answer = (await host.invoke("memory.forget", {"user": "ann"})).output
        assert answer == {"items": 10, "events": 10}
        left = raw(tmp_path)
        assert b"xyzzy-ann" not in left
        assert b"s-ann" not in left
        assert not any(piece in left for piece in pieces)
        assert all("bob" in text for text in texts(await host_search(host, query="ann", k=50)))
        assert len(texts(await host_search(host, k=50))) == 10
    assert b"xyzzy-ann" not in raw(tmp_path)
    assert b"xyzzy-bob" in raw(tmp_path)


def raw(folder: Path) -> bytes:
    """Every byte of every file below the host's data folder."""
    files = (path for path in (folder / "data").rglob("*") if path.is_file())
    return b"".join(path.read_bytes() for path in files)


async def test_what_is_remembered_goes_into_a_prompt(tmp_path: Path) -> None:
    async with memory_host(tmp_path) as host:
        await by(host, "one", "append", items=said("I am allergic to nuts.", "I live in Ulm."))
        found = await by(host, "one", "search", query="What food should I avoid?", k=1)
        asked: Any = [{"role": "user", "content": "What food should I avoid?"}]
        built = build("Be brief.", asked, memories=found["items"], budget=200, count=estimate)
        assert "allergic to nuts" in built.messages[-1]["content"]
        assert "Ulm" not in built.messages[-1]["content"]


# -- without a host


class Answering(FakePort):
    """A host that knows the caller and gives vectors that only tests can tell apart."""

    def __init__(self, **told: str) -> None:
        super().__init__()
        asker = {"caller": "x", "kind": "plugin", "agent": "", "privacy": "sensitive"}
        self.answers["loom.caller"] = Result({**asker, "reads": "sensitive", **told})
        self.give(np.ones(4, "<f4"))

    def give(self, numbers: Any, dimensions: int = 4) -> None:
        output = {"dimensions": dimensions, "model": "m"}
        self.answers["embed.text"] = Result(output, np.asarray(numbers, "<f4").tobytes())


def alone(folder: Path, port: FakePort) -> Any:
    from loom_sdk.call_context import Identity
    from loom_sdk.driver import Driver

    plugin = load_plugin("grpc", "memory")
    identity = Identity("loom/memory", data_dir=folder)
    method, context, _ = Driver(plugin, identity, port, None).lifecycle("start")
    method(context)
    return plugin


def call(plugin: Any, port: FakePort, name: str, **arguments: Any) -> Any:
    return run_capability(plugin, f"memory.{name}", arguments, port=port).output


def test_vectors_are_brought_to_length_one(tmp_path: Path) -> None:
    port = Answering()
    plugin = alone(tmp_path, port)
    call(plugin, port, "append", items=[{"text": "x"}])
    (item,) = call(plugin, port, "search", query="x")["items"]
    assert item["score"] == 1.0
    plugin.stop(None)


@pytest.mark.parametrize(("numbers", "size"), [([1.0] * 3, 4), ([], 0), ([1.0] * 8, 4)])
def test_vectors_that_are_none_are_refused(tmp_path: Path, numbers: Any, size: int) -> None:
    port = Answering()
    port.give(numbers, size)
    plugin = alone(tmp_path, port)
    with pytest.raises(InvalidArguments, match=r"embed\.text gave"):
        call(plugin, port, "search", query="x")
    assert call(plugin, port, "append", items=[{"text": "x"}])["embedded"] is False
    plugin.stop(None)


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("search", {"kind": "semantic"}, "needs one"),
        ("search", {"kind": "episodic", "query": "x"}, "a query is for kind semantic"),
        ("forget", {}, "say what to forget"),
    ],
)
def test_calls_that_mean_nothing_are_refused(
    tmp_path: Path, name: str, arguments: dict[str, Any], problem: str
) -> None:
    port = Answering()
    plugin = alone(tmp_path, port)
    with pytest.raises(InvalidArguments, match=problem):
        call(plugin, port, name, **arguments)
    plugin.stop(None)


def test_a_client_from_outside_is_no_operator(tmp_path: Path) -> None:
    port = Answering(kind="client", caller="mcp/laptop")
    plugin = alone(tmp_path, port)
    call(plugin, Answering(caller="notes"), "append", items=[{"text": "not for clients"}])
    assert call(plugin, port, "search")["items"] == []
    with pytest.raises(PermissionDenied):
        call(plugin, port, "search", spaces=["plugin/notes"])
    plugin.stop(None)


def test_it_does_not_start_without_a_folder() -> None:
    with pytest.raises(StorageError, match="folder of its own"):
        start(load_plugin("grpc", "memory"))


def test_nothing_is_kept_for_nobody(tmp_path: Path) -> None:
    port = Answering()
    plugin = alone(tmp_path, port)
    del port.answers["loom.caller"]
    with pytest.raises(Exception, match=r"loom\.caller"):
        call(plugin, port, "append", items=[{"text": "x"}])
    plugin.stop(None)
