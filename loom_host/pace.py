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
        self._room, self._filled = max(rate, 1.0), time.monotonic()

    def taken(self) -> bool:
        """Take one, where there is one left."""
        if not self._rate:
            return True
        now = time.monotonic()
        grown = self._room + (now - self._filled) * self._rate
        self._room, self._filled = min(grown, max(self._rate, 1.0)), now
        if self._room < 1:
            return False
        self._room -= 1
        return True

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
