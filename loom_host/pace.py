"""So many a second: a bucket that fills at a steady rate and holds one second's worth."""

from __future__ import annotations

import time

from loom_sdk.errors import QuotaExceeded


class Pace:
    """One quota of the kind `rate`.

    Args:
        rate: how many a second; 0: no limit.
    """

    def __init__(self, plugin_id: str, quota: str, rate: float) -> None:
        self._plugin_id, self._quota, self._rate = plugin_id, quota, rate
        self._most = max(rate, 1.0)
        self._room, self._filled = self._most, time.monotonic()

    def taken(self) -> bool:
        """Take one, where there is one left."""
        if not self._rate:
            return True
        now = time.monotonic()
        room = self._room + (now - self._filled) * self._rate
        if room > self._most:
            room = self._most
        self._filled, enough = now, room >= 1
        self._room = room - 1 if enough else room
        return enough

    def spend(self) -> None:
        """Take one. Raises QuotaExceeded where there is none left."""
        if not self.taken():
            raise self.error()

    def error(self) -> QuotaExceeded:
        return QuotaExceeded(
            f"{self._plugin_id}: more than {self._rate:g} a second, quota {self._quota}: "
            "slow it down, or raise the quota in loom.toml",
            plugin_id=self._plugin_id,
            quota=self._quota,
            limit=self._rate,
            used=self._rate + 1,
        )
