"""What one plugin asks of the host, counted against its quotas: the same in every tier.

What goes over a quota is refused in the plugin, which may handle that. A call that goes on asking
is ended with the quota's error, whatever the plugin makes of the refusals.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from loom_sdk.errors import QuotaExceeded

from .handle import InFlight, PluginHandle
from .pace import Pace
from .runtimes.base import serving

LOG_WINDOW_S = 60.0
PATIENCE = 10
"""Refusals by a quota in one call; the next one ends it."""


class Meters:
    """Counts for one plugin."""

    def __init__(self, handle: PluginHandle) -> None:
        quotas, plugin_id = handle.spec.quotas, handle.spec.id
        self._handle, self._quotas = handle, quotas
        self._asked = Pace(plugin_id, "host_calls", quotas.host_calls)
        self._published = Pace(plugin_id, "publish_rate", quotas.publish_rate)
        self._lines = Pace(plugin_id, "log_rate", quotas.log_rate)
        self._logged, self._log_window = 0, time.monotonic()

    def flight(self, call_id: str) -> InFlight | None:
        """The call or event that is being served by this id; None for a strange one."""
        return self._handle.inflight.get(call_id) if call_id else None

    def serving(self) -> InFlight | None:
        """What a request that names no call is made for; None where that cannot be told."""
        return self._charged("")

    def _charged(self, call_id: str) -> InFlight | None:
        """Who pays for a request: the call that is named, that it runs in, or the only one."""
        inflight, asker = self._handle.inflight, call_id or serving.get()
        if not asker and len(inflight) == 1:
            (asker,) = inflight
        return inflight.get(asker)

    def request(self, call_id: str = "") -> None:
        """Count one request of any kind. Raises QuotaExceeded."""
        if not self._asked.taken():
            raise self._spent(self._asked, call_id)
        flight, limit = self._charged(call_id), self._quotas.host_calls_per_call
        if flight is None or not limit:
            return
        flight.asked += 1
        if flight.asked > limit:
            raise self.refusal("host_calls_per_call", limit, flight.asked, call_id)

    def publication(self, call_id: str) -> None:
        """Count one event. Raises QuotaExceeded."""
        if not self._published.taken():
            raise self._spent(self._published, call_id)

    def _spent(self, pace: Pace, call_id: str) -> QuotaExceeded:
        error = pace.error()
        self._refuse(error.quota, call_id, lambda: error)
        return error

    def line(self, size: int, attributes: Mapping[str, str], call_id: str) -> str:
        """The quota that has no room for a log line with so many characters; empty: all have.

        A flood of lines comes this way: what refuses one is made only where it ends a call.
        """
        if not self._lines.taken():
            self._refuse("log_rate", call_id, self._lines.error)
            return "log_rate"
        if self.text(size, attributes):
            return ""
        limit, used = self._quotas.log_bytes, self._logged
        self._refuse("log_bytes", call_id, lambda: self._error("log_bytes", limit, used))
        return "log_bytes"

    def text(self, size: int, attributes: Mapping[str, str]) -> bool:
        """Whether the quota log_bytes, per minute, has room for a log line or a span."""
        now = time.monotonic()
        if now - self._log_window > LOG_WINDOW_S:
            self._logged, self._log_window = 0, now
        self._logged += size + sum(len(k) + len(v) for k, v in attributes.items())
        return self._logged <= self._quotas.log_bytes

    def refusal(self, quota: str, limit: float, used: float, call_id: str) -> QuotaExceeded:
        """The error for what went over a quota, once it is counted."""
        error = self._error(quota, limit, used)
        self._refuse(quota, call_id, lambda: error)
        return error

    def _error(self, quota: str, limit: float, used: float) -> QuotaExceeded:
        plugin_id = self._handle.spec.id
        return QuotaExceeded(plugin_id=plugin_id, quota=quota, limit=limit, used=used)

    def _refuse(self, quota: str, call_id: str, error: Callable[[], QuotaExceeded]) -> None:
        self._handle.counters.hit(quota)
        flight = self._charged(call_id)
        if flight is None:
            return
        flight.refused += 1
        if flight.refused > PATIENCE:
            flight.end(error())
