"""The kit for tests of plugins: what it records and scripts, and that it refuses like a host."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from loom_sdk import AsyncContext, Context, Event, Item, Plugin, Result, capability, on_event, tool
from loom_sdk.errors import (
    ActionFailed,
    CapabilityNotFound,
    InvalidArguments,
    PermissionDenied,
    PluginLoadError,
)
from loom_sdk.testing import FakeHost, real_host

from .parcels import greeter


class Diary(Plugin):
    """Asks of its host all that there is to ask."""

    started = stopped = False

    def start(self, ctx: Context) -> None:
        self.started = True

    def stop(self, ctx: Context) -> None:
        self.stopped = True

    @tool("diary.weather", effects="none")
    def weather(self, ctx: Context, city: str) -> Any:
        ctx.log("asked", level="debug", city=city)
        with ctx.span("fetch"):
            return ctx.http.get_json(f"https://api.example/{city}")

    @capability("diary.keep", effects="idempotent")
    def keep(self, ctx: Context, text: str) -> Result:
        ctx.kv.put("last", text.encode())
        ctx.emit({"kept": text})
        return Result({"keys": ctx.kv.keys()}, ctx.payload)

    @capability("diary.sum", effects="none")
    async def sum(self, ctx: AsyncContext, numbers: list[int]) -> int:
        total: int = (await ctx.invoke("math.add", {"numbers": numbers})).output
        return total

    @capability("diary.secret", effects="none")
    def secret(self, ctx: Context) -> str:
        return ctx.secret("PIN")

    @on_event("heard.*")
    def heard(self, ctx: Context, event: Event) -> None:
        ctx.publish("diary", "entry", event.payload, metadata={"from": event.topic})


def test_calls_and_their_traces() -> None:
    with FakeHost(Diary) as host:
        assert host.plugin.started  # type: ignore[attr-defined]
        host.page("https://api.example/*", {"degrees": 7})
        assert host.call("diary.weather", city="Oslo").output == {"degrees": 7}
        (request,) = host.requests
        assert (request.method, request.url) == ("GET", "https://api.example/Oslo")
        assert [(line.level, line.attributes) for line in host.logs] == [
            ("debug", {"city": "Oslo"})
        ]
        assert [span.name for span in host.spans] == ["fetch"]
        answer = host.call("diary.keep", text="so be it", payload=b"\0\1")
        assert (answer.output, answer.payload) == ({"keys": ["last"]}, b"\0\1")
        assert host.storage == {"last": b"so be it"}
        assert [item.output for item in host.items] == [{"kept": "so be it"}]
    assert host.plugin.stopped  # type: ignore[attr-defined]


def test_events_and_what_comes_of_them() -> None:
    host = FakeHost(Diary)
    host.send("heard.bell", "ring", b"dong", priority=3)
    (said,) = host.published
    assert (said.topic, said.type, said.payload) == ("diary", "entry", b"dong")
    assert said.metadata == {"from": "heard.bell"}
    with pytest.raises(CapabilityNotFound, match=r"no handler for other/x; it hears: heard\.\*"):
        host.send("other", "x")


async def test_invokes_are_scripted_by_value_function_and_error() -> None:
    host = FakeHost(Diary)
    with pytest.raises(CapabilityNotFound, match=r"write host\.answers\['math\.add'\]"):
        await host.acall("diary.sum", numbers=[1])
    host.answer("math.add", lambda arguments: sum(arguments["numbers"]))
    assert (await host.acall("diary.sum", numbers=[1, 2, 3])).output == 6
    host.answer("math.add", ActionFailed("no numbers today", code="X"))
    with pytest.raises(ActionFailed, match="no numbers today"):
        await host.acall("diary.sum", numbers=[])
    assert [call.arguments for call in host.calls] == [
        {"numbers": [1]}, {"numbers": [1, 2, 3]}, {"numbers": []}
    ]  # fmt: skip
    with pytest.raises(RuntimeError, match="await acall"):
        host.call("diary.sum", numbers=[])


def test_what_is_not_scripted_or_granted_says_so() -> None:
    host = FakeHost(Diary, grants=["network:https://api.example", "publish:other"])
    with pytest.raises(PermissionDenied, match="the test has no page for GET https://api"):
        host.call("diary.weather", city="Oslo")
    with pytest.raises(PermissionDenied, match="the test grants no storage:own"):
        host.call("diary.keep", text="x")
    with pytest.raises(PermissionDenied, match="the test grants no publish:diary"):
        host.send("heard.bell", "ring")
    with pytest.raises(PermissionDenied, match="no secret PIN"):
        FakeHost(Diary).call("diary.secret")


def test_arguments_are_refused_as_a_host_would() -> None:
    host = FakeHost(Diary)
    with pytest.raises(InvalidArguments, match="city is missing; town is unknown; it takes: city"):
        host.call("diary.weather", town="Oslo")
    with pytest.raises(TypeError):
        host.call("diary.weather", city=object())
    assert host.schema("diary.weather")["required"] == ["city"]
    assert "diary.keep" in host.tools


def test_the_fixture_starts_and_stops(fake_host: Callable[..., FakeHost], tmp_path: Path) -> None:
    host = fake_host(Diary, config={"a": 1})
    assert host.plugin.config == {"a": 1}
    assert host.plugin.started  # type: ignore[attr-defined]
    assert Item(1) not in host.items


async def test_a_real_host_runs_the_folder(
    loom_host: Callable[..., AbstractAsyncContextManager[Any]], tmp_path: Path
) -> None:
    folder = greeter(tmp_path / "greeter")
    async with loom_host(folder) as host:
        answer = await host.invoke("greeter.hello", {"name": "Ada"})
        assert answer.output == {"text": "Hello, Ada!"}
        assert host.plugins["greeter"].spec.tier == "grpc"


async def test_a_real_host_tells_why_a_plugin_did_not_start(tmp_path: Path) -> None:
    folder = greeter(tmp_path / "greeter")
    (folder / "greeter.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(PluginLoadError, match="nothing_of_this_name"):
        async with real_host(folder):
            pass
