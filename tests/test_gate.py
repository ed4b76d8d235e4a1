"""The door of the sandbox, from the host's side."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from loom_host.runtimes.grpc.gate import Gate
from loom_sdk.errors import PluginLoadError


async def test_a_child_that_ends_at_the_door_is_told_of_at_once() -> None:
    gate = Gate()
    waiting = asyncio.create_task(gate.hello())
    await asyncio.sleep(0.01)
    gate.started()
    with pytest.raises(PluginLoadError, match="ended before it was in its sandbox"):
        await asyncio.wait_for(waiting, 1)
    gate.close()


async def test_a_door_closed_while_somebody_waits_spoils_no_file_that_takes_its_number() -> None:
    """A child killed while it started left its socket in the loop: another one, whose pidfd got
    the number, was then never seen to end, and the host could not stop.
    """
    gate, loop, began = Gate(), asyncio.get_running_loop(), time.monotonic()
    waiting = asyncio.create_task(gate.hello())
    await asyncio.sleep(0.01)
    number = gate._host.fileno()
    gate.close()
    reader, writer = os.pipe()
    os.dup2(reader, number)
    seen = asyncio.Event()
    loop.add_reader(number, seen.set)
    with pytest.raises(PluginLoadError, match="ended before it was in its sandbox"):
        await waiting
    os.write(writer, b"x")
    await asyncio.wait_for(seen.wait(), 1)
    assert time.monotonic() - began < 1
    loop.remove_reader(number)
    for descriptor in (number, writer, reader) if reader != number else (number, writer):
        os.close(descriptor)
