"""Tests of `loom_host.telemetry`: spans, waterfall, metrics, logs, the HTTP endpoints."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_host.bus import MemoryBus
from loom_host.telemetry import (
    Meter,
    MetricsServer,
    Redactor,
    Span,
    Telemetry,
    Tracer,
    configure,
    current,
    parse_traceparent,
    tree,
    waterfall,
)
from loom_host.telemetry.logs import LOGGERS, PLUGIN_LOGGER
from loom_host.telemetry.metrics import SERIES_MAX, STANDARD
from loom_host.telemetry.ring import RING
from loom_sdk.errors import ActionFailed, ConfigError, QuotaExceeded
from loom_sdk.events import Event

TRACE = f"00-{'a' * 32}-{'b' * 16}-"


@dataclass
class Settings:
    sample_ratio: float = 1.0
    log_level: str = "warning"
    log_format: str = "text"
    http_port: int = 0


# Spans


def test_a_child_belongs_to_its_parent_and_a_root_to_nobody() -> None:
    tracer = Tracer()
    root = tracer.start("turn", attributes={"plugin": "vad"})
    with tracer.start("stt", root.traceparent) as child:
        child.set("language", "en")
    root.end()
    assert [span.name for span in tracer.finished()] == ["stt", "turn"]
    assert (child.trace_id, child.parent_id) == (root.trace_id, root.span_id)
    assert (root.parent_id, root.attributes) == ("", {"plugin": "vad"})
    assert child.start_ns <= child.end_ns <= root.end_ns
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", child.traceparent)


def test_an_error_is_kept_and_a_span_ends_once() -> None:
    tracer = Tracer()
    with pytest.raises(KeyError), tracer.start("call") as span:
        raise KeyError("city")
    first = span.end_ns
    span.end("again")
    assert (span.error, span.end_ns, len(tracer.finished())) == ("'city'", first, 1)


@pytest.mark.parametrize(
    "text",
    ["", "x", TRACE, TRACE + "0", "01" + TRACE[2:] + "01", f"00-{'0' * 32}-{'b' * 16}-01",
     f"00-{'a' * 32}-{'0' * 16}-01", TRACE.upper() + "01", TRACE + "01\n"],
)  # fmt: skip
def test_a_malformed_traceparent_starts_a_new_trace(text: str) -> None:
    assert parse_traceparent(text) is None
    span = Tracer().start("a", text)
    assert span.sampled
    assert (span.parent_id, span.trace_id == "a" * 32) == ("", False)


@given(st.text())
def test_parse_traceparent_takes_any_text(text: str) -> None:
    assert parse_traceparent(text) is None or len(text) == 55


def test_unsampled_spans_record_nothing_and_hand_their_context_on() -> None:
    tracer = Tracer(sample_ratio=0)
    root = tracer.start("turn")
    child = tracer.start("stt", root.traceparent)
    child.set("a", 1)
    child.attributes["b"] = 2
    child.end("error")
    assert not root.sampled
    assert child.traceparent == root.traceparent
    assert root.traceparent.endswith("-00")
    assert parse_traceparent(root.traceparent) is not None
    assert tracer.record("inside", root.traceparent, 1, 1) is None
    assert tracer.finished() == []
    assert tracer.start("stt", TRACE + "01").sampled  # the parent decides
    assert not Tracer().start("stt", TRACE + "00").sampled


def test_the_sample_ratio_is_the_share_of_roots() -> None:
    tracer = Tracer(sample_ratio=0.25)
    sampled = sum(tracer.start("a").sampled for _ in range(4000))
    assert 800 < sampled < 1200


def test_the_ring_keeps_the_last_spans() -> None:
    tracer = Tracer(keep=3)
    for number in range(5):
        tracer.start(str(number)).end()
    assert [span.name for span in tracer.finished()] == ["2", "3", "4"]


def test_record_adds_what_was_measured_in_a_child_process() -> None:
    tracer = Tracer()
    span = tracer.record("decode", TRACE + "01", 1000, 500, {"beam": 1}, "slow")
    assert span is not None
    assert (span.trace_id, span.parent_id) == ("a" * 32, "b" * 16)
    assert (span.start_ns, span.duration_ns, span.error) == (1000, 500, "slow")
    assert tracer.record("decode", "", 1000, 500) is None


def test_last_trace_is_the_last_root_with_children_or_the_one_named() -> None:
    tracer = Tracer()
    assert tracer.last_trace() == []
    root = tracer.start("turn")
    tracer.start("stt", root.traceparent).end()
    root.end()
    tracer.start("lonely").end()
    assert [span.name for span in tracer.last_trace()] == ["turn", "stt"]
    assert [span.name for span in tracer.last_trace("lonely")] == ["lonely"]
    assert tracer.last_trace("nothing") == []


def test_secrets_do_not_reach_spans() -> None:
    tracer = Tracer()
    tracer.redact = lambda text: text.replace("hunter2", "[redacted]")
    with pytest.raises(ValueError, match="hunter2"), tracer.start("a", "", {"key": "hunter2"}):
        raise ValueError("bad key hunter2")
    span = tracer.finished()[0]
    assert (span.attributes, span.error) == ({"key": "[redacted]"}, "bad key [redacted]")


# Waterfall


def made(name: str, span_id: str, parent: str, start: int, end: int, error: str = "") -> Span:
    row = {"name": name, "trace_id": "t", "span_id": span_id, "parent_id": parent}
    times = {"start_ns": start * 10**6, "end_ns": end * 10**6}
    return Span.from_row({**row, **times, "attributes": {}, "error": error})


def test_waterfall_draws_the_tree_in_time() -> None:
    spans = [
        made("tts", "4", "1", 50, 100, "no voice\ntrace"),
        made("turn", "1", "", 0, 100),
        made("decode", "3", "2", 25, 50),
        made("stt", "2", "1", 0, 50),
    ]
    assert waterfall(spans, 60) == [
        "turn       ████████████████████████████████████     100.0 ms",
        "  stt      ██████████████████                        50.0 ms",
        "    decode          █████████                        25.0 ms",
        "  tts                        ██████████████████      50.0 ms  ! no voice",
    ]
    assert [(depth, span.name) for depth, span in tree(spans)] == [
        (0, "turn"),
        (1, "stt"),
        (2, "decode"),
        (1, "tts"),
    ]


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], []),
        ([made("orphan", "2", "gone", 0, 1)], [(0, "orphan")]),
        ([made("self", "1", "1", 0, 1)], [(0, "self")]),
        ([made("a", "1", "2", 0, 1), made("b", "2", "1", 0, 1)], [(0, "a"), (0, "b")]),
    ],
)
def test_faulty_trees_are_drawn_too(spans: list[Span], expected: list[tuple[int, str]]) -> None:
    assert sorted((depth, span.name) for depth, span in tree(spans)) == expected
    assert len(waterfall(spans)) == len(expected)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 10**6), st.integers(0, 10**6))))
def test_waterfall_lines_have_one_width_and_lose_no_span(rows: list[tuple[int, int, int]]) -> None:
    spans = [
        made(f"n{n}", str(n), str(parent), start, start + length)
        for n, (parent, start, length) in enumerate(rows)
    ]
    lines = waterfall(spans, 80)
    assert len(lines) == len(spans)
    assert len({len(line) for line in lines}) <= 1


def test_a_row_survives_json() -> None:
    tracer = Tracer()
    tracer.start("a", attributes={"n": 1}).end("oops")
    row = tracer.finished()[0].to_row()
    assert Span.from_row(json.loads(json.dumps(row))).to_row() == row


# Metrics


def test_every_standard_metric_is_rendered() -> None:
    text = Meter().render_prometheus()
    for name, kind, _, help in STANDARD:
        assert f"# HELP {name} {help}\n# TYPE {name} {kind}\n" in text


def test_prometheus_text_is_parsed_by_its_own_client() -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    meter = Meter()
    odd = 'a"b\\c\nd'
    meter.counter("published_events_total").inc(odd, by=3)
    meter.gauge("temperature", "line\nbreak").set(-1.5)
    histogram = meter.histogram("took_seconds", "Time.", ("who",), bounds=(0.1, 1.0))
    for value in (0.1, 0.5, 5.0):
        histogram.observe(value, "x")
    families = {f.name: f for f in parser.text_string_to_metric_families(meter.render_prometheus())}
    samples = {
        (s.name, tuple(s.labels.values())): s.value for f in families.values() for s in f.samples
    }
    assert samples["published_events_total", (odd,)] == 3
    assert samples["temperature", ()] == -1.5
    assert samples["took_seconds_bucket", ("x", "0.1")] == 1
    assert samples["took_seconds_bucket", ("x", "1")] == 2
    assert samples["took_seconds_bucket", ("x", "+Inf")] == 3
    assert samples["took_seconds_count", ("x",)] == 3
    assert samples["took_seconds_sum", ("x",)] == pytest.approx(5.6)
    assert families["temperature"].documentation == "line\nbreak"


def test_label_sets_are_bounded() -> None:
    meter = Meter()
    counter = meter.counter("c", labels=("id",))
    histogram = meter.histogram("h", labels=("id",))
    for number in range(SERIES_MAX + 10):
        counter.inc(str(number))
        histogram.observe(1, str(number))
    assert counter.values["other",] == 10
    assert histogram.distributions["other",].count == 10
    counter.replace({(str(n),): 1.0 for n in range(SERIES_MAX + 5)})
    assert counter.values["other",] == 5


def test_a_wrong_number_of_labels_is_an_error() -> None:
    with pytest.raises(ValueError, match="topic"):
        Meter().counter("published_events_total").inc()
    with pytest.raises(ValueError, match="has the labels"):
        Meter().histogram("action_latency_seconds").observe(1.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [(float("inf"), "+Inf"), (float("-inf"), "-Inf"), (float("nan"), "NaN"), (2.0, "2")],
)
def test_numbers_as_prometheus_writes_them(value: float, text: str) -> None:
    meter = Meter()
    meter.gauge("g").set(value)
    assert f"\ng {text}\n" in meter.render_prometheus()


async def test_the_bus_is_counted_and_its_sampled_events_are_spans() -> None:
    telemetry = Telemetry(Settings(), env={})
    bus = MemoryBus(on_publish=telemetry.on_publish, on_dispatch=telemetry.on_dispatch)
    telemetry.watch_bus(bus.stats)
    subscription = bus.subscribe("t", name="mine", capacity=1)
    for _ in range(2):
        bus.publish_nowait("t", Event("test", traceparent=TRACE + "01"))
    text = telemetry.meter.render_prometheus()
    assert 'published_events_total{topic="t"} 2' in text
    assert 'delivered_events_total{topic="t"} 1' in text
    assert 'dropped_events_total{topic="t",reason="queue_full"} 1' in text
    assert 'subscription_queue_depth{subscription="mine"} 1' in text
    assert [s.name for s in telemetry.tracer.finished("a" * 32)] == ["publish t"] * 2
    subscription.close()


def test_actions_and_routes_are_counted() -> None:
    telemetry = Telemetry(Settings(), env={})
    telemetry.on_action("stt.transcribe", "whisper", "ok", 0.3)
    telemetry.on_action("stt.transcribe", "whisper", "timeout", 30.0)
    telemetry.on_route("local", "privacy")
    telemetry.on_no_route("weather.get")
    telemetry.on_handled(0.001, "")
    telemetry.started(0.1)
    text = telemetry.meter.render_prometheus()
    assert 'action_invocations_total{capability="stt.transcribe",provider="whisper"} 2' in text
    assert 'action_errors_total{capability="stt.transcribe",code="timeout"} 1' in text
    assert 'action_latency_seconds_count{capability="stt.transcribe"} 2' in text
    assert 'routing_decisions_total{route="local",reason="privacy"} 1' in text
    assert 'routing_no_match_total{capability="weather.get"} 1' in text
    assert "host_start_seconds 0.1" in text


# Logs


def test_json_lines_carry_plugin_trace_and_extras() -> None:
    stream = io.StringIO()
    logs = configure("info", json=True, stream=stream, loggers=("t1",))
    extra = {"plugin": "stt", "traceparent": TRACE + "01", "beam": 5, "path": object}
    try:
        logging.getLogger("t1.sub").info("heard %d", 3, extra=extra)
        logging.getLogger("t1").debug("not shown")
        token = current.set(f"00-{'c' * 32}-{'d' * 16}-01")
        try:
            raise KeyError("x")
        except KeyError:
            logging.getLogger("t1").exception("failed")
        current.reset(token)
    finally:
        logs.close()
    logging.getLogger("t1").warning("after close")
    first, second = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "info",
        "logger": "t1.sub",
        "message": "heard 3",
        "plugin": "stt",
        "trace_id": "a" * 32,
        "span_id": "b" * 16,
        "extra": {"beam": 5, "path": str(object)},
    }
    assert (second["trace_id"], second["span_id"]) == ("c" * 32, "d" * 16)
    assert "KeyError" in second["exception"]


def test_secrets_are_hidden_in_every_part_of_a_line() -> None:
    stream = io.StringIO()
    logs = configure(json=True, stream=stream, loggers=("t2",))
    logs.redact(["s3cret-key", 'quo"te', "abc"])
    try:
        raise ValueError("s3cret-key in an error")
    except ValueError:
        logging.getLogger("t2").exception(
            "key %s", "s3cret-key", extra={"nested": {"s3cret-key": ['quo"te', 1]}}
        )
    logging.getLogger("t2").warning("abc stays: too short")
    logs.close()
    text = stream.getvalue()
    assert "s3cret" not in text
    assert "quo" not in text
    assert "abc stays" in text
    assert "s3cret" not in json.dumps(logs.recent())
    assert json.loads(text.splitlines()[0])["extra"] == {
        "nested": {"[redacted]": ["[redacted]", 1]}
    }


def test_the_ring_keeps_the_last_records_of_each_plugin() -> None:
    logs = configure(stream=io.StringIO(), loggers=("t3",))
    logger = logging.getLogger("t3")
    for number in range(RING + 100):
        logger.debug("%d", number, extra={"plugin": "chatty"})  # t3 is not below loom.plugin
        logger.info("%d", number, extra={"plugin": "chatty"})
    logger.info("rare", extra={"plugin": "quiet"})
    logger.info("the host's own")
    logs.close()
    last = [e["message"] for e in logs.recent("chatty", 2)]
    assert last == [str(RING + 98), str(RING + 99)]
    assert len(logs.recent("chatty", 10 * RING)) == RING
    assert [e["message"] for e in logs.recent("quiet")] == ["rare"]
    assert [e["message"] for e in logs.recent("")] == ["the host's own"]
    assert len(logs.recent(limit=10 * RING)) == RING + 2
    assert logs.recent("nobody") == logs.recent(limit=0) == []


def test_a_plugin_cannot_begin_another_line_or_drive_the_terminal() -> None:
    stream = io.StringIO()
    logs = configure("info", stream=stream)
    told = "fine\n00:00:00.000 ERROR   host: \x1b[2J\u2028\x9b2J"
    logging.getLogger("loom.plugin.p").info("%s", told, extra={"plugin": "p"})
    logging.getLogger("loom.host").error("a\nb")
    logs.close()
    lines = stream.getvalue().split("\n")
    assert lines[0].endswith(r"p: fine\n00:00:00.000 ERROR   host: \x1b[2J\u2028\x9b2J")
    assert lines[1].endswith("loom.host: a")


def test_an_error_loses_its_secrets() -> None:
    redactor = Redactor()
    failed = ActionFailed("key s3cret is bad", code="LOGIN", data={"tried": ["s3cret"]})
    redactor.error(failed)
    assert failed.message == "key s3cret is bad"
    redactor.add(["s3cret"])
    redactor.error(failed)
    assert (failed.message, str(failed)) == ("key [redacted] is bad",) * 2
    assert (failed.code, failed.data) == ("LOGIN", {"tried": ["[redacted]"]})
    failed.code = "BAD_s3cret"
    redactor.error(failed)
    assert failed.code == "BAD_[redacted]"
    over = QuotaExceeded(plugin_id="a/p", quota="s3cret", limit=1, used=2)
    redactor.error(over)
    assert "s3cret" not in over.message
    assert over.plugin_id == "a/p"


def test_hosts_of_one_process_close_in_any_order_and_leave_the_levels_as_they_were() -> None:
    loggers = [logging.getLogger(name) for name in (*LOGGERS, PLUGIN_LOGGER)]
    before = [logger.level for logger in loggers]
    quiet, chatty = (
        configure("error", stream=io.StringIO()),
        configure("debug", stream=io.StringIO()),
    )
    assert {logger.level for logger in loggers} == {logging.DEBUG}
    quiet.close()
    assert {logger.level for logger in loggers} == {logging.DEBUG}
    later = configure("error", stream=io.StringIO())
    chatty.close()
    assert {logger.level for logger in loggers[:-1]} == {logging.ERROR}
    later.close()
    later.close()
    assert [logger.level for logger in loggers] == before


def test_text_lines_are_for_people_and_a_wrong_level_is_refused() -> None:
    stream = io.StringIO()
    logs = configure(stream=stream, loggers=("t4",))
    logging.getLogger("t4").warning("slow", extra={"plugin": "stt", "ms": 40})
    logs.close()
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} WARNING stt: slow ms=40\n", stream.getvalue())
    with pytest.raises(ValueError, match="loud"):
        configure("loud")


# /metrics and /healthz


@pytest.fixture
async def server() -> AsyncIterator[MetricsServer]:
    meter = Meter()
    meter.counter("published_events_total").inc("t")
    answers = iter([(True, {"plugins": {"stt": "ready"}}), (False, {"plugins": {"stt": "failed"}})])
    async with MetricsServer(meter, lambda: next(answers), 0) as running:
        yield running


async def ask(server: MetricsServer, request: bytes) -> tuple[int, str, str]:
    """Status, head and body of one request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    async with asyncio.timeout(5):
        answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), head, body


async def test_metrics_and_health_are_served(server: MetricsServer) -> None:
    status, head, body = await ask(server, b"GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (status, 'published_events_total{topic="t"} 1' in body) == (200, True)
    assert "text/plain; version=0.0.4" in head
    assert f"Content-Length: {len(body)}" in head
    status, _, body = await ask(server, b"GET /healthz HTTP/1.1\r\n\r\n")
    assert (status, json.loads(body)) == (200, {"status": "ok", "plugins": {"stt": "ready"}})
    status, _, body = await ask(server, b"GET /healthz HTTP/1.1\r\n\r\n")
    assert (status, json.loads(body)["status"]) == (503, "unhealthy")


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"GET /metrics\r\n\r\n", 400),
        (b"\xff\x00 \r\n\r\n", 400),
        (b"GET /metrics SPDY/3\r\n\r\n", 400),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", 431),
    ],
)
async def test_bad_requests_get_a_plain_answer(
    server: MetricsServer, request_: bytes, expected: int
) -> None:
    status, _, _ = await ask(server, request_)
    assert status == expected


async def test_a_silent_client_is_cut_off(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loom_host.telemetry.server.TIMEOUT_S", 0.05)
    status, _, _ = await ask(server, b"GET /metrics")
    assert status == 408


async def test_telemetry_serves_on_its_port_and_says_when_it_is_taken() -> None:
    async with MetricsServer(Meter(), lambda: (True, {}), 0) as other:
        taken = Telemetry(Settings(http_port=other.port), env={})
        with pytest.raises(ConfigError, match="http_port"):
            await taken.start(lambda: (True, {}))
        await taken.aclose()
    telemetry = Telemetry(Settings(http_port=other.port), env={})
    telemetry.redact("top-secret")
    await telemetry.start(lambda: (True, {}))
    assert telemetry.server is not None
    status, _, _ = await ask(telemetry.server, b"GET /healthz HTTP/1.1\r\n\r\n")
    assert status == 200
    telemetry.tracer.start("a", "", {"k": "top-secret"}).end()
    rows: list[dict[str, Any]] = telemetry.last_trace()
    assert rows[0]["attributes"] == {"k": "[redacted]"}
    await telemetry.aclose()
    await telemetry.aclose()


def test_opentelemetry_is_not_imported_unless_it_exports() -> None:
    code = (
        "import sys, loom_host.telemetry as t; t.Tracer().start('a').end();"
        "t.Meter().render_prometheus();"
        "sys.exit(any(m.startswith('opentelemetry') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
