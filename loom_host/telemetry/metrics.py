"""Counters, gauges and histograms, and their Prometheus text."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Labels = tuple[str, ...]

BUCKETS = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
"""Upper bounds in seconds: from one event's dispatch to the default call timeout."""
SERIES_MAX = 1000
"""Label sets per metric; later ones are counted together as `other`."""

STANDARD: tuple[tuple[str, str, Labels, str], ...] = (
    ("published_events_total", "counter", ("topic",), "Events published."),
    ("delivered_events_total", "counter", ("topic",), "Events put into a subscription's queue."),
    ("dropped_events_total", "counter", ("topic", "reason"), "Events that were not delivered."),
    (
        "event_dispatch_latency_seconds",
        "histogram",
        ("subscription",),
        "From publish to receive, one event in 64.",
    ),
    ("subscription_queue_depth", "gauge", ("subscription",), "Events that wait in a queue."),
    ("agent_mailbox_size", "gauge", ("agent",), "Events that wait for an agent or plugin."),
    (
        "agent_mailbox_wait_seconds",
        "histogram",
        ("agent",),
        "From an agent's mailbox to its handler.",
    ),
    ("agent_dispatch_latency_seconds", "histogram", ("agent",), "Time of a handler of events."),
    ("action_invocations_total", "counter", ("capability", "provider"), "Invocations ended."),
    ("action_errors_total", "counter", ("capability", "code"), "Invocations that failed."),
    ("action_latency_seconds", "histogram", ("capability",), "Time of an invocation."),
    ("routing_decisions_total", "counter", ("route", "reason"), "Decisions of the router."),
    ("routing_no_match_total", "counter", ("capability",), "Calls that no provider may serve."),
)
"""Name, kind, labels and help of the metrics that every host has."""


@dataclass(slots=True)
class Distribution:
    """What a histogram holds for one label set."""

    counts: list[int]
    """Per bucket, not cumulative; the last is above every bound."""
    sum: float = 0.0
    count: int = 0
    min: float = math.inf
    max: float = -math.inf


@dataclass
class Metric:
    """What the three kinds share: a name, label names, a value per label set."""

    name: str
    help: str
    labels: Labels = ()
    values: dict[Labels, float] = field(default_factory=dict)
    kind = ""

    def _key(self, labels: Labels) -> Labels:
        """Checks a label set that is new, and joins it to `other` where there are too many."""
        if len(labels) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, not {labels}")
        return labels if len(self.values) < SERIES_MAX else ("other",) * len(labels)

    def replace(self, values: Mapping[Labels, float]) -> None:
        """Take over values that are counted elsewhere; what is too many is summed as `other`."""
        fresh: dict[Labels, float] = {}
        for labels, value in values.items():
            if len(fresh) >= SERIES_MAX:
                labels = ("other",) * len(labels)
            fresh[labels] = fresh.get(labels, 0) + value
        self.values = fresh


class Counter(Metric):
    """Goes up only."""

    kind = "counter"

    def inc(self, *labels: str, by: float = 1) -> None:
        """Add. Raises ValueError where the number of label values is wrong."""
        values = self.values
        if labels not in values:
            labels = self._key(labels)
        values[labels] = values.get(labels, 0) + by


class Gauge(Metric):
    """Goes up and down."""

    kind = "gauge"

    def set(self, value: float, *labels: str) -> None:
        if labels not in self.values:
            labels = self._key(labels)
        self.values[labels] = value


class Histogram(Metric):
    """Counts of observations by size, with fixed bounds."""

    kind = "histogram"

    def __init__(
        self, name: str, help: str, labels: Labels = (), bounds: Sequence[float] = BUCKETS
    ) -> None:
        super().__init__(name, help, labels)
        self.bounds = tuple(bounds)
        self.distributions: dict[Labels, Distribution] = {}

    def observe(self, value: float, *labels: str) -> None:
        """Count a value, in the unit that the name ends with."""
        found = self.distributions.get(labels)
        if found is None:
            found = self._make(labels)
        found.counts[bisect_left(self.bounds, value)] += 1
        found.sum += value
        found.count += 1
        if value < found.min:
            found.min = value
        if value > found.max:
            found.max = value

    def _make(self, labels: Labels) -> Distribution:
        if len(self.distributions) >= SERIES_MAX:
            labels = ("other",) * len(labels)
        fresh = Distribution([0] * (len(self.bounds) + 1))
        return self.distributions.setdefault(self._key(labels), fresh)


class Meter:
    """All metrics of one host, the standard ones from the beginning."""

    def __init__(self) -> None:
        self._metrics: dict[str, Metric] = {}
        self._collectors: list[Callable[[Meter], None]] = []
        make = {"counter": self.counter, "gauge": self.gauge, "histogram": self.histogram}
        for name, kind, labels, text in STANDARD:
            make[kind](name, text, labels)

    def counter(self, name: str, help: str = "", labels: Labels = ()) -> Counter:
        """The counter of that name, made when first asked for."""
        found = self._metrics.setdefault(name, Counter(name, help, labels))
        assert isinstance(found, Counter), f"{name} is a {found.kind}"
        return found

    def gauge(self, name: str, help: str = "", labels: Labels = ()) -> Gauge:
        found = self._metrics.setdefault(name, Gauge(name, help, labels))
        assert isinstance(found, Gauge), f"{name} is a {found.kind}"
        return found

    def histogram(
        self, name: str, help: str = "", labels: Labels = (), bounds: Sequence[float] = BUCKETS
    ) -> Histogram:
        found = self._metrics.setdefault(name, Histogram(name, help, labels, bounds))
        assert isinstance(found, Histogram), f"{name} is a {found.kind}"
        return found

    def add_collector(self, collector: Callable[[Meter], None]) -> None:
        """`collector` runs before every reading and copies counts that are kept elsewhere."""
        self._collectors.append(collector)

    def collect(self) -> list[Metric]:
        """Run the collectors, then every metric in the order of making. Call it on the loop."""
        for collector in self._collectors:
            collector(self)
        return list(self._metrics.values())

    def render_prometheus(self) -> str:
        """Everything in the Prometheus text exposition format, version 0.0.4."""
        lines: list[str] = []
        for metric in self.collect():
            if metric.help:
                lines.append(f"# HELP {metric.name} {_escape_help(metric.help)}")
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            if isinstance(metric, Histogram):
                lines += _histogram_lines(metric)
            else:
                pairs = sorted(metric.values.items())
                lines += [_line(metric.name, metric.labels, k, v) for k, v in pairs]
        return "\n".join(lines) + "\n"


def _histogram_lines(metric: Histogram) -> list[str]:
    lines = []
    for labels, found in sorted(metric.distributions.items()):
        total = 0
        for bound, count in zip((*metric.bounds, math.inf), found.counts, strict=True):
            total += count
            names, values = (*metric.labels, "le"), (*labels, _number(bound))
            lines.append(_line(f"{metric.name}_bucket", names, values, total))
        lines.append(_line(f"{metric.name}_sum", metric.labels, labels, found.sum))
        lines.append(_line(f"{metric.name}_count", metric.labels, labels, found.count))
    return lines


def _line(name: str, names: Labels, labels: Labels, value: float) -> str:
    pairs = ",".join(f'{n}="{_escape(v)}"' for n, v in zip(names, labels, strict=True))
    return f"{name}{{{pairs}}} {_number(value)}" if pairs else f"{name} {_number(value)}"


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if value == int(value) else repr(float(value))


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
