"""Tests of `loom_host.bus.queue` and `.stats`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_host.bus.queue import PriorityQueue, clamp
from loom_host.bus.stats import OTHER, TopicTable, state_of

PRIORITIES = st.lists(st.integers(-20, 130), max_size=60)


@given(PRIORITIES)
def test_pop_is_highest_first_and_fifo_inside_a_priority(priorities: list[int]) -> None:
    queue: PriorityQueue[tuple[int, int]] = PriorityQueue()
    items = [(clamp(priority), number) for number, priority in enumerate(priorities)]
    for priority, item in zip(priorities, items, strict=True):
        queue.push(priority, item)
    assert queue.drain() == sorted(items, key=lambda item: (-item[0], item[1]))
    assert (queue.size, queue.mask) == (0, 0)


@given(PRIORITIES, st.lists(st.booleans(), max_size=60))
def test_queue_behaves_as_a_sorted_list(priorities: list[int], lows: list[bool]) -> None:
    queue: PriorityQueue[int] = PriorityQueue()
    model: list[tuple[int, int]] = []
    for number, priority in enumerate(priorities):
        queue.push(priority, number)
        model.append((clamp(priority), number))
        assert queue.lowest() == min(model)[0]
        if number < len(lows):
            lowest = lows[number]
            gone = min(model) if lowest else min(model, key=lambda item: (-item[0], item[1]))
            model.remove(gone)
            assert (queue.pop_lowest() if lowest else queue.pop()) == gone[1]
        assert queue.size == len(model)


def test_empty_queue_refuses_to_pop() -> None:
    queue: PriorityQueue[int] = PriorityQueue()
    assert queue.lowest() == -1
    with pytest.raises(IndexError):
        queue.pop()
    with pytest.raises(IndexError):
        queue.pop_lowest()


@pytest.mark.parametrize(
    ("depth", "lagging", "state"),
    [
        (0, False, "normal"),
        (79, False, "normal"),
        (80, False, "pressured"),
        (99, False, "pressured"),
        (100, False, "full"),
        (60, True, "lagging"),
    ],
)
def test_state_by_depth_of_a_capacity_of_100(depth: int, lagging: bool, state: str) -> None:
    assert state_of(depth, 100, lagging) == state


def test_topic_table_is_bounded() -> None:
    table = TopicTable(limit=2)
    for topic in ("a", "b", "c", "d"):
        table.of(topic).published += 1
    assert {k: v["published"] for k, v in table.as_dict().items()} == {"a": 1, "b": 1, OTHER: 2}
