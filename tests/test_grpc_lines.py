"""The output of a child in lines: every byte of it, in order, and never too much at once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hypothesis import given
from hypothesis import strategies as st

from loom_host.runtimes.grpc.lines import DRAIN_MOST, MAX_LINE, SLICE, Lines, pieces

from .hosting import until


@asynccontextmanager
async def reading() -> AsyncIterator[tuple[int, Lines, list[bytes]]]:
    """A pipe's writing end, and the lines that come out of the other one."""
    found: list[bytes] = []
    end, start = os.pipe()
    loop = asyncio.get_running_loop()
    transport, lines = await loop.connect_read_pipe(lambda: Lines(found.append), os.fdopen(end))
    try:
        yield start, lines, found
    finally:
        transport.close()
        os.close(start)


@given(st.binary(max_size=40), st.integers(1, 2000))
def test_the_parts_of_a_line_are_the_line(part: bytes, times: int) -> None:
    line = part * times
    parts = pieces(line)
    assert b"".join(parts) == line
    assert all(len(part) <= MAX_LINE for part in parts)


@given(st.text(min_size=1, max_size=9), st.integers(1000, 9000))
def test_no_character_is_cut(part: str, times: int) -> None:
    for piece in pieces((part * times).encode("utf-8", "replace")):
        piece.decode()


async def test_lines_are_whole_however_they_arrive() -> None:
    async with reading() as (start, _, found):
        for data in (b"on", b"e\ntwo\n\nth", b"ree\n"):
            os.write(start, data)
            await asyncio.sleep(0.01)
        await until(lambda: len(found) == 4)
        assert found == [b"one", b"two", b"", b"three"]


async def test_many_short_lines_are_handed_over_in_slices_and_in_order() -> None:
    async with reading() as (start, lines, found):
        os.write(start, b"".join(b"%d\n" % number for number in range(SLICE * 5)))
        lines.drain()
        assert len(found) == SLICE
        assert lines.waiting(2) == [b"%d" % (SLICE * 5 - 2), b"%d" % (SLICE * 5 - 1)]
        os.write(start, b"later\n")
        await until(lambda: found[-1] == b"later")
        assert found[:-1] == [b"%d" % number for number in range(SLICE * 5)]
        assert lines.waiting(2) == []


async def test_a_drained_pipe_gives_its_last_line_though_it_is_open_still() -> None:
    async with reading() as (start, lines, found):
        os.write(start, b"one\nlast words")
        lines.drain()
        assert found == [b"one", b"last words"]
        lines.drain()
        os.write(start, b"more\n")
        await until(lambda: found[-1] == b"more")


async def test_a_pipe_that_somebody_goes_on_writing_to_is_not_drained_for_ever() -> None:
    async with reading() as (start, lines, found):
        stop = asyncio.Event()

        def write() -> None:
            while not stop.is_set():
                os.write(start, b"x" * 4000 + b"\n")

        writing = asyncio.create_task(asyncio.to_thread(write))
        await until(lambda: found)
        lines.drain()
        count = len(found) + len(lines.waiting(DRAIN_MOST))
        stop.set()
        await until(writing.done)
        assert count < 10 * DRAIN_MOST / 4000
