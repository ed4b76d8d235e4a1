"""What a guest's trap becomes: in its caller's error, in the log, in a dead letter."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from loom_host import Host
from loom_host.testing import real_host
from loom_sdk import Event
from loom_sdk.errors import LoomError, PluginCrashed, QuotaExceeded

from .core_guest import core_guest, plugin_of
from .hosting import dead_letters, next_of

MANIFEST = (
    '\n[[capability]]\nname = "tiny.do"\neffects = "none"\n'
    '\n[[events.subscribes]]\ntopic = "notes"\n\n[quotas]\nmemory = "512KiB"\n'
)
GROW = (
    "(drop (memory.grow (i32.const {taken}))) "
    "(if (i32.eq (memory.grow (i32.const {more})) (i32.const -1)) (then unreachable))"
)


@asynccontextmanager
async def hosted(folder: Path, *, invoke: str = "", handle: str = "") -> AsyncIterator[Host]:
    async with real_host(plugin_of(folder / "tiny", core_guest(invoke, handle), MANIFEST)) as host:
        yield host


async def failure(folder: Path, invoke: str) -> LoomError:
    async with hosted(folder, invoke=invoke) as host:
        with pytest.raises(LoomError) as raised:
            await host.invoke("tiny.do")
    return raised.value


async def test_memory_that_is_used_up_is_the_quotas_and_no_hint_is_for_another_language(
    tmp_path: Path,
) -> None:
    error = await failure(tmp_path, GROW.format(taken=7, more=1))
    assert isinstance(error, QuotaExceeded)
    assert (error.quota, error.limit) == ("memory", 512 * 1024)
    assert "Python" not in error.message


@pytest.mark.parametrize(("taken", "more"), [(2, 6), (5, 3)])
async def test_an_abort_after_a_refusal_of_memory_tells_how_much_there_was(
    taken: int, more: int, tmp_path: Path
) -> None:
    error = await failure(tmp_path, GROW.format(taken=taken, more=more))
    assert isinstance(error, PluginCrashed)
    has = (1 + taken) * 65_536  # its own memory and no other
    assert f"it has {has} of the 524288 bytes of its quota memory" in error.message


async def test_an_abort_with_much_memory_left_says_nothing_of_it(tmp_path: Path) -> None:
    error = await failure(tmp_path, "unreachable")
    assert isinstance(error, PluginCrashed)
    assert error.message.endswith("wasm `unreachable` instruction executed")


async def test_a_guest_that_begins_with_more_than_its_quota_is_told_so(tmp_path: Path) -> None:
    folder = plugin_of(tmp_path / "tiny", core_guest(pages=9), MANIFEST)
    with pytest.raises(LoomError, match="minimum size of 9 pages.*quota memory = 524288"):
        async with real_host(folder):
            pass


async def test_a_trap_at_an_event_is_logged_counted_and_told_in_the_dead_letter(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with hosted(tmp_path, handle="unreachable") as host:
        with caplog.at_level(logging.WARNING, logger="loom.pump"):
            async with dead_letters(host.bus) as dead:
                await host.bus.publish("notes", Event("said"))
                letter = await next_of(dead)
        assert host.plugins["tiny"].counters.errors == 3
    trapped = "test/tiny trapped: wasm trap: wasm `unreachable` instruction executed"
    assert letter.metadata["reason"] == f"not acknowledged in 3 attempts (the last: {trapped})"
    assert caplog.messages.count(f"tiny:notes: {trapped}") == 3
