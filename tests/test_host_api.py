"""What a plugin may ask of its host: each service granted, denied, and never believed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from loom_host import host_api, meters
from loom_host.handle import InFlight
from loom_host.host_api import HostApi
from loom_host.manifest import Permissions
from loom_host.quotas import Quotas
from loom_host.secret_store import Secrets
from loom_host.settings import SecretSettings
from loom_sdk import Call, Event, Item, Result
from loom_sdk.errors import (
    CapabilityError,
    DeadlineExceeded,
    LoomError,
    PermissionDenied,
    QuotaExceeded,
)
from loom_sdk.port import AsyncPort, SpanRecord

from .hosting import Rig, answering, handle_of, next_of, offers

ALL = Permissions(
    network=("http://127.0.0.1:1",), secrets=("token",), invoke=("q.do",), storage=True
)


def asking(
    allow: dict[str, tuple[str, ...]] | None = None, quotas: Quotas | None = None
) -> tuple[Rig, HostApi]:
    """A plugin `p` with its services, beside a plugin `q` that it may invoke."""
    p = handle_of("p", publishes=("notes.*",), permissions=ALL, allow=allow, quotas=quotas)
    q = handle_of("q", offers("q.do"))
    secrets = Secrets({"token": SecretSettings(env="HOST_API_TOKEN")}, lambda _: None)
    rig = Rig(p, q, serve={"q": {"q.do": answering("from q")}}, secrets=secrets)
    return rig, HostApi(rig.parts, p)


Ask = Callable[[HostApi], Coroutine[Any, Any, Any]]

DENIED: list[tuple[str, str, Ask]] = [
    ("publish", "notes.a", lambda api: api.publish(Event("x", topic="notes.a"), "")),
    ("invoke", "q.do", lambda api: api.invoke(Call("q.do", {}))),
    ("invoke", "q.do", lambda api: api.invoke(Call("q.do@1.0.0", {}))),
    ("invoke", "q.do", lambda api: anext(api.stream(Call("q.do", {})))),  # type: ignore[arg-type]  # anext is awaitable
    ("storage", "own", lambda api: api.kv_get("k")),
    ("storage", "own", lambda api: api.kv_put("k", b"")),
    ("storage", "own", lambda api: api.kv_delete("k")),
    ("storage", "own", lambda api: api.kv_list("")),
    ("secrets", "token", lambda api: api.get_secret("token")),
    ("network", "http://127.0.0.1:1",
     lambda api: api.http_request("GET", "http://127.0.0.1:1/x", {}, b"", 1000)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "ask"), DENIED)
async def test_nothing_is_allowed_by_default(kind: str, value: str, ask: Ask) -> None:
    rig, api = asking(allow={})
    async with rig:
        with pytest.raises(PermissionDenied) as caught:
            await ask(api)
        assert caught.value.permission == f"{kind}:{value}"
        assert f'[plugins.p]\nallow = {{ {kind} = ["{value}"] }}' in caught.value.message
        assert [(r.plugin, r.kind, r.value) for r in rig.audit.refusals] == [("p", kind, value)]


async def test_the_source_and_more_of_an_event_are_the_hosts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig, api = asking()
    async with rig, rig.bus.subscribe("notes.*") as heard:
        forged = Event(
            "x", b"1", {"a": "b"}, source="q", topic="notes.a", priority=500, tags=("t",),
            traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01", delivery_attempt=3, id="forged",
        )  # fmt: skip
        assert await api.publish(forged, "a-call-of-somebody-else") == 1
        event = await next_of(heard)
        assert (event.source, event.priority, event.traceparent) == ("p", 100, "")
        assert (event.delivery_attempt, event.tags) == (1, ("t",))
        assert event.id != "forged"
        assert dict(event.metadata) == {"a": "b"}
        await api.publish(Event("x", topic="notes.a", priority=-5), "")
        assert (await next_of(heard)).priority == 0
        with pytest.raises(PermissionDenied):
            await api.publish(Event("x", topic="other"), "")


async def test_a_source_may_begin_a_trace() -> None:
    rig, api = asking()
    async with rig, rig.bus.subscribe("notes.*") as heard:
        await api.publish(Event("utterance", topic="notes.a", traceparent="new"), "")
        event = await next_of(heard)
        (span,) = rig.tracer.finished()
        assert (span.name, span.traceparent) == ("utterance", event.traceparent)


async def test_a_call_of_a_plugin_is_told_as_its_own() -> None:
    rig, api = asking()
    seen: list[InFlight] = []

    async def serve(call: Call, services: AsyncPort) -> Result:
        seen.append(rig.handles["q"].inflight[call.id])
        return Result("ok")

    async with rig:
        rig.instance("q")._serve = {"q.do": serve}
        flight = InFlight("c1", "p", depth=2, chain=("z", "p"), deadline=1e12, agent="voice")
        rig.handles["p"].inflight["c1"] = flight
        await api.invoke(Call("q.do", {}, parent_call_id="c1"))
        await api.invoke(Call("q.do", {}, parent_call_id="not-mine"))
        nested, alone = seen
        assert (nested.caller, nested.depth, nested.chain) == ("p", 3, ("z", "p", "q"))
        assert nested.agent == "voice"
        assert (alone.caller, alone.depth, alone.chain) == ("p", 0, ("q",))


async def test_no_time_left_is_told_before_the_call() -> None:
    rig, api = asking()
    async with rig:
        rig.handles["p"].inflight["c1"] = InFlight("c1", "p", deadline=0.0)
        with pytest.raises(DeadlineExceeded, match="no time left to invoke q.do"):
            await api.invoke(Call("q.do", {}, parent_call_id="c1"))


async def test_streams_pass_through_and_end_with_their_reader() -> None:
    rig, api = asking()
    stopped = asyncio.Event()

    async def endless(call: Call, services: AsyncPort) -> Result:
        try:
            while True:
                await services.emit(call.id, Item(1))
        finally:
            stopped.set()

    async with rig:
        items = [item.output async for item in api.stream(Call("q.do", {}))]
        assert items == ["from q"]
        rig.instance("q")._serve = {"q.do": endless}
        stream = api.stream(Call("q.do", {}))
        assert (await anext(stream)).output == 1
        await stream.aclose()  # type: ignore[attr-defined]  # it is an async generator
        await asyncio.wait_for(stopped.wait(), 1)


async def test_an_id_of_a_plugin_is_its_own_and_gives_the_same_result_again() -> None:
    rig, api = asking()
    served: list[str] = []

    async def serve(call: Call, services: AsyncPort) -> Result:
        served.append(call.id)
        return Result(len(served))

    async with rig:
        rig.instance("q")._serve = {"q.do": serve}
        again = [(await api.invoke(Call("q.do", {}, id="pay-7"))).output for _ in range(2)]
        assert again == [1, 1]
        assert (await rig.invoke("q.do", id="pay-7")).output == 2  # the host's id, not p's
        fresh = [(await api.invoke(Call("q.do", {}, id=""))).output for _ in range(2)]
        assert fresh == [3, 4]


async def test_emitting_outside_a_call_is_refused() -> None:
    rig, api = asking()
    async with rig:
        rig.handles["p"].inflight["event"] = InFlight("event", "p")
        for call_id in ("", "unknown", "event"):
            with pytest.raises(CapabilityError, match="a call it is not serving"):
                await api.emit(call_id, Item(1))


async def test_storage_is_kept_and_bounded() -> None:
    rig, api = asking(quotas=Quotas(storage_bytes=10))
    async with rig:
        await api.kv_put("a", b"12345")
        await api.kv_put("b", b"1")
        assert await api.kv_get("a") == b"12345"
        assert await api.kv_list("") == ["a", "b"]
        with pytest.raises(QuotaExceeded) as caught:
            await api.kv_put("c", b"12345")
        assert (caught.value.quota, caught.value.limit) == ("storage_bytes", 10)
        await api.kv_delete("a")
        assert await api.kv_get("a") is None


async def test_a_granted_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST_API_TOKEN", "s3cret")
    rig, api = asking()
    async with rig:
        assert await api.get_secret("token") == "s3cret"
        with pytest.raises(PermissionDenied):
            await api.get_secret("other")


async def test_log_lines_carry_the_plugin_and_its_trace(caplog: pytest.LogCaptureFixture) -> None:
    rig, api = asking()
    async with rig:
        rig.handles["p"].inflight["c1"] = InFlight("c1", "p", traceparent="00-a-b-01")
        with caplog.at_level(logging.DEBUG, "loom.plugin.p"):
            api.log("warning", "almost out of %s", {"what": "paper"}, "c1")
            api.log("shout", "hello", {}, "")
        first, second = caplog.records
        assert (first.getMessage(), first.levelname) == ("almost out of %s", "WARNING")
        extra = vars(first)
        assert (extra["plugin"], extra["traceparent"]) == ("p", "00-a-b-01")
        assert extra["attributes"] == {"what": "paper"}
        assert (second.levelname, vars(second)["traceparent"]) == ("INFO", "")
        assert list(rig.handles["p"].log_lines) == ["almost out of %s", "hello"]


async def test_publishing_faster_than_its_quota_is_refused() -> None:
    rig, api = asking(quotas=Quotas(publish_rate=3))
    async with rig:
        for _ in range(3):
            await api.publish(Event("made", topic="notes.a"), "")
        with pytest.raises(QuotaExceeded) as caught:
            await api.publish(Event("made", topic="notes.a"), "")
        assert (caught.value.quota, caught.value.limit) == ("publish_rate", 3)
        assert await api.kv_get("key") is None


async def test_requests_of_every_kind_count_in_host_calls() -> None:
    rig, api = asking(quotas=Quotas(host_calls=4))
    async with rig:
        await api.kv_put("key", b"value")
        await api.kv_list("")
        await api.kv_delete("key")
        with contextlib.suppress(LoomError):
            await api.get_secret("none")
        more: list[Ask] = [
            lambda api: api.kv_get("key"),
            lambda api: api.http_request("GET", "https://a.b", {}, b"", 1),
        ]
        for ask in more:
            with pytest.raises(QuotaExceeded) as caught:
                await ask(api)
            assert (caught.value.quota, caught.value.limit) == ("host_calls", 4)


async def test_log_text_is_bounded_per_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    rig, api = asking(quotas=Quotas(log_bytes=10))
    async with rig:
        handle = rig.handles["p"]
        for text in ("12345", "123456", "1"):
            api.log("info", text, {}, "")
        assert list(handle.log_lines) == ["12345"]
        assert handle.counters.quota_hits == 2
        monkeypatch.setattr(meters, "LOG_WINDOW_S", -1.0)
        api.log("info", "again", {}, "")
        assert list(handle.log_lines) == ["12345", "again"]


async def test_a_plugins_spans_are_below_its_call() -> None:
    rig, api = asking()
    async with rig:
        parent = rig.tracer.start("call")
        rig.handles["p"].inflight["c1"] = InFlight(
            "c1", "p", traceparent=parent.traceparent, started_ns=1_000_000
        )
        api.span(SpanRecord("decode", 5, 10, {"k": "v"}, "ValueError"), "c1")
        api.span(SpanRecord("lost", 5, 10), "unknown")
        (span,) = rig.tracer.finished()
        assert (span.name, span.parent_id) == ("decode", parent.span_id)
        assert (span.start_ns, span.duration_ns) == (1_005_000, 10_000)
        assert (dict(span.attributes), span.error) == ({"k": "v", "plugin": "p"}, "ValueError")


@pytest.mark.parametrize(
    ("offset_us", "duration_us"),
    [(-(10**15), 10), (10**15, 10), (0, 10**15), (0, -(10**15)), (2**62, 2**62)],
)
async def test_a_plugins_clock_cannot_put_a_span_outside_its_call(
    offset_us: int, duration_us: int
) -> None:
    rig, api = asking()
    async with rig:
        parent = rig.tracer.start("call")
        rig.handles["p"].inflight["c1"] = InFlight(
            "c1", "p", traceparent=parent.traceparent, started_ns=parent.start_ns
        )
        api.span(SpanRecord("forged", offset_us, duration_us), "c1")
        (span,) = rig.tracer.finished()
        # A span has at least 1 ns, also one that begins at this very moment.
        assert parent.start_ns <= span.start_ns < span.end_ns <= time.time_ns() + 1


async def test_spans_count_in_the_quota_of_log_text() -> None:
    limit = 3 * (host_api.SPAN_BYTES + 4)
    rig, api = asking(quotas=Quotas(log_bytes=limit))
    async with rig:
        trace = rig.tracer.start("call").traceparent
        rig.handles["p"].inflight["c1"] = InFlight("c1", "p", traceparent=trace)
        for _ in range(5):
            api.span(SpanRecord("s", 0, 1, {"k": "v"}, "E"), "c1")
        assert len(rig.tracer.finished()) == 3
        assert rig.handles["p"].counters.quota_hits == 2
