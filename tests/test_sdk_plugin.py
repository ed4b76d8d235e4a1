"""Marked methods, their driver, and the context they get."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from loom_sdk import (
    AsyncContext,
    Call,
    Context,
    Event,
    Item,
    Plugin,
    QoS,
    Result,
    capability,
    on_event,
    tool,
)
from loom_sdk.call_context import Identity
from loom_sdk.context import checked
from loom_sdk.driver import Driver, load_entry, negotiate, parse_arguments
from loom_sdk.errors import (
    ActionFailed,
    CapabilityNotFound,
    DeadlineExceeded,
    InvalidArguments,
    LoomError,
    ManifestError,
    PluginLoadError,
    ProtocolMismatch,
)
from loom_sdk.events import fresh_id_prefix, new_id, now_ms
from loom_sdk.plugin import CapabilitySpec, declared_capabilities, declared_subscriptions
from loom_sdk.port import HttpResponse

from .support import AsyncFakePort, FakePort, run_capability, send_event, start


class Base(Plugin):
    @tool("a.one", effects="none", version="2")
    def one(self, ctx: Context) -> str:
        """One."""
        return "base"

    @on_event("notes.>", qos=QoS.REALTIME, types=["x"], concurrency=2)
    def first(self, ctx: Context, event: Event) -> None:
        ctx.publish("heard", "first", priority=70, metadata={"a": "b"})

    @on_event("notes.*")
    async def second(self, ctx: AsyncContext, event: Event) -> None:
        await ctx.publish("heard", "second")


class Child(Base):
    def one(self, ctx: Context) -> str:
        return "unmarked"

    @capability("a.two", resumable=True)
    async def two(self, ctx: AsyncContext, n: int) -> Result:
        await ctx.emit(n)
        return Result(n, b"p")


class Other(Base):
    @tool("a.one")
    def one(self, ctx: Context) -> str:
        return "other"


def test_marks_become_specs() -> None:
    spec = declared_capabilities(Base)["a.one"].spec
    assert (spec.name, spec.tool, spec.effects, spec.version) == ("a.one", True, "none", "2")
    first, second = declared_subscriptions(Base)
    assert (first.spec.topic, first.spec.qos) == ("notes.>", QoS.REALTIME)
    assert (first.spec.types, first.spec.concurrency) == (("x",), 2)
    assert (first.is_async, second.is_async) == (False, True)


def test_marks_are_inherited_and_overridden() -> None:
    assert set(declared_capabilities(Child)) == {"a.two"}
    assert declared_capabilities(Child)["a.two"].spec.effects == "once"
    assert declared_capabilities(Child)["a.two"].spec.resumable
    assert declared_capabilities(Other)["a.one"].spec.effects == "once"
    assert len(declared_subscriptions(Child)) == 2


def test_a_capability_offered_twice_is_told() -> None:
    class Twice(Base):
        @capability("a.one")
        def again(self, ctx: Context) -> None: ...

    with pytest.raises(ManifestError, match=r"Twice offers a\.one twice"):
        declared_capabilities(Twice)


def test_an_unhosted_plugin_can_be_driven() -> None:
    assert run_capability(Other(), "a.one", {}).output == "other"
    port = FakePort()
    result = run_capability(Child(), "a.two", {"n": 3}, port=port)
    assert (result.output, result.payload, port.items[0].output) == (3, b"p", 3)
    with pytest.raises(CapabilityNotFound, match="test/plugin does not offer 'a.none'"):
        run_capability(Child(), "a.none", {})
    assert start(Child()).published == []
    assert Plugin().health() == ""


def test_the_first_handler_that_fits_gets_the_event() -> None:
    port = FakePort()
    send_event(Child(), Event("x", topic="notes.a", traceparent="tp"), port)
    send_event(Child(), Event("y", topic="notes.a"), port)
    assert [(e.topic, e.type) for e in port.published] == [("heard", "first"), ("heard", "second")]
    event = port.published[0]
    assert (event.priority, event.metadata, event.traceparent) == (70, {"a": "b"}, "tp")
    assert event.source == "test/plugin"
    driver = Driver(Child(), Identity("a/p"), port)
    assert driver.handler(Event("y", topic="notes.a.b")) is None
    assert [spec.topic for spec in driver.subscriptions] == ["notes.>", "notes.*"]


def test_async_methods_are_refused_where_there_is_no_loop() -> None:
    driver = Driver(Child(), Identity("a/p"), FakePort())
    with pytest.raises(PluginLoadError, match="do not run in the wasm tier"):
        asyncio.run(driver.ainvoke(driver.capability("a.two"), Call("a.two", {"n": 1})))


# -- contexts


def context(port: FakePort, **fields: Any) -> Context:
    identity = Identity("a/p", Path("/data"), Path("/cache"))
    return Context(port, identity, **fields)


def test_a_context_tells_its_call() -> None:
    call = Call("a.b", {}, b"payload", "x/y", id="c1", remaining_ms=1000, traceparent="tp")
    ctx = context(FakePort(), call=call)
    assert (ctx.plugin_id, ctx.call_id) == ("a/p", "c1")
    assert (ctx.payload, ctx.content_type) == (b"payload", "x/y")
    assert (ctx.data_dir, ctx.cache_dir) == (Path("/data"), Path("/cache"))
    assert 900 < ctx.remaining_ms() <= 1000
    assert ctx.elapsed_us() >= 0
    idle = context(FakePort())
    assert (idle.call_id, idle.payload, idle.content_type) == ("", b"", "")


def test_outgoing_calls_carry_what_the_host_needs() -> None:
    port = FakePort(answers={"x.y": Result(1, items=[Item(7)])})
    call = Call("a.b", {}, id="c1", remaining_ms=1000, traceparent="tp")
    ctx = context(port, call=call)
    assert ctx.invoke("x.y", {"n": 1}, payload=b"p", content_type="x/y").output == 1
    assert [item.output for item in ctx.stream("x.y", timeout_ms=50)] == [7]
    first, second = port.calls
    assert (first.arguments, first.payload, first.content_type) == ({"n": 1}, b"p", "x/y")
    assert (first.parent_call_id, first.traceparent) == ("c1", "tp")
    assert 900 < first.remaining_ms <= 1000
    assert second.remaining_ms == 50
    spent = context(port, call=Call("a.b", {}, remaining_ms=0))
    with pytest.raises(DeadlineExceeded, match=r"no time left to invoke x\.y"):
        spent.invoke("x.y")
    event = context(port, event=Event("e", id="e1", traceparent="te"))
    event.invoke("x.y", timeout_ms=99_000)
    assert (port.calls[-1].remaining_ms, port.calls[-1].parent_call_id) == (99_000, "e1")


class WebPort(FakePort):
    """Answers HTTP with a status from the URL."""

    def http_request(
        self, method: str, url: str, headers: Any, body: bytes, timeout_ms: int
    ) -> HttpResponse:
        self.logs.append(f"{method} {url} {timeout_ms}")
        return HttpResponse(int(url[-3:]), {}, b'{"a": 1}')


def test_services() -> None:
    port = WebPort(secrets={"token": "s"})
    ctx = context(port, call=Call("a.b", {}, remaining_ms=60_000))
    assert ctx.http.get_json("http://a/200") == {"a": 1}
    assert ctx.http.request("PUT", "http://a/404", timeout_ms=5).status == 404
    assert port.logs == ["GET http://a/200 30000", "PUT http://a/404 5"]
    with pytest.raises(ActionFailed, match="http://a/500 answered 500") as caught:
        ctx.http.get_json("http://a/500")
    assert caught.value.code == "HTTP_STATUS"
    assert checked(HttpResponse(204, {}, b""), "u").status == 204
    ctx.kv.put("k", b"v")
    assert (ctx.kv.get("k"), ctx.kv.keys(), ctx.kv.keys("x")) == (b"v", ["k"], [])
    ctx.kv.delete("k")
    assert ctx.kv.get("k") is None
    assert ctx.secret("token") == "s"
    ctx.log("text", level="error", n=1)
    assert port.logs[-1] == "error: text"


async def test_async_services() -> None:
    port = WebPort(secrets={"token": "s"}, answers={"x.y": Result(1, items=[Item(7)])})
    ctx = AsyncContext(AsyncFakePort(port), Identity("a/p"), call=Call("a.b", {}))
    assert (await ctx.http_request("GET", "http://a/200")).json() == {"a": 1}
    await ctx.kv_put("k", b"v")
    assert (await ctx.kv_get("k"), await ctx.kv_keys()) == (b"v", ["k"])
    await ctx.kv_delete("k")
    assert await ctx.secret("token") == "s"
    assert (await ctx.invoke("x.y")).output == 1
    assert [item.output async for item in ctx.stream("x.y")] == [7]
    assert await ctx.publish("t", "e", b"p") == 1


def test_spans_are_measured_also_when_they_fail() -> None:
    port = FakePort()
    ctx = context(port, call=Call("a.b", {}))
    with ctx.span("good", n=1):
        pass
    with pytest.raises(KeyError), ctx.span("bad"):
        raise KeyError
    good, bad = port.spans
    assert (good.name, good.attributes, good.error) == ("good", {"n": "1"}, "")
    assert (bad.name, bad.error) == ("bad", "KeyError")
    assert bad.start_offset_us >= good.start_offset_us
    assert good.duration_us >= 0


# -- the driver's edges


def test_versions_are_negotiated() -> None:
    assert negotiate(["1", "2"], "a/p") == "1"
    with pytest.raises(ProtocolMismatch, match="a/p speaks api 1, the host speaks 2, 3"):
        negotiate(["2", "3"], "a/p")


def test_an_entry_is_a_plugin_class() -> None:
    assert load_entry("tests.test_sdk_plugin:Base").__name__ == "Base"
    for entry in ("tests.test_sdk_plugin:context", "tests.test_sdk_plugin:None", "json:loads"):
        with pytest.raises(PluginLoadError, match="no loom_sdk.Plugin subclass"):
            load_entry(entry)


@runs(max_examples=40, deadline=None)
@given(st.text(max_size=8) | st.lists(st.integers(), max_size=3).map(str))
def test_arguments_are_an_object_or_an_error(text: str) -> None:
    try:
        assert isinstance(parse_arguments(text), dict)
    except LoomError as error:
        assert isinstance(error, InvalidArguments)


def test_parse_arguments() -> None:
    assert parse_arguments("") == {}
    assert parse_arguments('{"a": [1]}') == {"a": [1]}
    with pytest.raises(InvalidArguments, match="must be a JSON object"):
        parse_arguments("[1]")
    for text in ("{", "[" * 100_000):
        with pytest.raises(InvalidArguments, match="are not JSON"):
            parse_arguments(text)


# -- ids and events


def test_ids_are_unique_also_after_a_fork() -> None:
    before = new_id()
    fresh_id_prefix()
    after = new_id()
    assert before.partition("-")[0] != after.partition("-")[0]
    assert len({new_id() for _ in range(1000)}) == 1000


def test_events_are_frozen() -> None:
    event = Event("x")
    with pytest.raises(AttributeError):
        event.type = "y"  # type: ignore[misc]  # that is the test
    assert abs(event.timestamp_ms - now_ms()) < 1000
    assert (event.priority, event.confidence, event.delivery_attempt) == (50, 1.0, 1)


class Learner(Plugin):
    """Knows only at its start what it offers."""

    def offers(self) -> list[CapabilitySpec]:
        return [CapabilitySpec(name) for name in self.config["names"]]

    def serve(self, ctx: Context, /, **arguments: Any) -> Any:
        return [ctx.capability, arguments]


def test_what_a_plugin_learns_at_its_start_is_offered_and_served() -> None:
    plugin = Learner()
    plugin.config = {"names": ["a.one", "a.two"]}
    driver = Driver(plugin, Identity("test/learner"), FakePort())
    assert driver.capabilities == []
    driver.learn()
    assert [spec.name for spec in driver.capabilities] == ["a.one", "a.two"]
    arguments = {"self": 1, "ctx": 2}  # names that are the method's own, too
    result = driver.invoke(driver.capability("a.two"), Call("a.two", arguments))
    assert result.output == ["a.two", arguments]
