"""Where log lines of a plugin were dropped, the log says so itself, and how many."""

from __future__ import annotations

import asyncio
import logging

from .handle import PluginHandle

TELL_AFTER_S = 1.0
"""A flood is told of once in so many seconds."""


class LogGaps:
    """Counts the lines of one plugin for which a quota had no room."""

    def __init__(self, handle: PluginHandle, log: logging.Logger) -> None:
        self._handle, self._log = handle, log
        self._dropped: dict[str, int] = {}
        """By quota, since it was told of last."""

    def note(self, quota: str) -> None:
        """A line was dropped, for the quota that had no room for it. On the event loop."""
        self._handle.counters.lines_dropped += 1
        if not self._dropped:
            asyncio.get_running_loop().call_later(TELL_AFTER_S, self._tell)
        self._dropped[quota] = self._dropped.get(quota, 0) + 1

    def _tell(self) -> None:
        dropped, self._dropped = self._dropped, {}
        if not self._log.hasHandlers():
            return  # the host has closed meanwhile
        for quota, count in dropped.items():
            limit = getattr(self._handle.spec.quotas, quota)
            self._log.warning(
                "%d lines were dropped: over the quota %s = %g",
                count,
                quota,
                limit,
                extra={"plugin": self._handle.name, "dropped": count, "quota": quota},
            )
