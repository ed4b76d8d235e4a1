"""All telemetry of one host in one object: tracer, meter, logs, exporter, `/metrics`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from loom_host.privacy import NAMES, is_marked, level_of
from loom_sdk.errors import ConfigError
from loom_sdk.events import Event

from .export import Exporter, settings_from_env
from .logs import Logs, Redactor, configure
from .metrics import Meter
from .server import Health, MetricsServer
from .spans import Span, Tracer


class TelemetrySettings(Protocol):
    """`[telemetry]` of loom.toml."""

    @property
    def sample_ratio(self) -> float: ...
    @property
    def log_level(self) -> str: ...
    @property
    def log_format(self) -> str: ...
    @property
    def http_port(self) -> int: ...


class Telemetry:
    """What the host records. The OTEL_* variables overrule `settings` where both speak.

    Raises:
        ConfigError: an OTEL_* variable is wrong.
    """

    def __init__(self, settings: TelemetrySettings, env: Mapping[str, str] | None = None) -> None:
        export = settings_from_env(os.environ if env is None else env)
        ratio = settings.sample_ratio if export.sample_ratio is None else export.sample_ratio
        self.tracer = Tracer(ratio, service_name=export.service_name)
        self.meter = Meter()
        self.redactor = Redactor()
        self.tracer.redact = self.redactor.text
        self.exporter = Exporter(export, self.tracer, self.meter)
        self.logs: Logs | None = None
        self.server: MetricsServer | None = None
        self._settings = settings
        self._dispatch = self.meter.histogram("event_dispatch_latency_seconds")
        self.on_handled = self.meter.histogram("agent_dispatch_latency_seconds").observe
        """Called for every event, with seconds and agent: a method would cost a call more."""
        self.on_waited = self.meter.histogram("agent_mailbox_wait_seconds").observe
        self._actions = self.meter.counter("action_invocations_total")
        self._errors = self.meter.counter("action_errors_total")
        self._latency = self.meter.histogram("action_latency_seconds")
        self._routes = self.meter.counter("routing_decisions_total")
        self._no_route = self.meter.counter("routing_no_match_total")
        self._start_seconds = self.meter.gauge("host_start_seconds", "Time of the host's start.")

    async def start(self, health: Health) -> None:
        """Logs, exporters and, where a port is set, `/metrics` and `/healthz`.

        Raises:
            ConfigError: the port is taken.
        """
        self.logs = configure(
            self._settings.log_level,
            json=self._settings.log_format == "json",
            redactor=self.redactor,
        )
        self.exporter.start()
        if self._settings.http_port:
            server = MetricsServer(self.meter, health, self._settings.http_port)
            try:
                await server.start()
            except OSError as exc:
                raise ConfigError(
                    f"telemetry.http_port = {self._settings.http_port}: {exc.strerror}; "
                    "choose another port"
                ) from exc
            self.server = server

    async def aclose(self) -> None:
        """Flush and stop. Safe to call twice."""
        if self.server is not None:
            await self.server.aclose()
            self.server = None
        await self.exporter.aclose()
        if self.logs is not None:
            self.logs.close()
            self.logs = None

    def redact(self, secret: str) -> None:
        """Hide this text in logs, spans and their errors from now on."""
        self.redactor.add([secret])

    def last_trace(self, name: str | None = None) -> list[dict[str, Any]]:
        """The last trace as rows of plain values, see `Span.from_row`."""
        return [span.to_row() for span in self.tracer.last_trace(name)]

    def watch_bus(self, stats: Callable[[], Mapping[str, Any]]) -> None:
        """Copy the bus's counts into the metrics whenever those are read."""
        self.meter.add_collector(lambda meter: _copy_bus(meter, stats()))

    def watch_mailboxes(self, sizes: Callable[[], Mapping[str, int]]) -> None:
        """Take over how many events wait for each agent whenever the metrics are read."""
        gauge = self.meter.gauge("agent_mailbox_size")
        self.meter.add_collector(
            lambda _: gauge.replace({(name,): size for name, size in sizes().items()})
        )

    # What the host's parts call

    def on_publish(self, topic: str, event: Event) -> Span:
        """The span of one publish, begun; what the receivers do is below it."""
        attributes = {"topic": topic, "type": event.type, "source": event.source}
        if is_marked(event.metadata):
            attributes["privacy"] = NAMES[level_of(event.metadata)]
        return self.tracer.start(f"publish {topic}", event.traceparent, attributes)

    def on_dispatch(self, subscription: str, seconds: float) -> None:
        self._dispatch.observe(seconds, subscription)

    def on_action(self, capability: str, provider: str, status: str, seconds: float) -> None:
        """`status` is `ok` or the code of the error, see `loom_sdk.errors.TABLE`."""
        self._actions.inc(capability, provider)
        self._latency.observe(seconds, capability)
        if status != "ok":
            self._errors.inc(capability, status)

    def on_route(self, route: str, reason: str) -> None:
        """The router chose; both texts are from its own fixed set."""
        self._routes.inc(route, reason)

    def on_no_route(self, capability: str) -> None:
        """Nobody offers it, or policy and state leave no provider."""
        self._no_route.inc(capability)

    def started(self, seconds: float) -> None:
        self._start_seconds.set(seconds)


def _copy_bus(meter: Meter, stats: Mapping[str, Any]) -> None:
    topics, subscriptions = stats["topics"], stats["subscriptions"]
    for name, key in (
        ("published_events_total", "published"),
        ("delivered_events_total", "delivered"),
    ):
        meter.counter(name).replace({(topic,): found[key] for topic, found in topics.items()})
    meter.counter("dropped_events_total").replace(
        {
            (topic, reason): count
            for topic, found in topics.items()
            for reason, count in found["dropped"].items()
        }
    )
    depths: dict[tuple[str, ...], float] = {}
    for found in subscriptions:
        depths[(found["name"],)] = depths.get((found["name"],), 0) + found["depth"]
    meter.gauge("subscription_queue_depth").replace(depths)
