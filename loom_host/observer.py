"""One host's telemetry: what the parts report, where it is kept and sent."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from loom_sdk import Event

from .config import TelemetrySettings
from .telemetry.logs import configure
from .telemetry.metrics import Meter
from .telemetry.spans import Span, Tracer

if TYPE_CHECKING:
    from .telemetry.export import Exporters
    from .telemetry.http import MetricsServer

Health = Callable[[], tuple[bool, dict[str, Any]]]


class Telemetry:
    """Tracer, meter and logs, and their exporters where the environment asks for any."""

    def __init__(self, settings: TelemetrySettings) -> None:
        self._settings = settings
        service = os.environ.get("OTEL_SERVICE_NAME", "loom")
        self.tracer = Tracer(settings.sample_ratio, service_name=service)
        self.meter = Meter()
        self.logs = configure(
            settings.log_level,
            json=settings.log_format == "json",
            stream=sys.stderr,
        )
        self.tracer.redact = self.logs.redactor.text
        self._exporters: Exporters | None = None
        self._server: MetricsServer | None = None
        self._invocations = self.meter.counter("action_invocations_total")
        self._errors = self.meter.counter("action_errors_total")
        self._latency = self.meter.histogram("action_latency_seconds")
        self._dispatch = self.meter.histogram("event_dispatch_latency_seconds")
        self._agent = self.meter.histogram("agent_dispatch_latency_seconds")

    async def start(self, health: Health) -> None:
        """Open exporters and the HTTP endpoint, where configured."""
        if _wanted():
            from .telemetry.export import Exporters

            self._exporters = Exporters.from_environment(self.tracer, self.meter)
        if self._settings.http_port:
            from .telemetry.http import MetricsServer

            self._server = MetricsServer(self.meter, health, self._settings.http_port)
            await self._server.start()

    def started(self, seconds: float) -> None:
        gauge = self.meter.gauge("host_start_seconds", "Time from start to ready.")
        gauge.set(seconds)

    def redact(self, secret: str) -> None:
        self.logs.redact([secret])

    def on_publish(self, topic: str, event: Event, delivered: int) -> None:
        """A point in the trace for every event of a sampled trace."""
        self.tracer.record(
            f"publish {topic}", event.traceparent, event.timestamp_ms * 1_000_000, 0,
            {"type": event.type, "delivered": delivered},
        )  # fmt: skip

    def on_dispatch(self, subscription: str, seconds: float) -> None:
        self._dispatch.observe(seconds, subscription)

    def on_action(self, capability: str, provider: str, status: str, seconds: float) -> None:
        self._invocations.inc(capability, provider)
        self._latency.observe(seconds, capability)
        if status != "ok":
            self._errors.inc(capability, status)

    def on_handled(self, agent: str, seconds: float) -> None:
        self._agent.observe(seconds, agent)

    def last_trace(self) -> list[Span]:
        """Spans of the last utterance's trace, or of the last trace of any kind."""
        return self.tracer.last_trace("utterance") or self.tracer.last_trace()

    async def aclose(self) -> None:
        if self._server is not None:
            await self._server.aclose()
        if self._exporters is not None:
            await self._exporters.aclose()
        self.logs.close()


def _wanted() -> bool:
    names = ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER")
    return any(os.environ.get(name, "none") != "none" for name in names) or bool(
        os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    )
