"""Exporters chosen by the standard OTEL_* variables, fed by one background thread."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO
from urllib.parse import unquote

from loom_host.privacy import LABELS
from loom_sdk.errors import ConfigError

from .metrics import Meter, Metric
from .spans import Span, Tracer

if TYPE_CHECKING:
    from .otel import Translator

logger = logging.getLogger(__name__)

QUEUE_MAX = 8192
"""Finished spans that wait for the exporter; more are dropped and counted."""
BATCH = 512
"""Spans per export, the SDK's default OTEL_BSP_MAX_EXPORT_BATCH_SIZE."""
PERIOD_S = 1.0
EXPORTERS = ("otlp", "console", "none")


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """Where spans and metrics go."""

    traces: tuple[str, ...] = ()
    """Of `otlp` and `console`."""
    metrics: tuple[str, ...] = ()
    traces_endpoint: str = ""
    """Whole URL, empty for the exporter's default."""
    metrics_endpoint: str = ""
    service_name: str = "loom"
    resource: Mapping[str, str] = field(default_factory=dict)
    sample_ratio: float | None = None
    """None where the environment says nothing."""
    interval_s: float = 60.0
    """Between two exports of the metrics."""


def settings_from_env(env: Mapping[str, str]) -> ExportSettings:
    """Read OTEL_*. Without an exporter or an endpoint named, nothing is exported.

    OTEL_EXPORTER_OTLP_HEADERS, _TIMEOUT, _COMPRESSION and _CERTIFICATE are read by the SDK.

    Raises:
        ConfigError: a value is wrong; the message names the variable.
    """
    if env.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return ExportSettings()
    resource = _pairs(env.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    traces, metrics = _exporters(env, "TRACES"), _exporters(env, "METRICS")
    if "otlp" in traces + metrics:
        _check_protocol(env)
    return ExportSettings(
        traces=traces,
        metrics=metrics,
        traces_endpoint=_endpoint(env, "TRACES"),
        metrics_endpoint=_endpoint(env, "METRICS"),
        service_name=env.get("OTEL_SERVICE_NAME") or resource.get("service.name") or "loom",
        resource=resource,
        sample_ratio=_sample_ratio(env),
        interval_s=_number(env, "OTEL_METRIC_EXPORT_INTERVAL", 60_000) / 1000,
    )


def _exporters(env: Mapping[str, str], signal: str) -> tuple[str, ...]:
    variable = f"OTEL_{signal}_EXPORTER"
    default = "otlp" if _endpoint(env, signal) else "none"
    names = [n.strip() for n in (env.get(variable) or default).split(",") if n.strip()]
    for name in names:
        if name not in EXPORTERS:
            raise ConfigError(f"{variable}={name!r} is unknown: use {', '.join(EXPORTERS)}")
    return tuple(dict.fromkeys(name for name in names if name != "none"))


def _endpoint(env: Mapping[str, str], signal: str) -> str:
    if own := env.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"):
        return own
    base = env.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    return f"{base.rstrip('/')}/v1/{signal.lower()}" if base else ""


def _check_protocol(env: Mapping[str, str]) -> None:
    for signal in ("", "TRACES_", "METRICS_"):
        variable = f"OTEL_EXPORTER_OTLP_{signal}PROTOCOL"
        if env.get(variable, "http/protobuf") != "http/protobuf":
            raise ConfigError(
                f"{variable}={env[variable]!r} is not supported: use http/protobuf, "
                "which collectors take on port 4318"
            )


def _pairs(text: str) -> dict[str, str]:
    """`key=value,key=value` with percent-encoded values, as W3C Baggage has it."""
    pairs: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"OTEL_RESOURCE_ATTRIBUTES: {part!r} is not key=value")
        pairs[key.strip()] = unquote(value.strip())
    return pairs


def _sample_ratio(env: Mapping[str, str]) -> float | None:
    sampler = env.get("OTEL_TRACES_SAMPLER", "").removeprefix("parentbased_")
    if sampler in ("always_on", "always_off"):
        return float(sampler == "always_on")
    if sampler not in ("", "traceidratio"):
        raise ConfigError(
            f"OTEL_TRACES_SAMPLER={sampler!r} is unknown: use always_on, always_off or "
            "traceidratio, each also with parentbased_ before it"
        )
    if not env.get("OTEL_TRACES_SAMPLER_ARG"):
        return None
    ratio = _number(env, "OTEL_TRACES_SAMPLER_ARG", 1.0)
    if ratio > 1:
        raise ConfigError(f"OTEL_TRACES_SAMPLER_ARG={ratio} must be from 0 to 1")
    return ratio


def _number(env: Mapping[str, str], variable: str, default: float) -> float:
    text = env.get(variable) or default
    try:
        value = float(text)
    except ValueError as exc:
        raise ConfigError(f"{variable}={text!r} is not a number") from exc
    if not 0 <= value < float("inf"):
        raise ConfigError(f"{variable}={text!r} must be at least 0")
    return value


class Exporter:
    """Hands finished spans and, now and then, the metrics to the OpenTelemetry exporters.

    Never blocks the loop: what does not fit into its queue is counted in `dropped`, what an
    exporter refused in `failed` (spans).
    """

    def __init__(
        self, settings: ExportSettings, tracer: Tracer, meter: Meter, out: TextIO | None = None
    ) -> None:
        self.dropped = self.exported = self.failed = 0
        self.withheld = 0
        """Spans of private and local-only turns: their texts stay here."""
        self._settings = settings
        self._tracer = tracer
        self._meter = meter
        self._out = out or sys.stderr  # standard output belongs to the program's answer
        self._queue: deque[Span] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._last: list[Metric] = []
        self._translator: Translator | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="loom-telemetry", daemon=True)

    def start(self) -> None:
        """Begin, on the running loop; nothing happens where no exporter is chosen."""
        if not (self._settings.traces or self._settings.metrics):
            return
        self._loop = asyncio.get_running_loop()
        if self._settings.traces:
            self._tracer.sinks.append(self._put)
        self._thread.start()

    async def aclose(self, timeout_s: float = 5.0) -> None:
        """Flush what waits and stop, in at most `timeout_s` and one second more."""
        if self._loop is None:
            return
        self._loop = None
        if self._put in self._tracer.sinks:
            self._tracer.sinks.remove(self._put)
        self._last = self._meter.collect() if self._settings.metrics else []
        self._closing = True
        self._wake.set()
        await asyncio.to_thread(self._thread.join, timeout_s)
        if self._thread.is_alive() and self._translator is not None:
            logger.warning("the telemetry exporter did not finish in %g s: stopped", timeout_s)
            self._translator.shutdown()
            await asyncio.to_thread(self._thread.join, 1.0)
        if self.dropped:
            logger.warning("%d spans were not exported: the queue was full", self.dropped)

    def _put(self, span: Span) -> None:
        if span.attributes.get("privacy") in LABELS:
            self.withheld += 1
            return
        if len(self._queue) >= QUEUE_MAX:
            self.dropped += 1
            return
        self._queue.append(span)
        if len(self._queue) == BATCH:
            self._wake.set()

    def _run(self) -> None:
        try:
            from .otel import Translator

            self._translator = Translator(self._settings, self._out)
        except Exception as exc:
            logger.error("telemetry is not exported: %s", exc)
            return
        due = time.monotonic() + self._settings.interval_s
        while not self._closing:
            self._wake.wait(PERIOD_S)
            self._wake.clear()
            self._flush_spans(self._translator)
            if self._settings.metrics and time.monotonic() >= due and not self._closing:
                due = time.monotonic() + self._settings.interval_s
                self._flush_metrics(self._translator, self._collect())
        self._flush_spans(self._translator)
        self._flush_metrics(self._translator, self._last)
        self._translator.shutdown()

    def _flush_spans(self, translator: Translator) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            try:
                taken = translator.export_spans(batch)
            except Exception as exc:
                logger.warning("could not export %d spans: %s", len(batch), exc)
                taken = False
            if taken:
                self.exported += len(batch)
            else:
                self.failed += len(batch)

    def _flush_metrics(self, translator: Translator, metrics: list[Metric]) -> None:
        if not metrics:
            return
        try:
            translator.export_metrics(metrics)
        except Exception as exc:
            logger.warning("could not export the metrics: %s", exc)

    def _collect(self) -> list[Metric]:
        """The collectors read what belongs to the loop, so they run there."""
        loop = self._loop
        if loop is None:
            return []

        async def collect() -> list[Metric]:
            return self._meter.collect()

        try:
            return asyncio.run_coroutine_threadsafe(collect(), loop).result(PERIOD_S)
        except (TimeoutError, RuntimeError, asyncio.CancelledError):
            return []
