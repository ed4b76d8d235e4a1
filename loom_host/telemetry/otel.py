"""Our spans and metrics as the OpenTelemetry SDK's. The only file that imports that SDK."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ConsoleMetricExporter,
    HistogramDataPoint,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.metrics.export import Gauge as GaugeData
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.metrics.export import Metric as MetricData
from opentelemetry.sdk.metrics.export import Sum as SumData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from .metrics import Histogram, Metric
from .spans import Span

if TYPE_CHECKING:
    from .export import ExportSettings

_SCOPE = InstrumentationScope("loom")
_TOTAL = AggregationTemporality.CUMULATIVE


class Translator:
    """Builds the SDK's exporters and feeds them."""

    def __init__(self, settings: ExportSettings, out: TextIO) -> None:
        attributes = {**settings.resource, "service.name": settings.service_name}
        self._resource = Resource.create(attributes)
        self._began = time.time_ns()
        self._spans = [_span_exporter(n, settings.traces_endpoint, out) for n in settings.traces]
        self._metrics = [
            _metric_exporter(n, settings.metrics_endpoint, out) for n in settings.metrics
        ]

    def export_spans(self, spans: Iterable[Span]) -> bool:
        """Whether every exporter took them."""
        batch = [self._readable(span) for span in spans]
        results = [exporter.export(batch) for exporter in self._spans]
        return all(result is SpanExportResult.SUCCESS for result in results)

    def export_metrics(self, metrics: Iterable[Metric]) -> bool:
        data = self._data([_metric(metric, self._began, time.time_ns()) for metric in metrics])
        results = [exporter.export(data) for exporter in self._metrics]
        return all(result is MetricExportResult.SUCCESS for result in results)

    def shutdown(self) -> None:
        """Breaks off a running export too; call it once, from any thread."""
        for span_exporter in self._spans:
            span_exporter.shutdown()
        for metric_exporter in self._metrics:
            metric_exporter.shutdown()

    def _readable(self, span: Span) -> ReadableSpan:
        parent = _context(span.trace_id, span.parent_id) if span.parent_id else None
        return ReadableSpan(
            span.name,
            context=_context(span.trace_id, span.span_id),
            parent=parent,
            resource=self._resource,
            attributes=span.attributes,
            kind=SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(),
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=_SCOPE,
        )

    def _data(self, metrics: Sequence[MetricData]) -> MetricsData:
        scope = ScopeMetrics(_SCOPE, metrics, "")
        return MetricsData([ResourceMetrics(self._resource, [scope], "")])


def _context(trace_id: str, span_id: str) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), False, TraceFlags(TraceFlags.SAMPLED))


def _span_exporter(name: str, endpoint: str, out: TextIO) -> SpanExporter:
    if name == "console":
        return ConsoleSpanExporter(out=out)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=endpoint or None)


def _metric_exporter(name: str, endpoint: str, out: TextIO) -> MetricExporter:
    if name == "console":
        return ConsoleMetricExporter(out=out)
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    return OTLPMetricExporter(endpoint=endpoint or None)


def _metric(metric: Metric, began: int, now: int) -> MetricData:
    unit = "s" if metric.name.endswith("_seconds") else "1"
    return MetricData(metric.name, metric.help, unit, _points(metric, began, now))


def _points(metric: Metric, began: int, now: int) -> SumData | GaugeData | HistogramData:
    if isinstance(metric, Histogram):
        return HistogramData(_distributions(metric, began, now), _TOTAL)
    points = [
        NumberDataPoint(dict(zip(metric.labels, labels, strict=True)), began, now, float(value))
        for labels, value in list(metric.values.items())
    ]
    if metric.kind == "gauge":
        return GaugeData(points)
    return SumData(points, _TOTAL, is_monotonic=True)


def _distributions(metric: Histogram, began: int, now: int) -> list[HistogramDataPoint]:
    return [
        HistogramDataPoint(
            dict(zip(metric.labels, labels, strict=True)),
            began,
            now,
            found.count,
            found.sum,
            tuple(found.counts),
            metric.bounds,
            found.min,
            found.max,
        )
        for labels, found in list(metric.distributions.items())
        if found.count
    ]
