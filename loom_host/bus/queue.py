"""One subscription's queue: by priority, first in first out inside each, every step O(1)."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from loom_sdk.events import PRIORITY_MAX

T = TypeVar("T")


def clamp(priority: int) -> int:
    """The priority inside 0 to PRIORITY_MAX."""
    return 0 if priority < 0 else min(priority, PRIORITY_MAX)


class PriorityQueue(Generic[T]):
    """A deque per priority and an integer whose bits say which of them hold something.

    Unbounded: the owner compares `size` with its capacity. Deques are made when first used.
    """

    __slots__ = ("_lanes", "mask", "size")

    def __init__(self) -> None:
        self._lanes: list[deque[T] | None] = [None] * (PRIORITY_MAX + 1)
        self.mask = 0
        """Bit p is set while priority p holds something; 0 when empty."""
        self.size = 0

    def push(self, priority: int, item: T) -> None:
        """Append behind what has the same priority; out of range priorities are clamped."""
        if not 0 <= priority <= PRIORITY_MAX:
            priority = clamp(priority)
        lane = self._lanes[priority]
        if lane is None:
            lane = self._lanes[priority] = deque()
        lane.append(item)
        self.mask |= 1 << priority
        self.size += 1

    def pop(self) -> T:
        """The oldest of the highest priority. Raises IndexError when empty."""
        return self._pop(self.mask.bit_length() - 1)

    def pop_lowest(self) -> T:
        """The oldest of the lowest priority. Raises IndexError when empty."""
        return self._pop(self.lowest())

    def lowest(self) -> int:
        """The lowest priority that holds something, -1 when empty."""
        return (self.mask & -self.mask).bit_length() - 1

    def drain(self) -> list[T]:
        """Everything, in the order of `pop`; leaves the queue empty."""
        return [self.pop() for _ in range(self.size)]

    def _pop(self, priority: int) -> T:
        lane = self._lanes[priority] if priority >= 0 else None
        if lane is None:
            raise IndexError("the queue is empty")
        item = lane.popleft()
        if not lane:
            self.mask ^= 1 << priority
        self.size -= 1
        return item
