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
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from loom_host.quotas import Quotas
from loom_host.runtimes.base import NotReached, PluginSpec
from loom_host.runtimes.grpc.instance import GrpcInstance
from loom_host.runtimes.grpc.process import describe_exit
from loom_host.runtimes.grpc.runtime import GrpcRuntime
from loom_host.runtimes.grpc.translate import STATUSES, from_grpc, to_status
from loom_host.testing import real_host
from loom_sdk import Call, Event, Item, QoS, Result
from loom_sdk.errors import (
    TABLE,
    ActionFailed,
    CapabilityNotFound,
    InvalidArguments,
    LoomError,
    ModelMissing,
    PermissionDenied,
    PluginCrashed,
    PluginError,
    PluginLoadError,
    PluginUnhealthy,
    ProtocolMismatch,
    QuotaExceeded,
)
from loom_sdk.port import HttpResponse
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

    def __init__(self, folder: Path, *, sessions: bool = True) -> None:
        self.folder = folder
        self.runtime = GrpcRuntime(folder / "run", sessions=sessions)
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
        sandbox: str = "none",
        grants: tuple[str, ...] = (),
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
            grants=grants,
            quotas=Quotas(**quotas),
            data_dir=self.folder / "data",
            cache_dir=self.folder / "cache",
            env=env or {},
            start_timeout_s=start_timeout_s,
            sandbox=sandbox,
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


@pytest.fixture(params=["session", "unary"])
async def bench(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Every test runs over both paths; children cannot tell the difference."""
    bench = Bench(tmp_path, sessions=request.param == "session")
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
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
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
    spec = replace(bench.spec("Any", folder=tmp_path), entry="needs_more:Any")
    with pytest.raises(PluginLoadError, match="No module named 'not_installed'"):
        await bench.runtime.start(spec, bench.services)


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
    began = time.monotonic()
    error = await bench.refused(exits, folder=tmp_path, start_timeout_s=30)
    assert time.monotonic() - began < 5
    assert "exit code 7" in error.message
    assert "bye" in error.message


async def test_a_signal_at_the_start_is_a_crash_and_is_tried_again(
    bench: Bench, tmp_path: Path
) -> None:
    killed = script(tmp_path, "import os; print('alas', flush=True); os.kill(os.getpid(), 9)")
    spec = bench.spec(killed, folder=tmp_path)
    with pytest.raises(PluginCrashed, match=r"before it was ready \(killed by SIGKILL\).*alas"):
        await bench.runtime.start(spec, bench.services)


async def test_a_child_that_never_listens_meets_the_start_deadline(
    bench: Bench, tmp_path: Path
) -> None:
    silent = script(tmp_path, "import time; time.sleep(60)")
    began = time.monotonic()
    error = await bench.refused(silent, folder=tmp_path, start_timeout_s=0.3)
    assert time.monotonic() - began < 0.3 + SLACK_S
    assert "not ready within 0.3 s" in error.message
    assert "LOOM_SOCKET" in error.message
    assert "not ready within 1 s" in (await bench.refused("SlowStart", start_timeout_s=1)).message


async def test_a_cancelled_start_leaves_no_child(bench: Bench, tmp_path: Path) -> None:
    script(tmp_path, "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)")
    spec = bench.spec((sys.executable, "child.py"), folder=tmp_path)
    for seconds in (0, 0.001, 0.5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await bench.runtime.start(spec, bench.services)
    await until(lambda: not alive(int((tmp_path / "pid").read_text())))
    here = psutil.Process().children(recursive=True)
    assert [child for child in here if "child.py" in child.cmdline()] == []


async def test_a_child_with_another_token_is_refused(bench: Bench) -> None:
    error = await bench.refused((sys.executable, "wrong_token.py"))
    assert "does not know the token" in error.message


# ---- What fails in a call --------------------------------------------------------------------


async def test_endless_loop_is_killed_within_the_deadline(bench: Bench) -> None:
    for capability in ("hostile.loop", "hostile.block"):
        async with bench.plugin("Hostile") as hostile:
            call = Call(capability, {}, remaining_ms=300)
            seconds, error = await timed(with_deadline(hostile, call, 0.3))
            assert isinstance(error, TimeoutError)
            assert seconds < 0.3 + SLACK_S + 0.05
            assert "did not stop" in await hostile.wait_exit()
            await asyncio.wait_for(asyncio.shield(hostile.child.exited), 1)
            assert not alive(hostile.child.pid)


def die_slowly(instance: GrpcInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a child that holds gigabytes does, which the kernel takes tenths of a second over."""
    strike, loop = instance.child.signal_group, asyncio.get_running_loop()

    def late(number: int) -> None:
        loop.call_later(1, strike, number)

    monkeypatch.setattr(instance.child, "signal_group", late)


async def test_nobody_waits_until_the_kernel_is_done_with_a_killed_child(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench.plugin("Hostile") as hostile:
        die_slowly(hostile, monkeypatch)
        call = asyncio.create_task(hostile.invoke(Call("hostile.nap", {"seconds": 60})))
        await asyncio.sleep(0.05)
        hostile.child.kill("killed by the test")
        with pytest.raises(PluginCrashed, match="killed by the test"):
            await asyncio.wait_for(call, 0.25)
        with pytest.raises(NotReached):
            await hostile.invoke(Call("hostile.nap", {"seconds": 0}))
        assert await asyncio.wait_for(hostile.wait_exit(), 0.25) == "killed by the test"
        assert not hostile.child.exited.done()


async def test_a_call_out_of_time_does_not_wait_until_its_child_is_dead(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench.plugin("Hostile") as hostile:
        die_slowly(hostile, monkeypatch)
        call = Call("hostile.nap", {"seconds": 60}, remaining_ms=300)
        seconds, error = await timed(with_deadline(hostile, call, 0.3))
        assert isinstance(error, TimeoutError)
        assert seconds < 0.3 + SLACK_S + 0.05
        assert not hostile.child.exited.done()


async def test_a_cancelled_call_that_stops_leaves_the_child_alive(bench: Bench) -> None:
    async with bench.plugin("Hostile") as hostile:
        for call in (Call("hostile.wait", {}), Call("hostile.nap", {"seconds": 0.2})):
            seconds, error = await timed(with_deadline(hostile, call, 0.1))
            assert isinstance(error, TimeoutError)
            assert seconds < 0.1 + SLACK_S
        answer = await hostile.invoke(Call("hostile.nap", {"seconds": 0}))
        assert answer.output == "rested"


async def test_cancelling_wakes_a_thread_that_waits_for_the_host(bench: Bench) -> None:
    async with bench.plugin("Asks") as asks:
        _, error = await timed(with_deadline(asks, Call("asks.slow", {}), 0.2))
        assert isinstance(error, TimeoutError)
        async with asyncio.timeout(1):
            await bench.services.slow_was_cancelled.wait()
        await until(lambda: "info: woken by DeadlineExceeded" in bench.port.logs)
        assert (await asks.invoke(Call("asks.denied", {}))).output


async def test_memory_bomb_is_quota_exceeded(bench: Bench) -> None:
    async with bench.plugin("Hostile", memory=100_000_000) as hostile:
        with pytest.raises(QuotaExceeded, match="memory") as caught:
            await hostile.invoke(Call("hostile.bomb", {}))
        assert (caught.value.quota, caught.value.limit) == ("memory", 100_000_000)
        assert caught.value.plugin_id == "test/plugin"


async def test_growth_over_the_memory_quota_is_killed(bench: Bench) -> None:
    async with bench.plugin("Hostile", memory=90_000_000) as hostile:
        seconds, error = await timed(hostile.invoke(Call("hostile.grow", {})))
        assert isinstance(error, QuotaExceeded)
        assert (error.quota, error.limit) == ("memory", 90_000_000)
        assert error.used > 90_000_000
        assert seconds < 2
        assert "the quota is 90000000" in await hostile.wait_exit()


async def test_an_answer_over_the_output_quota(bench: Bench) -> None:
    async with bench.plugin("Hostile", output_bytes=1_000_000, memory=10**9) as hostile:
        for capability in ("hostile.big", "hostile.flood"):
            with pytest.raises(QuotaExceeded) as caught:
                await hostile.invoke(Call(capability, {}))
            assert (caught.value.quota, caught.value.limit) == ("output_bytes", 1_000_000)
            assert caught.value.used > 1_000_000
        assert await hostile.health() == ""


async def test_an_exit_in_a_call_is_a_crash_that_quotes_the_last_words(bench: Bench) -> None:
    async with bench.plugin("Hostile") as hostile:
        other = asyncio.ensure_future(hostile.invoke(Call("hostile.wait", {})))
        await asyncio.sleep(0.1)
        with pytest.raises(PluginCrashed, match=r"exit code 5.*about to exit"):
            await hostile.invoke(Call("hostile.exit", {"code": 5}))
        with pytest.raises(PluginCrashed, match="exit code 5"):
            await other
        assert await hostile.wait_exit() == "exit code 5"
        assert await hostile.health() == "exit code 5"


async def test_sigkill_in_a_call_ends_it_at_once(bench: Bench) -> None:
    async with bench.plugin("Hostile") as hostile:
        call = asyncio.ensure_future(hostile.invoke(Call("hostile.nap", {"seconds": 60})))
        await asyncio.sleep(0.1)
        os.kill(hostile.child.pid, signal.SIGKILL)
        seconds, error = await timed(asyncio.wait_for(call, 5))
        assert isinstance(error, PluginCrashed)
        assert "killed by SIGKILL" in error.message
        assert seconds < 0.2
        assert await hostile.wait_exit() == "killed by SIGKILL"


async def test_errors_of_the_plugins_own_code(bench: Bench) -> None:
    async with bench.plugin("Hostile") as hostile:
        with pytest.raises(ActionFailed, match="ValueError: no such thing"):
            await hostile.invoke(Call("hostile.raise", {}))
        with pytest.raises(ActionFailed, match="StopIteration"):
            await hostile.invoke(Call("hostile.stop_iteration", {}))
        with pytest.raises(ActionFailed, match="not JSON") as caught:
            await hostile.invoke(Call("hostile.not_json", {}))
        assert caught.value.code == "OUTPUT_NOT_JSON"
        with pytest.raises(CapabilityNotFound, match="does not offer 'absent'"):
            await hostile.invoke(Call("absent", {}))


# ---- Nothing is left behind ------------------------------------------------------------------


async def test_close_leaves_no_grandchild(bench: Bench) -> None:
    async with bench.plugin("Hostile") as hostile:
        pid = (await hostile.invoke(Call("hostile.grandchild", {}))).output
        assert alive(pid)
    await until(lambda: not alive(pid))


async def test_close_in_the_middle_of_a_call_is_forced_within_its_grace(bench: Bench) -> None:
    instance = await bench.runtime.start(bench.spec("Hostile"), bench.services)
    call = asyncio.ensure_future(instance.invoke(Call("hostile.loop", {})))
    await asyncio.sleep(0.1)
    began = time.monotonic()
    await instance.aclose(0.4)
    assert time.monotonic() - began < 0.4 + SLACK_S
    with pytest.raises(PluginCrashed):
        await call
    assert not alive(instance.child.pid)


async def test_death_of_the_host_leaves_no_child_and_no_grandchild(tmp_path: Path) -> None:
    source = f"""
        import asyncio
        from pathlib import Path
        from loom_sdk import Call
        from tests.test_runtime_grpc import Bench
        async def main():
            bench = Bench(Path({str(tmp_path)!r}))
            async with bench.plugin("Hostile") as hostile:
                grandchild = (await hostile.invoke(Call("hostile.grandchild", {{}}))).output
                print(hostile.child.pid, grandchild, flush=True)
                await hostile.invoke(Call("hostile.loop", {{}}))
        asyncio.run(main())
        """
    command = (sys.executable, "-c", textwrap.dedent(source))
    host = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
    )
    assert host.stdout is not None
    child, grandchild = map(int, (await asyncio.wait_for(host.stdout.readline(), 10)).split())
    await asyncio.sleep(0.1)
    assert alive(child)
    assert alive(grandchild)
    host.kill()
    await host.wait()
    await until(lambda: not alive(child) and not alive(grandchild))


# ---- A child that knows nothing but the proto ------------------------------------------------


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stubs of plugin.proto under another name, beside a child that uses them alone."""
    from grpc_tools import protoc  # type: ignore[import-untyped]

    folder = tmp_path_factory.mktemp("plain")
    shutil.copy(ROOT / "proto" / "plugin.proto", folder / "plain.proto")
    shutil.copy(CHILDREN / "plain_child.py", folder)
    outputs = (f"--{kind}_out={folder}" for kind in ("python", "grpc_python"))
    assert protoc.main(["protoc", f"-I{folder}", *outputs, "plain.proto"]) == 0
    return folder


async def test_a_plugin_written_from_the_proto_alone(bench: Bench, plain_folder: Path) -> None:
    entry = (sys.executable, "plain_child.py", "1")
    async with bench.plugin(entry, folder=plain_folder) as plain:
        offered = plain.declaration.capabilities[0]
        assert (offered.name, offered.effects) == ("plain.shout", "none")
        assert plain.declaration.subscriptions[0].qos is QoS.BACKGROUND

        answer = await plain.invoke(Call("plain.shout", {"text": "abc"}, b"beside"))
        assert (answer.output, answer.payload) == ("ABC", b"beside")
        assert [item.output for item in bench.port.items] == ["a", "b", "c"]
        nested = await plain.invoke(Call("plain.shout", {"text": "nested"}))
        assert nested.output == {"sum": 1}
        stranger = await plain.invoke(Call("plain.shout", {"text": "stranger"}))
        assert stranger.output == "UNAUTHENTICATED"
        with pytest.raises(InvalidArguments, match="not that word"):
            await plain.invoke(Call("plain.shout", {"text": "status"}))

        with pytest.raises(PermissionDenied) as caught:
            await plain.handle_event(Event("any", topic="plain.topic"))
        assert caught.value.permission == "secrets:forbidden"
        assert bench.port.published[0].source == "test/plugin"
        assert await plain.health() == ""  # UNIMPLEMENTED is no illness


async def test_a_session_that_is_refused_by_a_reset_leaves_the_unary_calls(
    bench: Bench, plain_folder: Path
) -> None:
    entry = (sys.executable, "plain_child.py", "1", "INTERNAL")
    async with bench.plugin(entry, folder=plain_folder) as plain:
        assert (await plain.invoke(Call("plain.shout", {"text": "abc"}))).output == "ABC"


async def test_a_newer_api_is_a_mismatch(bench: Bench, plain_folder: Path) -> None:
    with pytest.raises(ProtocolMismatch, match="chose api '2', the host speaks 1"):
        await bench.runtime.start(
            bench.spec((sys.executable, "plain_child.py", "2"), folder=plain_folder),
            bench.services,
        )


# ---- The border to grpc ----------------------------------------------------------------------


def test_every_grpc_status_is_mapped() -> None:
    assert set(STATUSES) == set(grpc.StatusCode)
    metadata = grpc.aio.Metadata()
    for code in grpc.StatusCode:
        raised = grpc.aio.AioRpcError(code, metadata, metadata, "as it was", None)
        error = from_grpc(raised, "test/plugin")
        assert type(error) is STATUSES[code]
        assert "as it was" in str(error)


def test_every_error_of_the_tree_survives_as_status_and_metadata() -> None:
    for kind in TABLE:
        code, text, trailing = to_status(kind("what happened"))
        assert text == "what happened"
        attached = grpc.aio.Metadata(*trailing)
        raised = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), attached, text, None)
        error = from_grpc(raised, "test/plugin")
        assert error.message == "what happened"
        if kind.__name__ != "CapabilityError":  # shares its code with ActionFailed
            assert type(error) is kind


def test_every_exception_of_grpc_aio_is_mapped() -> None:
    kinds = {
        value
        for name in dir(grpc.aio)
        if isinstance(value := getattr(grpc.aio, name), type) and issubclass(value, Exception)
    }
    assert {kind.__name__ for kind in kinds} == {
        "AbortError", "AioRpcError", "BaseError", "InternalError", "UsageError"
    }  # fmt: skip
    for kind in kinds - {grpc.aio.AioRpcError}:
        assert isinstance(from_grpc(kind("lost"), "test/plugin"), LoomError)


def test_exit_codes_in_words() -> None:
    assert describe_exit(1) == "exit code 1"
    assert describe_exit(-signal.SIGSEGV) == "killed by SIGSEGV"
    assert re.fullmatch(r"killed by signal \d+", describe_exit(-200))


async def test_an_answer_whose_bytes_are_no_message_is_told() -> None:
    async with real_host(ROOT / "tests" / "broken" / "not-utf8-answer") as host:
        (spec,) = host.plugins["not-utf8-answer"].manifest.capabilities
        with pytest.raises(PluginError, match=r"no message of plugin\.proto"):
            await host.invoke(spec.name, spec.examples[0]["arguments"])
