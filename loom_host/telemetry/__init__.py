"""Spans, metrics and logs of one host; OpenTelemetry is loaded only when it exports."""

from .logs import Logs, Redactor, configure
from .metrics import Counter, Gauge, Histogram, Meter
from .server import MetricsServer
from .service import Telemetry
from .spans import Span, Tracer, current, parse_traceparent
from .waterfall import tree, waterfall

__all__ = [
    "Counter",
    "Gauge",
    "Histogram",
    "Logs",
    "Meter",
    "MetricsServer",
    "Redactor",
    "Span",
    "Telemetry",
    "Tracer",
    "configure",
    "current",
    "parse_traceparent",
    "tree",
    "waterfall",
]
