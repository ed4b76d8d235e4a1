"""A provider's circuit, moment by moment, on a clock of the test."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loom_host.circuit import CLOSED, HALF_OPEN, OPEN, Circuit
from loom_host.settings import RoutingSettings

LIMITS = RoutingSettings(failures=3, open_s=5.0, open_max_s=12.0)


def opened(now: float = 0.0) -> Circuit:
    circuit = Circuit()
    assert circuit.failed(now, LIMITS, "it crashed", own=True)
    return circuit


def test_it_is_closed_and_admits_every_call() -> None:
    circuit = Circuit()
    assert (circuit.state, circuit.admits(0.0), circuit.explain(0.0)) == (CLOSED, True, "")
    assert not circuit.begin(0.0)
    assert not circuit.served()


def test_a_fault_of_its_own_opens_it_at_once() -> None:
    circuit = opened()
    assert circuit.state == OPEN
    assert not circuit.admits(4.99)
    assert circuit.explain(2.0) == "circuit open, next probe in 3.0 s: it crashed"


def test_errors_that_may_lie_in_the_call_open_it_after_so_many_in_a_row() -> None:
    circuit = Circuit()
    assert [circuit.failed(0.0, LIMITS, "no", own=False) for _ in range(3)] == [False, False, True]
    circuit = Circuit()
    for _ in range(2):
        circuit.failed(0.0, LIMITS, "no", own=False)
    assert not circuit.served()
    assert not circuit.failed(0.0, LIMITS, "no", own=False)
    assert circuit.state == CLOSED


def test_one_probe_goes_there_when_the_time_is_over_and_no_second_one() -> None:
    circuit = opened()
    assert not circuit.begin(4.99)
    assert circuit.admits(5.0)
    assert circuit.explain(5.0) == "circuit open, the next call is its probe: it crashed"
    assert circuit.begin(5.0)
    assert circuit.state == HALF_OPEN
    assert not circuit.admits(5.0)
    assert not circuit.begin(5.0)
    assert circuit.explain(5.0).startswith("circuit half-open")


def test_a_probe_that_is_served_closes_it_and_all_is_forgotten() -> None:
    circuit = opened()
    circuit.begin(5.0)
    assert circuit.served()
    assert (circuit.state, circuit.failures, circuit.reason) == (CLOSED, 0, "")
    assert circuit.failed(6.0, LIMITS, "again", own=True)
    assert circuit.until == 11.0


def test_each_probe_that_fails_doubles_the_time_up_to_the_limit() -> None:
    circuit, now = opened(), 5.0
    for wait in (10.0, 12.0, 12.0):
        assert circuit.begin(now)
        assert circuit.failed(now, LIMITS, "still ill", own=False)
        assert circuit.until == now + wait
        assert circuit.reason == "still ill"
        now += wait


def test_a_probe_that_told_nothing_leaves_the_next_call_to_be_one() -> None:
    circuit = opened()
    circuit.begin(5.0)
    circuit.undecided(6.0)
    assert circuit.state == OPEN
    assert circuit.admits(6.0)
    circuit.begin(6.0)
    circuit.served()
    circuit.undecided(7.0)
    assert circuit.state == CLOSED


def test_calls_that_were_on_their_way_when_it_opened_do_not_lengthen_it() -> None:
    circuit = opened()
    assert not circuit.failed(1.0, LIMITS, "late", own=True)
    assert (circuit.until, circuit.reason) == (5.0, "it crashed")


STEPS = st.lists(
    st.tuples(st.floats(0, 20), st.sampled_from(["begin", "served", "failed", "undecided"])),
    max_size=40,
)


@given(STEPS)
def test_it_always_lets_a_probe_through_in_the_end(steps: list[tuple[float, str]]) -> None:
    circuit, now = Circuit(), 0.0
    for pause, step in steps:
        now += pause
        if step == "begin":
            circuit.begin(now)
        elif step == "served":
            circuit.served()
        elif step == "failed":
            circuit.failed(now, LIMITS, "no", own=True)
        else:
            circuit.undecided(now)
        assert bool(circuit.explain(now)) == (circuit.state != CLOSED)
        assert circuit.state != OPEN or circuit.until <= now + LIMITS.open_max_s
    circuit.undecided(now)
    assert circuit.admits(now + LIMITS.open_max_s)
