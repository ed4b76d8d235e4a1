"""Tests of `loom_host.telemetry.export` against a real OTLP receiver on loopback."""

from __future__ import annotations

import asyncio
import gzip
import io
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from loom_host.telemetry import Meter, Tracer
from loom_host.telemetry import export as export_module
from loom_host.telemetry.export import Exporter, ExportSettings, settings_from_env
from loom_sdk.errors import ConfigError


class Collector(ThreadingHTTPServer):
    """Keeps the decoded requests; `hold` delays answers, `status` is what it says."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.traces: list[ExportTraceServiceRequest] = []
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.status = 200
        self.came = threading.Event()
        self.hold = threading.Event()
        self.hold.set()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def spans(self) -> list[Any]:
        return [
            span
            for request in self.traces
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.hold.wait(10)
        if self.path == "/v1/traces":
            self.server.traces.append(ExportTraceServiceRequest.FromString(body))
        elif self.path == "/v1/metrics":
            self.server.metrics.append(ExportMetricsServiceRequest.FromString(body))
            self.server.came.set()
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.hold.set()
    server.shutdown()
    thread.join()
    server.server_close()


def attributes_of(item: Any) -> dict[str, Any]:
    return {
        pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in item.attributes
    }


async def test_spans_arrive_at_an_otlp_collector_as_they_were(collector: Collector) -> None:
    settings = settings_from_env(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_SERVICE_NAME": "kitchen",
            "OTEL_RESOURCE_ATTRIBUTES": "room=living%20room",
        }
    )
    tracer = Tracer()
    exporter = Exporter(settings, tracer, Meter())
    exporter.start()
    root = tracer.start("turn", attributes={"plugin": "vad", "n": 2, "ok": True, "x": 0.5})
    child = tracer.start("stt", root.traceparent)
    child.end("no speech")
    root.end()
    await exporter.aclose()
    assert (exporter.exported, exporter.dropped, exporter.failed) == (2, 0, 0)
    resource = attributes_of(collector.traces[0].resource_spans[0].resource)
    assert (resource["service.name"], resource["room"]) == ("kitchen", "living room")
    sent = {span.name: span for span in collector.spans()}
    turn, stt = sent["turn"], sent["stt"]
    assert turn.trace_id.hex() == stt.trace_id.hex() == root.trace_id
    assert (turn.span_id.hex(), turn.parent_span_id) == (root.span_id, b"")
    assert stt.parent_span_id == turn.span_id
    assert attributes_of(turn) == {"plugin": "vad", "n": 2, "ok": True, "x": 0.5}
    assert (stt.status.code, stt.status.message) == (2, "no speech")
    assert (turn.start_time_unix_nano, turn.end_time_unix_nano) == (root.start_ns, root.end_ns)


async def test_spans_of_private_turns_are_kept_here(collector: Collector) -> None:
    tracer = Tracer()
    settings = ExportSettings(("otlp",), traces_endpoint=f"{collector.endpoint}/v1/traces")
    exporter = Exporter(settings, tracer, Meter())
    exporter.start()
    for level in ("public", "sensitive", "private", "local-only"):
        tracer.start(f"in {level}", attributes={"privacy": level}).end("what was said")
    await exporter.aclose()
    assert [span.name for span in collector.spans()] == ["in public", "in sensitive"]
    assert exporter.withheld == 2
    assert len(tracer.finished()) == 4


async def test_metrics_arrive_at_an_otlp_collector_now_and_at_the_end(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "PERIOD_S", 0.05)
    settings = ExportSettings(
        metrics=("otlp",), metrics_endpoint=f"{collector.endpoint}/v1/metrics", interval_s=0.05
    )
    meter = Meter()
    loops: list[int] = []
    meter.add_collector(lambda _: loops.append(threading.get_ident()))
    meter.counter("published_events_total").inc("audio.mic", by=7)
    meter.gauge("agent_mailbox_size").set(3, "voice")
    for value in (0.0001, 0.3, 60.0):
        meter.histogram("action_latency_seconds").observe(value, "stt.transcribe")
    exporter = Exporter(settings, Tracer(), meter)
    exporter.start()
    await asyncio.to_thread(collector.came.wait, 8)
    meter.counter("published_events_total").inc("audio.mic")
    await exporter.aclose()
    assert set(loops) == {threading.get_ident()}
    assert len(collector.metrics) >= 2
    scope = collector.metrics[-1].resource_metrics[0].scope_metrics[0]
    sent = {metric.name: metric for metric in scope.metrics}
    total = sent["published_events_total"].sum
    assert (total.is_monotonic, total.data_points[0].as_double) == (True, 8)
    assert attributes_of(total.data_points[0]) == {"topic": "audio.mic"}
    assert sent["agent_mailbox_size"].gauge.data_points[0].as_double == 3
    point = sent["action_latency_seconds"].histogram.data_points[0]
    assert (point.count, sum(point.bucket_counts), point.bucket_counts[-1]) == (3, 3, 1)
    assert (point.min, point.max) == (0.0001, 60.0)
    assert sent["action_latency_seconds"].unit == "s"


async def test_a_stuck_collector_neither_blocks_nor_hides_what_was_dropped(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(export_module, "QUEUE_MAX", 10)
    monkeypatch.setattr(export_module, "BATCH", 5)
    collector.hold.clear()
    tracer = Tracer()
    settings = ExportSettings(traces=("otlp",), traces_endpoint=f"{collector.endpoint}/v1/traces")
    exporter = Exporter(settings, tracer, Meter())
    exporter.start()
    for _ in range(100):
        tracer.start("a").end()
    assert exporter.dropped >= 100 - 10 - 5 * 2
    collector.hold.set()
    await exporter.aclose()
    assert exporter.dropped + exporter.exported == 100
    assert len(collector.spans()) == exporter.exported
    assert f"{exporter.dropped} spans were not exported" in caplog.text


async def test_closing_gives_up_on_a_dead_collector(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 503
    tracer = Tracer()
    settings = ExportSettings(traces=("otlp",), traces_endpoint=f"{collector.endpoint}/v1/traces")
    exporter = Exporter(settings, tracer, Meter())
    exporter.start()
    tracer.start("a").end()
    with caplog.at_level(logging.CRITICAL, "opentelemetry"):
        async with asyncio.timeout(8):
            await exporter.aclose(timeout_s=1.5)
    assert not exporter._thread.is_alive()
    assert exporter.exported == 0


async def test_the_console_exporters_write_where_told() -> None:
    out = io.StringIO()
    tracer, meter = Tracer(), Meter()
    meter.counter("published_events_total").inc("t")
    settings = settings_from_env(
        {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "console"}
    )
    exporter = Exporter(settings, tracer, meter, out)
    exporter.start()
    tracer.start("turn").end()
    await exporter.aclose()
    assert '"name": "turn"' in out.getvalue()
    assert '"published_events_total"' in out.getvalue()


async def test_without_an_exporter_no_thread_runs() -> None:
    tracer = Tracer()
    exporter = Exporter(settings_from_env({}), tracer, Meter())
    exporter.start()
    tracer.start("a").end()
    await exporter.aclose()
    assert tracer.sinks == []
    assert not exporter._thread.is_alive()


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, {"traces": (), "metrics": (), "sample_ratio": None, "service_name": "loom"}),
        ({"OTEL_TRACES_EXPORTER": "otlp,console"}, {"traces": ("otlp", "console")}),
        ({"OTEL_TRACES_EXPORTER": "none"}, {"traces": ()}),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"},
            {"traces": ("otlp",), "traces_endpoint": "http://c:4318/v1/traces"},
        ),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/mine"},
            {"traces_endpoint": "http://c/mine", "metrics": ()},
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"},
            {"traces": ()},
        ),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=x,a=b"}, {"service_name": "x"}),
        ({"OTEL_TRACES_SAMPLER_ARG": "0.25"}, {"sample_ratio": 0.25}),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, {"sample_ratio": 0.0}),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "500"}, {"interval_s": 0.5}),
    ],
)
def test_the_standard_variables(env: dict[str, str], expected: dict[str, Any]) -> None:
    settings = settings_from_env(env)
    assert {key: getattr(settings, key) for key in expected} == expected


@pytest.mark.parametrize(
    "env",
    [
        {"OTEL_TRACES_EXPORTER": "jaeger"},
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        {"OTEL_TRACES_SAMPLER": "sometimes"},
        {"OTEL_TRACES_SAMPLER_ARG": "half"},
        {"OTEL_TRACES_SAMPLER_ARG": "2"},
        {"OTEL_TRACES_SAMPLER_ARG": "nan"},
        {"OTEL_RESOURCE_ATTRIBUTES": "room"},
    ],
)
def test_a_wrong_variable_is_named(env: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=list(env)[-1]):
        settings_from_env(env)
