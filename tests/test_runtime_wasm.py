"""The wasm tier with a real guest, built from `tests/guests` by the test run."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from wasmtime import wat2wasm

from loom_host.quotas import Quotas
from loom_host.runtimes.base import PluginSpec
from loom_host.runtimes.wasm import WasmInstance, WasmRuntime, border
from loom_host.runtimes.wasm import runtime as wasm_runtime
from loom_host.runtimes.wasm.build import build_component, ensure_component, inputs_hash, wit_dir
from loom_host.runtimes.wasm.cache import CodeCache, default_folder
from loom_host.runtimes.wasm.engine import Engine
from loom_host.runtimes.wasm.values import MAX_BINARY
from loom_sdk import Call, Event, QoS, Result
from loom_sdk.errors import (
    ActionFailed,
    CapabilityNotFound,
    DeadlineExceeded,
    InvalidArguments,
    LoomError,
    PluginCrashed,
    PluginLoadError,
    PluginUnhealthy,
    QuotaExceeded,
)

from .support import AsyncFakePort, FakePort, within

GUESTS = Path(__file__).parent / "guests"
ENTRY = "hostile_guest:Hostile"
MIB = 1024**2


@pytest.fixture(scope="session")
def component() -> Path:
    """The hostile guest, built once per change of its sources."""
    return ensure_component(GUESTS, ENTRY, default_folder())


def spec_of(tmp: Path, entry: str, folder: Path, **config: Any) -> PluginSpec:
    quotas = Quotas(memory=64 * MIB, output_bytes=MIB, deadline_ms=5000)
    return PluginSpec(
        name="hostile",
        id="test/hostile",
        version="1",
        tier="wasm",
        entry=entry,
        folder=folder,
        config=config,
        grants=("publish:notes",),
        quotas=quotas,
        data_dir=tmp,
        cache_dir=tmp,
    )


Starter = Any


@dataclass
class Hosted:
    """An instance and what it asked of its host."""

    instance: WasmInstance
    port: FakePort = field(default_factory=FakePort)

    async def call(self, capability: str, payload: bytes = b"", **arguments: Any) -> Result:
        return await self.instance.invoke(Call(capability, arguments, payload, "audio/pcm"))

    async def output(self, capability: str, **arguments: Any) -> Any:
        return (await self.call(capability, **arguments)).output

    def renewals(self) -> float:
        return self.instance.usage().extra["renewals"]


@pytest.fixture(params=["thread", "process"])
def isolation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start(component: Path, tmp_path: Path, isolation: str) -> Starter:
    """`async with start(config={…}, memory=…) as hosted`."""

    @asynccontextmanager
    async def run(
        port: FakePort | None = None,
        services: Any = None,
        config: dict[str, Any] | None = None,
        marshal: str = "direct",
        **quotas: Any,
    ) -> AsyncIterator[Hosted]:
        port = port or FakePort()
        spec = spec_of(tmp_path, component.name, component.parent, **(config or {}))
        spec = replace(spec, isolation=isolation, quotas=replace(spec.quotas, **quotas))
        spec = replace(spec, marshal=marshal)
        runtime = WasmRuntime()
        instance = await runtime.start(spec, services or AsyncFakePort(port))
        try:
            yield Hosted(instance, port)
        finally:
            await instance.aclose(1.0)
            await runtime.aclose()

    return run


# ---- What a good plugin does --------------------------------------------------------------


async def test_declares_what_the_class_marks(start: Starter) -> None:
    async with start() as hosted:
        offered = {item.name: item for item in hosted.instance.declaration.capabilities}
        assert offered["t.echo"].effects == "none"
        assert offered["t.echo"].description == "Send back what came."
        assert offered["t.hoard"].input_schema == {
            "type": "object",
            "properties": {"size": {"type": "integer"}},
            "required": ["size"],
            "additionalProperties": False,
        }
        (heard,) = hosted.instance.declaration.subscriptions
        assert (heard.topic, heard.qos, heard.types) == ("room.*", QoS.BATCHED, ("word",))


@pytest.mark.parametrize("size", [0, 1, 640, 70_000])
async def test_json_and_binary_pass_both_ways(start: Starter, size: int) -> None:
    payload = bytes(index % 256 for index in range(size))
    async with start(config={"mode": 3}) as hosted:
        result = await hosted.call("t.echo", payload, value={"ä": [1, None, "\0"]})
    assert result.output == {"value": {"ä": [1, None, "\0"]}, "config": {"mode": 3}}
    assert (result.payload, result.content_type) == (payload, "audio/pcm")
    assert result.elapsed_us > 0


async def test_the_stock_marshaller_serves_where_it_is_asked_for(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(border, "bind", None)  # the direct one would fail in this process
    monkeypatch.setattr(border, "serve", None)
    async with start(marshal="stock") as hosted:
        result = await hosted.call("t.echo", bytes(range(256)), value=[{"ä": None}])
        assert (result.output["value"], result.payload) == ([{"ä": None}], bytes(range(256)))
        assert await hosted.instance.handle_event(Event("word", b"hi", {"n": "1"})) >= 0
        assert await hosted.output("t.store", key="k") == [True, "value", ["k"]]
        assert await hosted.output("t.publish") == 1
        assert await hosted.output("t.stream", items=2) == "done"
        with pytest.raises(QuotaExceeded):
            await hosted.output("t.big", size=MIB + 1)
        with pytest.raises(PluginCrashed):
            await hosted.output("t.exit")


async def test_another_wasmtime_is_served_by_the_stock_marshaller(
    start: Starter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wasm_runtime, "CHECKED_VERSION", "50.0.0")
    monkeypatch.setattr(border, "bind", None)
    async with start() as hosted:
        assert (await hosted.call("t.echo", b"abc")).payload == b"abc"
    assert "the stock one is used" in caplog.text


async def test_state_is_kept_between_calls_and_events(start: Starter) -> None:
    async with start() as hosted:
        assert [await hosted.output("t.count") for _ in range(3)] == [1, 2, 3]
        for number in "12":
            event = Event("word", b"hi", {"n": number}, topic="room.a")
            assert await hosted.instance.handle_event(event) > 0
        await hosted.instance.handle_event(Event("other", topic="room.a"))
        assert await hosted.output("t.heard") == ["room.a 1 hi", "room.a 2 hi"]
        assert hosted.renewals() == 0


async def test_host_imports(start: Starter) -> None:
    port = FakePort(answers={"x.y": Result({"got": 1}, b"out")}, secrets={"key": "s3"})
    async with start(port) as hosted:
        assert await hosted.output("t.stream", items=3) == "done"
        assert await hosted.output("t.store", key="k") == [True, "value", ["k"]]
        assert await hosted.output("t.publish") == 1
        assert await hosted.output("t.nested", name="x.y") == [{"got": 1}, "out"]
        assert await hosted.output("t.secret") == "s3"
        await hosted.output("t.observed")
        with pytest.raises(CapabilityNotFound, match="nobody offers"):
            await hosted.output("t.nested", name="no.such")
    assert [(item.output, item.payload) for item in port.items] == [
        ({"index": index}, b"xxx") for index in range(3)
    ]
    assert [item.elapsed_us for item in port.items] == sorted(i.elapsed_us for i in port.items)
    (event,) = port.published
    assert (event.topic, event.payload, event.tags) == ("notes", b"\x00\xff", ("t",))
    assert (event.metadata, event.confidence) == ({"a": "b"}, 0.5)
    assert port.logs == ["warning: hello", "info: printed by the guest"]
    assert [(span.name, span.attributes) for span in port.spans] == [("inner", {"part": "one"})]


async def test_parent_of_a_nested_call_is_set_by_the_host(start: Starter) -> None:
    port = FakePort(answers={"x.y": Result(None)})
    async with start(port) as hosted:
        await hosted.instance.invoke(Call("t.nested", {"name": "x.y"}, id="outer"))
    (nested,) = port.calls
    assert nested.parent_call_id == "outer"
    assert 0 < nested.remaining_ms <= 5000


async def test_errors_of_the_host_reach_the_guest_as_their_class(start: Starter) -> None:
    class Refusing(AsyncFakePort):
        async def kv_get(self, key: str) -> bytes | None:
            raise QuotaExceeded(plugin_id="p", quota="storage_bytes", limit=1, used=2)

    async with start(services=Refusing(FakePort())) as hosted:
        with pytest.raises(QuotaExceeded) as raised:
            await hosted.output("t.store", key="k")
    assert (raised.value.quota, raised.value.limit, raised.value.used) == ("storage_bytes", 1, 2)


async def test_exception_in_the_guest_is_an_error_with_its_traceback_logged(
    start: Starter,
) -> None:
    logged: list[dict[str, str]] = []

    class Logging(AsyncFakePort):
        def log(self, level: str, message: str, attributes: Any, call_id: str) -> None:
            logged.append(dict(attributes))

    async with start(services=Logging(FakePort())) as hosted:
        with pytest.raises(ActionFailed, match="ValueError: on purpose"):
            await hosted.call("t.raise")
        with pytest.raises(ActionFailed, match="poisoned"):
            await hosted.instance.handle_event(Event("word", b"poison", {"n": "1"}, topic="room.a"))
        assert await hosted.output("t.count") == 1
        assert hosted.renewals() == 0
    assert 'raise ValueError("on purpose")' in logged[0]["traceback"]


async def test_snapshot_does_not_repeat_ids_or_random_numbers(start: Starter) -> None:
    drawn, ids = set(), set()
    for _ in range(2):
        async with start() as hosted:
            drawn.add(await hosted.output("t.random"))
            await hosted.output("t.publish")
            ids.add(hosted.port.published[0].id)
    assert len(drawn) == len(ids) == 2


# ---- What a bad one tries -----------------------------------------------------------------


async def test_nothing_ambient_is_reached(start: Starter) -> None:
    async with start() as hosted:
        reached = await hosted.output("t.ambient")
    assert reached["env"] == "{}"
    for name in ("root", "passwd", "connect", "resolve", "listen"):
        assert reached[name].endswith("Error"), (name, reached[name])


@pytest.mark.parametrize("name", ["t.spin", "t.sleep"])
async def test_deadline_stops_the_guest(start: Starter, name: str) -> None:
    arguments = {"seconds": 30} if name == "t.sleep" else {}
    async with start(deadline_ms=300) as hosted:
        with within(300), pytest.raises(DeadlineExceeded, match="deadline_ms"):
            await hosted.output(name, **arguments)
        assert await hosted.output("t.count") == 1
        assert hosted.renewals() == 1


@pytest.mark.parametrize("name", ["t.spin", "t.sleep"])
async def test_cancelling_stops_the_guest_at_once(start: Starter, name: str) -> None:
    arguments = {"seconds": 30} if name == "t.sleep" else {}
    async with start() as hosted:
        task = asyncio.create_task(hosted.output(name, **arguments))
        await asyncio.sleep(0.1)
        task.cancel()
        with within(0), pytest.raises(asyncio.CancelledError):
            await task
        assert await hosted.output("t.count") == 1
        usage = hosted.instance.usage()
    assert (usage.extra["renewals"], usage.extra["abandoned_threads"]) == (1, 0)


async def test_cancelling_stops_a_guest_that_waits_for_the_host(start: Starter) -> None:
    cancelled = asyncio.Event()

    class Slow(AsyncFakePort):
        async def kv_get(self, key: str) -> bytes | None:
            try:
                await asyncio.sleep(30)
            finally:
                cancelled.set()
            return None

    async with start(services=Slow(FakePort())) as hosted:
        with within(200), pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await hosted.output("t.store", key="k")
        await asyncio.wait_for(cancelled.wait(), 1)
        assert await hosted.output("t.count") == 1


async def test_a_nap_within_the_deadline_is_a_nap(start: Starter) -> None:
    async with start() as hosted:
        slept = await hosted.output("t.sleep", seconds=0.05)
        assert 0.05 <= slept < 0.3
        assert hosted.renewals() == 0


async def test_memory_bomb(start: Starter) -> None:
    async with start() as hosted:
        with within(1000), pytest.raises(QuotaExceeded) as raised:
            await hosted.output("t.bomb")
        assert (raised.value.quota, raised.value.limit) == ("memory", 64 * MIB)
        assert await hosted.output("t.count") == 1
        assert hosted.renewals() == 1


async def test_cpu_quota_counts_work_and_not_sleep(start: Starter) -> None:
    async with start(cpu=0.1) as hosted:
        assert await hosted.output("t.sleep", seconds=0.2) >= 0.2
        with pytest.raises(QuotaExceeded) as raised:
            await hosted.output("t.spin")
    assert raised.value.quota == "cpu"
    assert 0.1 <= raised.value.used < 0.3


@pytest.mark.parametrize("where", ["payload", "output", "stream", "forged"])
async def test_output_over_its_quota(start: Starter, where: str) -> None:
    async with start(memory=256 * MIB) as hosted:
        if where == "stream":
            call = hosted.output("t.stream", items=40, size=32 * 1024)
        else:
            call = hosted.output("t.big", size=100 * MIB, where=where)
        with within(5000), pytest.raises(QuotaExceeded) as raised:
            await call
        assert raised.value.quota == "output_bytes"
        assert await hosted.output("t.count") == 1


async def test_binary_too_long_for_the_border_is_refused_in_words(start: Starter) -> None:
    port = FakePort(answers={"x.y": Result(None, bytes(MAX_BINARY + 1))})
    async with start(port, memory=256 * MIB, output_bytes=16 * MIB) as hosted:
        with pytest.raises(InvalidArguments, match="at most"):
            await hosted.call("t.echo", bytes(MAX_BINARY + 1))
        with pytest.raises(ActionFailed, match="grpc tier") as refused:
            await hosted.call("t.nested", name="x.y")
        assert refused.value.code == "TOO_LARGE"
        assert hosted.renewals() == 0
        with pytest.raises(QuotaExceeded, match="emit it in pieces"):
            await hosted.call("t.big", size=MAX_BINARY + 1024, where="forged")
        assert await hosted.output("t.count") == 1


async def test_recursion_and_exit_end_in_their_errors(start: Starter) -> None:
    async with start() as hosted:
        with pytest.raises(LoomError, match=r"recursion|stack"):
            await hosted.output("t.recurse")
        with pytest.raises(PluginCrashed, match="exited by itself"):
            await hosted.output("t.exit")
        assert await hosted.output("t.count") == 1


async def test_growing_guest_is_renewed_between_calls(start: Starter) -> None:
    """componentize-py keeps what a guest returned: more than its room to grow passes through."""
    async with start(memory=24 * MIB) as hosted:
        for _ in range(80):
            assert len((await hosted.call("t.big", size=150_000)).payload) == 150_000
            await asyncio.sleep(0.01)
        assert hosted.renewals() >= 1
        assert 0 < hosted.instance.usage().peak_memory_bytes <= 24 * MIB


async def test_a_guest_that_grows_fast_is_renewed_in_time_and_while_it_is_watched(
    start: Starter,
) -> None:
    async with start(memory=24 * MIB) as hosted:
        for _ in range(600):
            assert len((await hosted.call("t.big", size=32 * 1024)).payload) == 32 * 1024
            hosted.instance.usage()
        assert hosted.renewals() >= 1


async def test_spinning_guest_leaves_another_and_the_loop_alone(start: Starter) -> None:
    async with start() as bad, start() as good:
        task = asyncio.create_task(bad.output("t.spin"))
        await asyncio.sleep(0.05)
        worst = 0.0
        for number in range(20):
            began = time.monotonic()
            assert await good.output("t.count") == number + 1
            worst = max(worst, time.monotonic() - began)
        assert worst < 0.25
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_calls_take_turns_and_end_with_the_instance(start: Starter) -> None:
    async with start() as hosted:
        answers = await asyncio.gather(*(hosted.output("t.count") for _ in range(10)))
        assert sorted(answers) == list(range(1, 11))
        spinning = asyncio.create_task(hosted.output("t.spin"))
        waiting = asyncio.create_task(hosted.output("t.count"))
        await asyncio.sleep(0.05)
        with within(200):
            await hosted.instance.aclose(0.2)
        with pytest.raises(PluginCrashed, match="closed by the host"):
            await spinning
        with pytest.raises(PluginUnhealthy, match="is closed"):
            await waiting
        with pytest.raises(PluginUnhealthy):
            await hosted.output("t.count")


async def test_health_and_enforcement(start: Starter) -> None:
    async with start() as hosted:
        assert await hosted.instance.health() == ""
        busy = asyncio.create_task(hosted.output("t.sleep", seconds=0.1))
        await asyncio.sleep(0.01)
        assert await hosted.instance.health() == ""
        await busy
        enforced = hosted.instance.enforcement
    assert {enforced[name] for name in ("deadline_ms", "memory", "cpu", "output_bytes")} == {
        "enforced"
    }


async def test_no_thread_is_left_after_aclose(start: Starter, isolation: str) -> None:
    async with start() as hosted:
        await hosted.output("t.count")
        threads = {thread.name for thread in threading.enumerate()}
        assert ("loom-hostile" in threads) == (isolation == "thread")
    left = [t.name for t in threading.enumerate() if t.name.startswith(("loom-h", "loom-wasm"))]
    assert left == []


# ---- Loading -------------------------------------------------------------------------------


async def _start(spec: PluginSpec, cache: Path | None = None) -> None:
    runtime = WasmRuntime(cache)
    try:
        instance = await runtime.start(spec, AsyncFakePort(FakePort()))
        await instance.aclose(1)
    finally:
        await runtime.aclose()


async def test_refusing_start_is_a_load_error(
    component: Path, tmp_path: Path, isolation: str
) -> None:
    spec = spec_of(tmp_path, component.name, component.parent, refuse=True)
    with pytest.raises(PluginLoadError, match="told to refuse"):
        await _start(replace(spec, isolation=isolation))


async def test_too_little_memory_names_the_quota(
    component: Path, tmp_path: Path, isolation: str
) -> None:
    spec = spec_of(tmp_path, component.name, component.parent)
    spec = replace(spec, quotas=Quotas(memory=MIB), isolation=isolation)
    with pytest.raises(PluginLoadError, match="quota memory"):
        await _start(spec)


@pytest.mark.parametrize(
    ("wat", "message"),
    [
        ('(component (import "evil:door/open@1.0.0" (instance)))', "imports evil:door/open@1.0.0"),
        ('(component (import "wasi:http/types@0.2.0" (instance)))', "wasi:http/types@0.2.0"),
        ("(component)", "does not export loom:plugin/plugin"),
        ("(module)", "no component"),
    ],
)
async def test_foreign_components_are_refused_by_name(
    tmp_path: Path, wat: str, message: str
) -> None:
    (tmp_path / "a.wasm").write_bytes(wat2wasm(wat))
    with pytest.raises(PluginLoadError, match=message):
        await _start(spec_of(tmp_path, "a.wasm", tmp_path), tmp_path / "cache")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("missing.wasm", "not there"),
        ("missing:Class", "not there"),
        ("no colon", "neither a .wasm file nor"),
    ],
)
async def test_wrong_entry_says_what_is_missing(tmp_path: Path, entry: str, message: str) -> None:
    with pytest.raises(PluginLoadError, match=message):
        await _start(spec_of(tmp_path, entry, tmp_path), tmp_path / "cache")


def test_bad_cache_entries_are_compiled_again(tmp_path: Path) -> None:
    wasm = bytes(wat2wasm("(component)"))
    engine = Engine(tmp_path).wasmtime

    def load() -> tuple[int, int]:
        cache = CodeCache(tmp_path, "test")
        cache.component(engine, wasm)
        return cache.hits, cache.compiled

    assert load() == (0, 1)
    assert load() == (1, 0)
    (code,) = tmp_path.glob("*.cwasm")
    damaged = bytearray(code.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    for content in (bytes(damaged), b"", damaged[:100]):
        code.write_bytes(content)
        assert load() == (0, 1)
    code.with_suffix(".mac").unlink()
    assert load() == (0, 1)
    (tmp_path / "host.key").write_bytes(bytes(32))
    assert load() == (0, 1)
    assert load() == (1, 0)
    assert (tmp_path / "host.key").stat().st_mode & 0o777 == 0o600
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_shared_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "host.key").write_bytes(bytes(32))
    (tmp_path / "host.key").chmod(0o644)
    with pytest.raises(PluginLoadError, match="mode 0600"):
        CodeCache(tmp_path, "test").component(Engine(tmp_path).wasmtime, b"")


# ---- Building ------------------------------------------------------------------------------


def test_build_is_used_only_for_the_sources_it_was_made_from(
    component: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "plugin"
    (folder / "build").mkdir(parents=True)
    shutil.copy(GUESTS / "hostile_guest.py", folder)
    shipped = folder / "build" / "hostile_guest.wasm"
    shipped.write_bytes(b"built")
    record = shipped.with_suffix(".inputs")
    record.write_text(inputs_hash(folder, ENTRY, wit_dir()))
    assert ensure_component(folder, ENTRY, tmp_path / "cache") == shipped
    (folder / "more.py").write_text("x = 1\n")
    assert record.read_text() != inputs_hash(folder, ENTRY, wit_dir())


@pytest.mark.slow
def test_async_methods_are_refused_by_name_when_building(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(
        "from loom_sdk import Plugin, tool\n\n\n"
        "class Late(Plugin):\n"
        '    @tool("t.late")\n'
        "    async def late(self, ctx) -> int:\n"
        "        return 1\n"
    )
    with pytest.raises(PluginLoadError, match=r"Late: late is `async def`.*write `def`"):
        build_component(tmp_path, "late:Late", tmp_path / "late.wasm", wit_dir())
    assert not (tmp_path / "late.wasm").exists()


def test_missing_compiler_names_the_install_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.py").write_text("")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PluginLoadError, match=r"pip install componentize-py==0\.25\.1"):
        build_component(tmp_path, "a:A", tmp_path / "a.wasm", wit_dir())
