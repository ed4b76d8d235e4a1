"""Moving averages of latency and errors: they move, and they fade."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_host.observations import DOUBT, ENOUGH, Observed


def test_nothing_was_measured_at_first() -> None:
    seen = Observed()
    assert seen.latency_ms(0.0) is None
    assert seen.error_rate(0.0) == 0.0


def test_one_call_is_believed_for_two_half_lives_and_then_forgotten() -> None:
    seen = Observed(half_life_s=10.0)
    seen.answered(80.0, 100.0)
    assert ENOUGH == 0.25
    assert seen.latency_ms(100.0) == 80.0
    assert seen.latency_ms(120.0) == 80.0
    assert seen.latency_ms(120.1) is None


def test_a_latency_of_half_the_weight_counts_half() -> None:
    seen = Observed(half_life_s=10.0)
    seen.answered(100.0, 0.0)
    seen.answered(400.0, 10.0)
    assert seen.latency_ms(10.0) == pytest.approx((100 * 0.5 + 400) / 1.5)


def test_what_was_slow_long_ago_does_not_show_in_what_is_quick_now() -> None:
    seen = Observed(half_life_s=10.0)
    for _ in range(50):
        seen.answered(1000.0, 0.0)
    for second in range(200, 210):
        seen.answered(10.0, float(second))
    latency = seen.latency_ms(210.0)
    assert latency is not None
    assert latency == pytest.approx(10.0, abs=0.01)


def test_one_failure_is_not_all_failures() -> None:
    seen = Observed()
    seen.failed(0.0)
    assert DOUBT == 4.0
    assert seen.error_rate(0.0) == 0.2
    for _ in range(5):
        seen.answered(1.0, 0.0)
    assert seen.error_rate(0.0) == pytest.approx(0.1)


def test_errors_fade_and_are_then_forgotten() -> None:
    seen = Observed(half_life_s=10.0)
    seen.failed(0.0)
    assert seen.error_rate(10.0) == pytest.approx(0.5 / 4.5)
    assert seen.error_rate(20.0) == pytest.approx(0.25 / 4.25)
    assert seen.error_rate(20.1) == 0.0


def test_what_is_forgiven_does_not_count_and_latencies_stay() -> None:
    seen = Observed()
    seen.answered(10.0, 0.0)
    seen.failed(0.0)
    seen.forgive()
    assert (seen.error_rate(0.0), seen.latency_ms(0.0)) == (0.0, 10.0)


def test_a_failure_is_no_latency() -> None:
    seen = Observed()
    seen.answered(10.0, 0.0)
    seen.failed(0.0)
    assert seen.latency_ms(0.0) == 10.0


def test_a_clock_that_stands_still_or_runs_backwards_does_no_harm() -> None:
    seen = Observed()
    seen.answered(10.0, 5.0)
    seen.answered(30.0, 4.0)
    assert seen.latency_ms(3.0) == 20.0


SAMPLES = st.lists(
    st.tuples(st.floats(0, 1000), st.none() | st.floats(0, 1e5)), min_size=1, max_size=30
)


@given(SAMPLES, st.floats(0.1, 100))
def test_an_average_lies_between_its_samples(
    samples: list[tuple[float, float | None]], half_life_s: float
) -> None:
    seen, now = Observed(half_life_s), 0.0
    for pause, latency in samples:
        now += pause
        if latency is None:
            seen.failed(now)
        else:
            seen.answered(latency, now)
        measured = seen.latency_ms(now)
        taken = [x for _, x in samples if x is not None]
        assert measured is None or min(taken) - 1e-6 <= measured <= max(taken) + 1e-6
        assert 0.0 <= seen.error_rate(now) < 1.0
