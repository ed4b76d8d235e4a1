"""What a child wrote at its end, and which of those lines tells why."""

from __future__ import annotations

import re
import time
from collections import deque

KEPT_LINES = 50
QUOTED_LINES = 5
LOOKED_AT = 1000
"""Lines that were read at its end and handed to nobody yet; a cause is looked for in so many."""
RECENT_S = 2.0
"""A line that looks like an error says why a child ended only where it was written so lately."""
LOOKED_INTO = 300
"""Characters of a line in which an error's name is looked for: a child may write lines that take
long to look through."""
NEAR = 0.9
"""Of a limit: from there on it may be why a program ended."""

_CAUSE = re.compile(
    r"\s*(?:\[cause\]: |Uncaught )?(?:[\w.$]*(?:Error|Exception|Panic)\b[^:]*:"
    r"|(?i:fatal error|fatal|panic|error)(?:\[\w+\])?:|terminate called |thread '.*' panicked )"
)
"""How the runtimes of Python, Node.js, Go, Rust and C++ begin it; stacks follow, save in Python."""


class LastWords:
    """The last lines of a child's output, and the last of all that looked like an error."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._cause, self._told = "", 0.0

    def add(self, line: str) -> None:
        self.lines.append(line)
        if _CAUSE.match(line, 0, LOOKED_INTO):
            self._cause, self._told = line, time.monotonic()

    @property
    def cause(self) -> str:
        """The error that it told of at its end; empty where it told of none."""
        return self._cause if time.monotonic() - self._told < RECENT_S else ""

    def quote(self) -> str:
        """As a part of a message, empty when it wrote nothing."""
        last = list(self.lines)[-QUOTED_LINES:]
        if self.cause and self.cause not in last:
            last = [self.cause, "...", *last]
        return "; its last lines: " + " | ".join(last) if last else ""

    def match(self, pattern: re.Pattern[str]) -> bool:
        """Whether one of them has it."""
        return any(map(pattern.search, (self.cause, *self.lines)))


def near_limit(used: int, limit: int) -> str:
    """Of memory in bytes, as a part of a message; empty where there was room, or no limit is."""
    if not limit or used < NEAR * limit:
        return ""
    return f"; it held up to {used} bytes of memory, the quota is {limit}"
