"""A steady rate with one second's worth in store."""

from __future__ import annotations

import pytest

from loom_host import pace
from loom_host.pace import Pace
from loom_sdk.errors import QuotaExceeded


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    return clock


def spent(bucket: Pace, most: int) -> int:
    for count in range(most):
        try:
            bucket.spend()
        except QuotaExceeded:
            return count
    return most


def test_a_second_holds_the_rate_and_fills_again(clock: Clock) -> None:
    bucket = Pace("test/p", "publish_rate", 10)
    assert spent(bucket, 100) == 10
    clock.now += 0.35
    assert spent(bucket, 100) == 3
    clock.now += 60
    assert spent(bucket, 100) == 10


def test_less_than_one_a_second_lets_one_through(clock: Clock) -> None:
    bucket = Pace("test/p", "publish_rate", 0.5)
    assert spent(bucket, 5) == 1
    clock.now += 1.9
    assert spent(bucket, 5) == 0
    clock.now += 0.2
    assert spent(bucket, 5) == 1


def test_no_rate_is_no_limit(clock: Clock) -> None:
    assert spent(Pace("test/p", "host_calls", 0), 1000) == 1000


def test_the_error_names_plugin_quota_and_limit(clock: Clock) -> None:
    bucket = Pace("test/p", "host_calls", 1)
    bucket.spend()
    with pytest.raises(
        QuotaExceeded, match="test/p: more than 1 a second, quota host_calls"
    ) as hit:
        bucket.spend()
    assert (hit.value.quota, hit.value.limit, hit.value.used) == ("host_calls", 1, 2)
