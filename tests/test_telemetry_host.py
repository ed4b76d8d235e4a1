"""Telemetry of whole hosts: every metric fed, the endpoints, exporters, sampling, JSON logs."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from loom_host import Event, Host, QoS, load_settings
from loom_host.telemetry.metrics import STANDARD
from loom_sdk.errors import ActionFailed, CapabilityNotFound, DeadlineExceeded, NoProvider

from .hosting import host_tables, native_host, until
from .support import ROOT
from .test_telemetry_export import Collector, attributes_of, collector

__all__ = ["collector"]

LAB: dict[str, Any] = {
    "allow": {
        "provide": ["lab.*"],
        "subscribe": ["notes.*", "anotes"],
        "publish": ["echo", "aecho"],
    }
}
CLOUD: dict[str, Any] = {"allow": {"provide": ["prober.*"], "network": ["http://127.0.0.1:*"]}}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def get(port: int, path: str) -> tuple[int, str]:
    """Status and body of one request to this machine."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    async with asyncio.timeout(5):
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body


def samples_of(text: str) -> dict[str, float]:
    """Series, as written, to value."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {series: float(value) for series, _, value in (line.rpartition(" ") for line in lines)}


# -- metrics


@asynccontextmanager
async def metered(folder: Path) -> AsyncIterator[tuple[Host, Callable[[], Any]]]:
    """A host with two local providers of `lab.greet`, one of them broken, and one in the cloud."""
    broken = {"allow": {"provide": ["lab.greet"]}, "tier": "grpc"}
    tables = host_tables(folder, lab=LAB, prober=CLOUD, sulky=broken)
    port = tables["telemetry"]["http_port"] = free_port()
    tables["providers"] = {"lab.greet": ["lab", "sulky"]}
    tables["agents"] = {
        "clerk": {"plugin": "lab"},
        "hermit": {"parameters": {"routing": {"privacy": "local-only"}}},
    }

    async def read() -> dict[str, float]:
        status, text = await get(port, "/metrics")
        assert status == 200
        return samples_of(text)

    async with Host(load_settings(None, tables)) as host:
        yield host, read


async def do_everything(host: Host) -> asyncio.Task[Any]:
    """Whatever moves a metric, ending with a nap that makes three notes wait."""
    async with host.bus.subscribe("crowd", capacity=1, name="slow", qos=QoS.BATCHED):
        for _ in range(3):
            host.bus.publish_nowait("crowd", Event("drop"))
    for _ in range(64):
        await host.bus.publish("anotes", Event("note"))
    await until(lambda: not host.busy())
    await host.invoke("lab.greet", {"name": "bo"})
    await host.invoke("lab.agreet", {"name": "bo"})
    with pytest.raises(ActionFailed):
        await host.invoke("lab.fail", {"how": "typed"})
    with pytest.raises(DeadlineExceeded):
        await host.invoke("lab.nap", {"seconds": 30}, timeout_ms=10)
    with pytest.raises(CapabilityNotFound):
        await host.invoke("lab.nothing")
    with pytest.raises(NoProvider):
        await host.invoke("prober.aask", {"what": "x"}, agent="hermit")
    napping = asyncio.create_task(host.invoke("lab.nap", {"seconds": 30}))
    await until(lambda: host.plugins["lab"].slots.full)
    for number in range(4):  # the first one is in the hands of the pump, and waits for its turn
        await host.bus.publish("notes.a", Event(str(number)))
    await until(lambda: host.plugins["lab"].slots._waiting)
    return napping


FED: list[tuple[str, str, float]] = [
    ("published_events_total", '{topic="anotes"}', 64),
    ("delivered_events_total", '{topic="anotes"}', 64),
    ("dropped_events_total", '{topic="crowd",reason="queue_full"}', 2),
    ("event_dispatch_latency_seconds", '_count{subscription="clerk:anotes"}', 1),
    ("subscription_queue_depth", '{subscription="clerk:notes.*"}', 3),
    ("agent_mailbox_size", '{agent="clerk"}', 3),
    ("agent_mailbox_wait_seconds", '_count{agent="clerk"}', 65),
    ("agent_dispatch_latency_seconds", '_count{agent="clerk"}', 64),
    ("action_invocations_total", '{capability="lab.greet",provider="lab"}', 1),
    ("action_errors_total", '{capability="lab.fail",code="CAPABILITY_ERROR"}', 1),
    ("action_errors_total", '{capability="lab.nap",code="DEADLINE_EXCEEDED"}', 1),
    ("action_latency_seconds", '_count{capability="lab.greet"}', 1),
    ("routing_decisions_total", '{route="Local",reason="No cloud provider is configured"}', 1),
    ("routing_decisions_total", '{route="Local",reason="Only provider"}', 4),
    ("routing_no_match_total", '{capability="lab.nothing"}', 1),
    ("routing_no_match_total", '{capability="prober.aask"}', 1),
]
"""Metric, the rest of the series' name, and its value after `do_everything`."""


async def test_every_metric_is_fed_by_a_running_host(tmp_path: Path) -> None:
    assert {name for name, _, _ in FED} == {name for name, *_ in STANDARD}
    async with metered(tmp_path) as (host, read):
        before = await read()
        assert not {name + rest for name, rest, _ in FED if before.get(name + rest)}
        napping = await do_everything(host)
        after = await read()
        napping.cancel()
    found = [(name, rest, after.get(name + rest)) for name, rest, _ in FED]
    assert found == FED
    sums = [name for name, kind, *_ in STANDARD if kind == "histogram"]
    for name in sums:
        total = sum(v for series, v in after.items() if series.startswith(f"{name}_sum"))
        assert total > 0, name
    assert after["host_start_seconds"] > 0


def test_every_metric_is_documented() -> None:
    text = (ROOT / "docs" / "TELEMETRY.md").read_text()
    for name, _, labels, _ in STANDARD:
        assert f"| `{name}` | {', '.join(labels)} |" in text


async def test_a_mailbox_empties_when_the_agent_is_free_again(tmp_path: Path) -> None:
    async with metered(tmp_path) as (host, read):
        napping = await do_everything(host)
        assert (await read())['agent_mailbox_size{agent="clerk"}'] == 3
        napping.cancel()
        await until(lambda: not host.busy())
        assert (await read())['agent_mailbox_size{agent="clerk"}'] == 0


# -- /metrics and /healthz


async def test_the_endpoints_listen_on_loopback_only_and_only_when_configured(
    tmp_path: Path,
) -> None:
    def listening() -> set[tuple[str, int]]:
        return {
            (c.laddr.ip, c.laddr.port)
            for c in psutil.Process().net_connections("inet")
            if c.status == psutil.CONN_LISTEN
        }

    before = listening()
    async with native_host(tmp_path / "closed", lab=LAB) as host:
        assert host.telemetry.server is None
        assert listening() == before
    tables = host_tables(tmp_path / "open", lab=LAB)
    port = tables["telemetry"]["http_port"] = free_port()
    async with Host(load_settings(None, tables)):
        assert listening() - before == {("127.0.0.1", port)}
        status, body = await get(port, "/healthz")
        assert (status, json.loads(body)) == (200, {"status": "ok", "plugins": {"lab": "ready"}})
    assert listening() == before


async def test_health_is_503_while_a_plugin_has_failed(tmp_path: Path) -> None:
    tables = host_tables(tmp_path, lab=LAB, sulky={})
    port = tables["telemetry"]["http_port"] = free_port()
    async with Host(load_settings(None, tables)):
        status, body = await get(port, "/healthz")
        states = {"lab": "ready", "sulky": "failed"}
        assert (status, json.loads(body)) == (503, {"status": "unhealthy", "plugins": states})


# -- spans


async def test_a_plugins_own_span_begins_after_the_wait_for_its_turn(tmp_path: Path) -> None:
    async with native_host(tmp_path, lab=LAB) as host:
        await asyncio.gather(
            host.invoke("lab.nap", {"seconds": 0.05}), host.invoke("lab.spanned", {})
        )
        spans = {span.name: span for span in host.telemetry.tracer.finished()}
        waited, own = spans["invoke lab.spanned"], spans["inner"]
        assert waited.start_ns < spans["invoke lab.nap"].end_ns <= own.start_ns
        assert own.end_ns <= waited.end_ns


# -- exporters


async def traced_call(host: Host) -> str:
    """One call and one event below a root; returns the trace id."""
    with host.telemetry.tracer.start("turn") as root:
        await host.invoke("lab.spanned", traceparent=root.traceparent)
        await host.bus.publish("anotes", Event("note", traceparent=root.traceparent))
        await until(lambda: host.plugins["lab"].counters.events)
        await until(lambda: not host.busy())
    return root.traceparent.split("-")[1]


async def test_a_hosts_spans_and_metrics_reach_an_otlp_collector(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "kitchen")
    async with native_host(tmp_path, lab=LAB) as host:
        trace_id = await traced_call(host)
    sent = {span.name: span for span in collector.spans() if span.trace_id.hex() == trace_id}
    parents = {
        "invoke lab.spanned": "turn", "inner": "invoke lab.spanned", "publish anotes": "turn",
        "handle anotes": "publish anotes", "publish aecho": "handle anotes",
    }  # fmt: skip
    assert set(sent) == {"turn", *parents}
    for name, parent in parents.items():
        assert sent[name].parent_span_id == sent[parent].span_id, name
    assert attributes_of(sent["inner"]) == {"part": "one", "plugin": "lab"}
    resource = collector.metrics[-1].resource_metrics[0]
    assert attributes_of(resource.resource)["service.name"] == "kitchen"
    metrics = {metric.name: metric for metric in resource.scope_metrics[0].metrics}
    points = metrics["action_invocations_total"].sum.data_points
    counts = {attributes_of(point)["capability"]: point.as_double for point in points}
    assert counts == {"lab.spanned": 1}


async def test_the_console_exporters_write_to_stderr_and_none_writes_nothing(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    for exporter, expected in (("console", True), ("none", False)):
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", exporter)
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", exporter)
        async with native_host(tmp_path / exporter, lab=LAB) as host:
            trace_id = await traced_call(host)
        assert (f'"trace_id": "0x{trace_id}"' in err.getvalue()) is expected
        assert ('"name": "action_invocations_total"' in err.getvalue()) is expected
        assert out.getvalue() == ""
    assert (collector.traces, collector.metrics) == ([], [])


# -- sampling


@pytest.mark.parametrize(
    ("ratio", "env", "sampled"),
    [
        (1.0, {}, True),
        (0.0, {}, False),
        (1.0, {"OTEL_TRACES_SAMPLER": "always_off"}, False),
        (0.0, {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1"}, True),
    ],
)
async def test_sampling_is_configured_and_the_environment_overrules(
    ratio: float, env: dict[str, str], sampled: bool, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    tables = host_tables(tmp_path, lab=LAB)
    tables["telemetry"]["sample_ratio"] = ratio
    async with Host(load_settings(None, tables)) as host:
        await traced_call(host)
        names = {span.name for span in host.telemetry.tracer.finished()}
        assert ({"turn", "invoke lab.spanned", "inner", "handle anotes"} <= names) is sampled
        assert bool(names) is sampled
        text = host.telemetry.meter.render_prometheus()
        assert 'action_invocations_total{capability="lab.spanned",provider="lab"} 1' in text


# -- logs


async def test_every_line_is_json_and_names_the_trace_it_belongs_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    tables = host_tables(tmp_path, lab=LAB)
    tables["telemetry"] = {"log_level": "info", "log_format": "json"}
    async with Host(load_settings(None, tables)) as host:
        with host.telemetry.tracer.start("turn") as root:
            await host.invoke("lab.greet", {"name": "bo"}, traceparent=root.traceparent)
            await host.bus.publish("notes.a", Event("bad", traceparent=root.traceparent))
            await until(lambda: host.plugins["lab"].counters.errors)
        spans = {span.name: span for span in host.telemetry.tracer.finished(root.trace_id)}
    entries = [json.loads(line) for line in stream.getvalue().splitlines()]
    told = {entry["message"]: entry for entry in entries}
    greeting = told["greeting bo"]
    assert (greeting["plugin"], greeting["level"]) == ("lab", "warning")
    assert greeting["trace_id"] == root.trace_id
    assert greeting["span_id"] == spans["invoke lab.greet"].span_id
    (failure,) = [e for text, e in told.items() if "cannot read this" in text]
    assert (failure["logger"], failure["plugin"]) == ("loom.pump", "lab")
    assert failure["trace_id"] == root.trace_id
    assert failure["span_id"] == spans["publish notes.a"].span_id
    assert "cannot read this" in spans["handle notes.a"].error
    assert "trace_id" not in told["lab: ready "]
