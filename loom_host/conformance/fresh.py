"""A plugin that was started anew: what it holds before any call, what one round of them tells."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from loom_sdk.errors import LoomError

from .census import Census, census
from .kit import Skip
from .subject import Subject

T = TypeVar("T")

SETTLE_S, LOOK_S = 0.15, 0.03
"""Output comes through a pipe, beside the answer: until no more has come for so long."""
SETTLE_MOST_S = 3.0
MOST_LINES = 20_000


class Once(Generic[T]):
    """Done once for each subject; what could not be done is skipped the next time, too."""

    def __init__(self, work: Callable[[Subject], Awaitable[T]]) -> None:
        self._work = work
        self._done: WeakKeyDictionary[Subject, T | Skip] = WeakKeyDictionary()

    async def __call__(self, subject: Subject) -> T:
        if subject not in self._done:
            try:
                self._done[subject] = await self._work(subject)
            except Skip as why:
                self._done[subject] = why
        found = self._done[subject]
        if isinstance(found, Skip):
            raise Skip(str(found))
        return found


@dataclass(slots=True)
class Fresh:
    """What was seen."""

    before: Census | None
    """Once it was ready, before any call; None where the machine does not tell."""
    lines: list[str]
    raw: bytes = b""
    """Of the native tier: what went to the host's own output."""
    hits: dict[str, int] = field(default_factory=dict)
    """Quotas that it ran into."""
    dropped: int = 0
    """Lines that were lost."""


async def _start(subject: Subject) -> Fresh:
    examples = [one for one in subject.plan.examples if not one.slow]
    if not examples:
        raise Skip("it has no examples to call")
    await subject.stop()
    before = None
    with _captured(subject.tier == "native") as output:
        handle = await subject.handle()
        with suppress(Skip):
            before = census(handle, subject.tier)
        lines = deque(handle.log_lines, maxlen=MOST_LINES)
        handle.log_lines = lines
        for example in examples:
            with suppress(LoomError):  # whether it is answered is for schema.examples to say
                await subject.call(example)
        await _settled(lines)
    counters = handle.counters
    return Fresh(before, list(lines), bytes(output), dict(counters.hits), counters.lines_dropped)


fresh = Once(_start)
"""Start it anew and call each of its examples once. Raises Skip where that cannot be done."""


async def _settled(lines: deque[str]) -> None:
    quiet = spent = 0.0
    while quiet < SETTLE_S and spent < SETTLE_MOST_S:
        before = len(lines)
        await asyncio.sleep(LOOK_S)
        spent += LOOK_S
        quiet = quiet + LOOK_S if len(lines) == before else 0.0


@contextmanager
def _captured(wanted: bool) -> Iterator[bytearray]:
    """What goes to standard output and error of this process meanwhile, by whatever way."""
    output = bytearray()
    if not wanted:
        yield output
        return
    sys.stdout.flush()
    sys.stderr.flush()
    kept = sys.stdout, sys.stderr, os.dup(1), os.dup(2)
    with tempfile.TemporaryFile(buffering=0) as file:
        try:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            with os.fdopen(os.dup(1), "w", encoding="utf-8") as text:
                sys.stdout = sys.stderr = text
                yield output
        finally:
            sys.stdout, sys.stderr = kept[:2]
            for number, old in enumerate(kept[2:], start=1):
                os.dup2(old, number)
                os.close(old)
        file.seek(0)
        output += file.read()
