"""The native tier: plugins in the host's process, on its loop and in threads of their own."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loom_host.discovery import find_manifests
from loom_host.quotas import Quotas
from loom_host.runtimes.base import PluginSpec
from loom_host.runtimes.native import NativeInstance, NativeRuntime, ThreadPort
from loom_host.runtimes.threads import Worker
from loom_sdk import AsyncContext, Call, Context, Event, Item, Plugin, capability
from loom_sdk.call_context import Identity
from loom_sdk.driver import Driver
from loom_sdk.errors import (
    ActionFailed,
    CapabilityNotFound,
    DeadlineExceeded,
    InvalidArguments,
    PluginLoadError,
    QuotaExceeded,
)

from .hosting import PLUGINS, until
from .support import AsyncFakePort, FakePort


def spec_of(name: str, /, **fields: Any) -> PluginSpec:
    manifest = find_manifests([PLUGINS])[name]
    defaults = {k: s["default"] for k, s in manifest.config_schema.items()}
    values: dict[str, Any] = {
        "name": name, "id": manifest.id, "version": "1", "tier": "native",
        "entry": manifest.entry, "folder": manifest.folder, "grants": (), "quotas": Quotas(),
        "data_dir": Path("/data"), "cache_dir": Path("/cache"),
        "config": defaults | fields.pop("config", {}),
    }  # fmt: skip
    return PluginSpec(**(values | fields))


class Host(AsyncFakePort):
    """Records what a plugin asks, on the loop only."""

    def __init__(self) -> None:
        self.port = FakePort()
        super().__init__(self.port)


@asynccontextmanager
async def lab(host: Host | None = None, **fields: Any) -> AsyncIterator[NativeInstance]:
    runtime = NativeRuntime()
    instance = await runtime.start(spec_of("lab", **fields), host or Host())
    try:
        yield instance
    finally:
        await instance.aclose(1.0)
        await runtime.aclose()


async def call(
    instance: NativeInstance, name: str, payload: bytes = b"", /, **arguments: Any
) -> Any:
    return await instance.invoke(Call(f"lab.{name}", arguments, payload, "x/y"))


async def test_sync_and_async_capabilities_answer() -> None:
    host = Host()
    async with lab(host, config={"greeting": "hello"}) as instance:
        assert (await call(instance, "greet", name="bo")).output == {"greeting": "hello bo"}
        await until(lambda: host.port.logs == ["warning: greeting bo"])
        result = await call(instance, "agreet", name="bo")
        assert result.output["remaining_ms"] > 29_000
        assert result.elapsed_us >= 0
        assert await instance.health() == ""


async def test_binary_goes_in_and_out() -> None:
    async with lab() as instance:
        result = await call(instance, "reverse", b"abc")
        assert (result.output, result.payload, result.content_type) == ({"size": 3}, b"cba", "x/y")


@pytest.mark.parametrize("name", ["count", "acount"])
async def test_items_are_emitted_in_order(name: str) -> None:
    host = Host()
    async with lab(host) as instance:
        assert (await call(instance, name, to=3)).output == {"counted": 3}
        assert [item.output for item in host.port.items] == [0, 1, 2]


async def test_dataclasses_are_built_from_their_json() -> None:
    async with lab() as instance:
        assert (await call(instance, "point", at={"x": 1})).output == "1,0"


async def test_what_it_declares() -> None:
    async with lab() as instance:
        declared = {spec.name: spec for spec in instance.declaration.capabilities}
        assert declared["lab.greet"].description == "Greet somebody."
        assert declared["lab.greet"].tool
        topics = [spec.topic for spec in instance.declaration.subscriptions]
        assert sorted(topics) == ["anotes", "notes.*"]
        assert instance.enforcement["memory"].startswith("unenforced: ")
        assert instance.enforcement["output_bytes"] == "enforced"


async def test_failures_are_typed() -> None:
    async with lab() as instance:
        for how, kind, told in (
            ("raise", ActionFailed, "lab raised RuntimeError: the lab is closed"),
            ("exit", ActionFailed, "lab raised SystemExit: 3"),
            ("typed", ActionFailed, "out of paper"),
            ("arguments", InvalidArguments, "not that one"),
        ):
            with pytest.raises(kind, match=told):
                await call(instance, "fail", how=how)
        with pytest.raises(CapabilityNotFound):
            await call(instance, "nothing")
        with pytest.raises(ActionFailed, match="not JSON"):
            await call(instance, "unjson")
        with pytest.raises(ActionFailed, match="TypeError"):
            await call(instance, "greet", nam="bo")


async def test_output_over_its_quota() -> None:
    async with lab(quotas=Quotas(output_bytes=100)) as instance:
        await call(instance, "large", size=90)
        with pytest.raises(QuotaExceeded) as caught:
            await call(instance, "large", size=101)
        assert (caught.value.quota, caught.value.limit) == ("output_bytes", 100)
        assert caught.value.used > 100


async def test_a_blocked_thread_is_abandoned_and_the_plugin_degraded_until_it_ends() -> None:
    async with lab() as instance:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call(instance, "block", seconds=0.3), 0.05)
        assert time.monotonic() - began < 0.25
        assert await instance.health() == "1 blocked thread(s) abandoned"
        assert instance.usage().extra == {"abandoned_threads": 1}
        assert (await call(instance, "greet", name="bo")).output == {"greeting": "hi bo"}
        await until(lambda: not instance._abandoned or not instance._abandoned[0].alive())
        assert await instance.health() == ""
        assert instance.usage().extra == {"abandoned_threads": 1}


OURS = tuple(f"loom-{word}{name}" for word in ("", "import-") for name in ("lab", "studio"))


def threads() -> list[str]:
    """Of the plugins here: a wasm engine or an exporter of tests before may keep its own."""
    return [t.name for t in threading.enumerate() if t.name in OURS]


async def test_threads_are_kept_and_ended() -> None:
    await until(lambda: not threads())
    async with lab() as instance:
        for _ in range(5):
            await call(instance, "greet", name="bo")
        await until(lambda: threads() == ["loom-lab"])
    await until(lambda: not threads())


async def test_events() -> None:
    host = Host()
    async with lab(host) as instance:
        assert await instance.handle_event(Event("x", b"1", topic="notes.a")) > 0
        await instance.handle_event(Event("x", topic="anotes"))
        assert await instance.handle_event(Event("x", topic="elsewhere")) == 0
        published = [(e.topic, e.type, e.payload) for e in host.port.published]
        assert published == [("echo", "x", b"1"), ("aecho", "x", b"")]
        with pytest.raises(ActionFailed, match="RuntimeError: cannot read this"):
            await instance.handle_event(Event("bad", topic="notes.a"))
        with pytest.raises(ActionFailed, match="SystemExit: 4"):
            await instance.handle_event(Event("exit", topic="anotes"))


async def test_spans_and_logs_come_from_threads() -> None:
    host = Host()
    async with lab(host) as instance:
        await call(instance, "spanned")
        await until(lambda: host.port.spans)
        (span,) = host.port.spans
        assert (span.name, span.attributes) == ("inner", {"part": "one"})


@pytest.mark.parametrize(
    ("how", "told"), [("raise", "RuntimeError: the lab is closed"), ("exit", r"SystemExit\(3\)")]
)
async def test_a_start_that_fails_is_told(how: str, told: str) -> None:
    with pytest.raises((PluginLoadError, ActionFailed), match=told):
        async with lab(config={"fail_at_start": how}):
            pass
    await until(lambda: not threads())


@pytest.mark.parametrize("how", ["raise", "hang"])
async def test_a_stop_that_fails_is_told_and_its_threads_end(how: str) -> None:
    instance = await NativeRuntime().start(spec_of("lab", config={"fail_at_stop": how}), Host())
    with pytest.raises((RuntimeError, TimeoutError)):
        await instance.aclose(0.05)
    assert instance._idle == []


async def test_async_start_and_stop() -> None:
    instance = await NativeRuntime().start(spec_of("studio"), Host())
    await instance.aclose(1.0)
    instance = await NativeRuntime().start(spec_of("studio", config={"fail_at_stop": True}), Host())
    with pytest.raises(ActionFailed, match="studio raised SystemExit: 5"):
        await instance.aclose(1.0)


async def test_an_event_handlers_own_error_stays_itself() -> None:
    instance = await NativeRuntime().start(spec_of("studio"), Host())
    with pytest.raises(ActionFailed, match="no idea"):
        await instance.handle_event(Event("x", topic="query", metadata={"text": "nothing"}))
    await instance.aclose(1.0)


async def test_wait_exit_waits() -> None:
    async with lab() as instance:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(instance.wait_exit(), 0.01)


async def test_a_module_with_a_hook_instead_of_a_class() -> None:
    instance = await NativeRuntime().start(spec_of("prober"), Host())
    assert {spec.name for spec in instance.declaration.capabilities} == {
        "prober.ask", "prober.aask",
    }  # fmt: skip
    await instance.aclose(1.0)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"entry": "lab_plugin:Nobody"}, "names no loom_sdk.Plugin class"),
        ({"entry": "lab_plugin"}, "no hook loom_create_plugin that returns one"),
        ({"entry": "lab_plugin:Point"}, "names no loom_sdk.Plugin class"),
        ({"entry": "no_such_module:X"}, "ModuleNotFoundError"),
        ({"entry": ("./run",)}, "a command line runs in the grpc tier"),
    ],
)
async def test_what_cannot_be_loaded_is_told(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(PluginLoadError, match=told) as caught:
        await NativeRuntime().start(spec_of("lab", **fields), Host())
    assert caught.value.plugin_id == "test/lab"


async def test_an_import_that_fails_is_told() -> None:
    with pytest.raises(PluginLoadError, match=r"sulky did not start: ImportError: libsulky"):
        await NativeRuntime().start(spec_of("sulky"), Host())
    assert "sulky_plugin" not in sys.modules


async def test_an_import_that_hangs_holds_up_no_other(tmp_path: Path) -> None:
    (tmp_path / "slow_import_plugin.py").write_text("import time; time.sleep(0.5)\n")
    slow = spec_of("lab", name="slow", entry="slow_import_plugin:X", folder=tmp_path)
    runtime = NativeRuntime()
    hanging = asyncio.create_task(runtime.start(slow, Host()))
    await asyncio.sleep(0.02)
    instance = await asyncio.wait_for(runtime.start(spec_of("lab"), Host()), 0.4)
    await instance.aclose(1.0)
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging


class Streaming(Host):
    """A host whose streams tell when they were left."""

    def __init__(self) -> None:
        super().__init__()
        self.left = asyncio.Event()

    async def stream(self, call: Call) -> AsyncIterator[Item]:
        try:
            for number in range(100):
                yield Item(number)
        finally:
            self.left.set()


async def test_a_thread_that_leaves_a_stream_ends_it() -> None:
    host = Streaming()
    instance = await NativeRuntime().start(spec_of("prober"), host)
    result = await instance.invoke(Call("prober.ask", {"what": "first", "of": "x.do"}))
    assert result.output == 0
    await asyncio.wait_for(host.left.wait(), 1)
    await instance.aclose(1.0)


class Canceller(Plugin):
    """Awaits what somebody else gives up."""

    @capability("canceller.wait", effects="none")
    async def wait(self, ctx: AsyncContext) -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(task.cancel)
        await task

    @capability("canceller.sleep", effects="none")
    async def sleep(self, ctx: AsyncContext) -> None:
        await asyncio.sleep(60)


async def test_what_a_plugin_awaits_may_be_cancelled_without_its_caller() -> None:
    async with lab() as instance:
        identity = Identity("test/canceller")
        instance._driver = Driver(Canceller(), identity, FakePort(), AsyncFakePort(FakePort()))
        with pytest.raises(ActionFailed, match="CancelledError"):
            await instance.invoke(Call("canceller.wait", {}))
        call = asyncio.create_task(instance.invoke(Call("canceller.sleep", {})))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


@pytest.mark.parametrize("given_up", [False, True])
async def test_a_thread_whose_call_was_given_up_changes_nothing_more(given_up: bool) -> None:
    host, worker = Host(), Worker("test")
    port = ThreadPort(host, asyncio.get_running_loop())
    told: list[str] = []

    def late() -> None:
        time.sleep(0.05)
        try:
            port.kv_put("key", b"value")
            told.append("kept")
        except DeadlineExceeded as error:
            told.append(error.message)

    job = worker.submit(late)
    if given_up:
        job.future.cancel()
    await until(lambda: told)
    worker.stop()
    assert (await host.kv_get("key")) == (None if given_up else b"value")
    assert ("gave this call up" in told[0]) is given_up


async def test_a_thread_is_told_that_its_call_was_given_up() -> None:
    worker = Worker("test")
    port = ThreadPort(Host(), asyncio.get_running_loop())
    told: list[bool] = []

    def long() -> None:
        context = Context(port, Identity("test/plugin"), call=Call("test.long", {}))
        told.append(context.cancelled())
        until = time.monotonic() + 5
        while not context.cancelled() and time.monotonic() < until:
            time.sleep(0.001)
        told.append(context.remaining_ms() == 0)

    job = worker.submit(long)
    await until(lambda: told)
    job.future.cancel()
    await until(lambda: len(told) == 2)
    worker.stop()
    assert told == [False, True]
