"""The grpc tier with real children: what plugins do right, and every way they go wrong."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from loom_host.quotas import Quotas
from loom_host.runtimes.base import PluginSpec
from loom_host.runtimes.grpc.instance import GrpcInstance
from loom_host.runtimes.grpc.process import describe_exit
from loom_host.runtimes.grpc.runtime import GrpcRuntime
from loom_host.runtimes.grpc.translate import STATUSES, from_grpc, to_status
from loom_sdk import Call, Event, Item, QoS, Result
from loom_sdk.context import HttpResponse
from loom_sdk.errors import (
    TABLE,
    ActionFailed,
    CapabilityNotFound,
    InvalidArguments,
    LoomError,
    ModelMissing,
    PermissionDenied,
    PluginCrashed,
    PluginLoadError,
    PluginUnhealthy,
    ProtocolMismatch,
    QuotaExceeded,
)
from tests.support import ROOT, AsyncFakePort, FakePort

CHILDREN = Path(__file__).parent / "children"
SLACK_S = 0.25
"""What issue and design allow over a limit before the typed error is there."""


class Services(FakePort):
    """Records what children ask, with a few capabilities and one forbidden secret."""

    def invoke(self, call: Call) -> Result:
        self.calls.append(call)
        if call.capability == "other.add":
            sum_ = call.arguments.get("a", 0) + 1
            items = [Item({"step": 1})]
            return Result({"sum": sum_}, call.payload.upper(), items=items, provider="other")
        if call.capability == "other.count":
            return Result(3, items=[Item(1), Item(2)])
        raise CapabilityNotFound(f"nobody offers {call.capability!r}")

    def http_request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout_ms: int
    ) -> HttpResponse:
        return HttpResponse(204, dict(headers), body)

    def get_secret(self, name: str) -> str:
        if name == "forbidden":
            raise PermissionDenied("allow it in loom.toml", permission="secrets:forbidden")
        return f"secret of {name}"


class AsyncServices(AsyncFakePort):
    """`other.slow` never answers; the rest is `Services`."""

    def __init__(self, port: Services) -> None:
        super().__init__(port)
        self.slow_was_cancelled = asyncio.Event()

    async def invoke(self, call: Call) -> Result:
        if call.capability != "other.slow":
            return self._port.invoke(call)
        try:
            await asyncio.sleep(3600)
        finally:
            self.slow_was_cancelled.set()
        raise AssertionError


class Bench:
    """A runtime in a temporary folder, and short ways to start plugins on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runtime = GrpcRuntime(folder / "run")
        self.port = Services()
        self.services: Any = AsyncServices(self.port)

    def spec(
        self,
        entry: str | tuple[str, ...],
        *,
        folder: Path = CHILDREN,
        config: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        start_timeout_s: float = 10,
        **quotas: Any,
    ) -> PluginSpec:
        return PluginSpec(
            name="test",
            id="test/plugin",
            version="1",
            tier="grpc",
            entry=f"child_plugins:{entry}" if isinstance(entry, str) else entry,
            folder=folder,
            config=config or {},
            grants=(),
            quotas=Quotas(**quotas),
            data_dir=self.folder / "data",
            cache_dir=self.folder / "cache",
            env=env or {},
            start_timeout_s=start_timeout_s,
        )

    @asynccontextmanager
    async def plugin(
        self, entry: str | tuple[str, ...], **options: Any
    ) -> AsyncIterator[GrpcInstance]:
        instance = await self.runtime.start(self.spec(entry, **options), self.services)
        try:
            yield instance
        finally:
            await instance.aclose(2)

    async def refused(self, entry: str | tuple[str, ...], **options: Any) -> PluginLoadError:
        with pytest.raises(PluginLoadError) as caught:
            await self.runtime.start(self.spec(entry, **options), self.services)
        assert list((self.folder / "run").glob("*/p-*")) == []
        return caught.value


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.runtime.aclose()
    assert list((tmp_path / "run").glob("*")) == []


def script(folder: Path, source: str, name: str = "child.py") -> tuple[str, ...]:
    (folder / name).write_text(textwrap.dedent(source))
    return (sys.executable, name)


async def timed(work: Coroutine[Any, Any, Any]) -> tuple[float, BaseException]:
    """Seconds until `work` failed, and with what."""
    began = time.monotonic()
    try:
        await work
    except Exception as error:
        return time.monotonic() - began, error
    raise AssertionError("it did not fail")


async def with_deadline(instance: GrpcInstance, call: Call, seconds: float) -> Result:
    async with asyncio.timeout(seconds):
        return await instance.invoke(call)


async def until(condition: Callable[[], object], seconds: float = 3) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # other processes do not set our events
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# ---- What works ------------------------------------------------------------------------------


async def test_arguments_payloads_streams_and_config_cross_both_ways(bench: Bench) -> None:
    async with bench.plugin("Echo", config={"mode": 2}) as echo:
        value = {"text": "äöü \x00 😀", "list": [1, 2.5, None, True]}
        answer = await echo.invoke(Call("echo.json", {"value": value}))
        assert answer.output == {"value": value, "config": {"mode": 2}}
        assert 0 < answer.elapsed_us < 1_000_000

        sound = os.urandom(6_000_000)  # over gRPC's default of 4 MB
        answer = await echo.invoke(Call("echo.payload", {}, sound, "audio/pcm;rate=16000"))
        assert answer.payload == sound[::-1]
        assert answer.content_type == "audio/pcm;rate=16000"

        answer = await echo.invoke(Call("echo.stream", {"count": 5, "size": 3}))
        assert answer.output == {"count": 5}
        assert [item.output["index"] for item in bench.port.items] == [0, 1, 2, 3, 4]
        assert {item.payload for item in bench.port.items} == {b"xxx"}

        bench.port.items.clear()
        answer = await echo.invoke(Call("echo.async", {"count": 2}, remaining_ms=5000))
        assert 4000 < answer.output["remaining_ms"] <= 5000
        assert [item.output["index"] for item in bench.port.items] == [0, 1]


async def test_declares_capabilities_and_subscriptions_at_init(bench: Bench) -> None:
    async with bench.plugin("Echo") as echo:
        offered = {spec.name: spec for spec in echo.declaration.capabilities}
        assert offered["echo.json"].effects == "none"
        assert offered["echo.json"].description == "Give back the value."
        assert offered["echo.stream"].input_schema == {
            "type": "object",
            "properties": {"count": {"type": "integer"}, "size": {"type": "integer", "default": 1}},
            "required": ["count"],
            "additionalProperties": False,
        }
        heard = {spec.topic: spec for spec in echo.declaration.subscriptions}
        assert set(heard) == {"audio.*", "later.>", "bad"}
        assert heard["later.>"].types == ("slow",)
        assert heard["bad"].qos is QoS.BATCHED


async def test_events_reach_sync_and_async_handlers_and_are_acknowledged(bench: Bench) -> None:
    async with bench.plugin("Echo") as echo:
        event = Event("chunk", b"\x01\x02", {"seq": "7"}, topic="audio.mic")
        assert await echo.handle_event(event) > 0
        await echo.handle_event(Event("slow", b"b", topic="later.on"))
        first, second = bench.port.published
        assert (first.topic, first.type, first.payload) == ("echo", "echoed", b"\x01\x02")
        assert first.metadata == {"seq": "7", "was": "chunk"}
        assert {first.source, second.source} == {"test/plugin"}
        with pytest.raises(ActionFailed, match="KeyError: 'nothing there'"):
            await echo.handle_event(Event("any", topic="bad"))
        with pytest.raises(CapabilityNotFound, match="no handler for unheard/any"):
            await echo.handle_event(Event("any", topic="unheard"))


async def test_child_has_the_granted_environment_and_nothing_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET_OF_THE_HOST", "x")
    async with bench.plugin("Echo", env={"GRANTED": "1"}) as echo:
        seen = (await echo.invoke(Call("echo.environment", {}))).output
        ours = {"LOOM_SOCKET", "LOOM_API_VERSIONS", "LOOM_PLUGIN_ID", "LOOM_HOST_SOCKET"}
        plain = {"PATH", "LANG", "HOME", "TMPDIR", "PYTHONPATH", "LOOM_MODELS", "GRANTED"}
        assert set(seen) - {"LC_CTYPE"} == ours | plain  # no LOOM_TOKEN for what it starts
        private = Path(seen["LOOM_SOCKET"]).parent
        assert private.stat().st_mode & 0o777 == 0o700
        assert Path(seen["TMPDIR"]).parent == private
        assert seen["HOME"] == str(bench.folder / "data")
    assert not private.exists()


async def test_output_goes_to_the_log_by_line_with_long_lines_split(bench: Bench) -> None:
    async with bench.plugin("Echo"):
        await until(lambda: len(bench.port.logs) >= 4)
    assert "info: hello from stdout" in bench.port.logs
    long = [line for line in bench.port.logs if line.startswith("warning: xxx")]
    assert sum(len(line) - len("warning: ") for line in long) == 20_000
    assert max(map(len, long)) <= 8192 + len("warning: ")


async def test_everything_a_plugin_may_ask_of_the_host(bench: Bench) -> None:
    async with bench.plugin("Asks") as asks:
        call = Call("asks.everything", {}, traceparent="00-aa-bb-01")
        assert (await asks.invoke(call)).output == {
            "missing": True,
            "value": "value",
            "keys": ["key"],
            "published": 1,
            "nested": [{"sum": 2}, "IN", "other"],
            "nested_items": [{"step": 1}],
            "streamed": [1, 2],
            "http": 204,
            "secret": "secret of name",
        }
        assert bench.port.spans[0].name == "part"  # came before the result
        assert bench.port.spans[0].attributes == {"size": "3"}
        assert "debug: in the middle" in bench.port.logs
        nested = bench.port.calls[0]
        assert (nested.parent_call_id, nested.traceparent) == (call.id, "00-aa-bb-01")
        assert 0 < nested.remaining_ms <= 30_000

        answer = await asks.invoke(Call("asks.everything_async", {}))
        assert answer.output["streamed"] == [1, 2]
        assert answer.output["nested"] == {"sum": 2}


async def test_a_refusal_by_the_host_is_the_same_error_in_the_child(bench: Bench) -> None:
    async with bench.plugin("Asks") as asks:
        answer = await asks.invoke(Call("asks.denied", {}))
        assert answer.output == {
            "permission": "secrets:forbidden",
            "message": "allow it in loom.toml",
        }


async def test_health_and_usage(bench: Bench) -> None:
    async with bench.plugin("Echo") as echo, bench.plugin("Unwell") as unwell:
        assert await echo.health() == ""
        assert await unwell.health() == "the microphone is gone"
        usage = echo.usage()
        assert 10_000_000 < usage.memory_bytes <= usage.peak_memory_bytes < 200_000_000
        assert alive(usage.pid)
        assert usage.pid != unwell.usage().pid


async def test_stop_is_asked_for_before_it_is_forced(bench: Bench) -> None:
    async with bench.plugin("Echo") as echo:
        ended = asyncio.ensure_future(echo.wait_exit())
    assert (bench.folder / "data" / "stopped").exists()
    assert not alive(echo.usage().pid)
    await asyncio.sleep(0)
    assert not ended.done()  # it was asked to end
    ended.cancel()
    with pytest.raises(PluginUnhealthy, match="not running"):
        await echo.invoke(Call("echo.json", {}))


async def test_a_deep_runtime_folder_still_gives_a_short_socket_path(tmp_path: Path) -> None:
    bench = Bench(tmp_path / ("deep" * 30))
    async with bench.plugin("Echo") as echo:
        assert (await echo.invoke(Call("echo.json", {"value": 1}))).output["value"] == 1
    await bench.runtime.aclose()


# ---- What fails at the start -----------------------------------------------------------------


async def test_start_errors_name_the_cause(bench: Bench) -> None:
    error = await bench.refused("NoModel")
    assert "run `loom models pull tiny`" in error.message
    assert isinstance(error.__cause__, ModelMissing)
    assert "RuntimeError: no device" in (await bench.refused("Broken")).message
    error = await bench.refused("ExitsAtStart")
    assert "exit code 3" in error.message
    assert "cannot go on" in error.message
    assert "Plugin subclass 'Absent'" in (await bench.refused("Absent")).message


async def test_a_missing_import_is_named(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "needs_more.py").write_text("import not_installed\n")
    with pytest.raises(PluginLoadError, match="No module named 'not_installed'"):
        spec = bench.spec(("x",), folder=tmp_path)
        spec = PluginSpec(**{**_fields(spec), "entry": "needs_more:Any"})
        await bench.runtime.start(spec, bench.services)


def _fields(spec: PluginSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in PluginSpec.__slots__}


async def test_a_program_that_cannot_run_says_why(bench: Bench, tmp_path: Path) -> None:
    error = await bench.refused(("no-such-program",))
    assert "neither in" in error.message
    (tmp_path / "plain.txt").write_text("x")
    error = await bench.refused(("plain.txt",), folder=tmp_path)
    assert "chmod +x" in error.message
    lost = tmp_path / "lost"
    lost.write_text("#!/no/such/interpreter\n")
    lost.chmod(0o755)
    assert "interpreter" in (await bench.refused(("lost",), folder=tmp_path)).message
    lost.write_text("no program at all\n")
    assert "`#!`" in (await bench.refused(("lost",), folder=tmp_path)).message


async def test_a_child_that_exits_ends_the_wait_at_once(bench: Bench, tmp_path: Path) -> None:
    exits = script(tmp_path, "import sys; print('bye'); sys.exit(7)")
    seconds, error = await timed(bench.refused(exits, folder=tmp_path, start_timeout_s=30)), None
    assert error is None
    assert seconds
