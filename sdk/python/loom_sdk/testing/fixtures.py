"""Fixtures for pytest; found by the entry point `pytest11` of `loom-sdk`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loom_sdk.errors import PluginLoadError
from loom_sdk.plugin import Plugin

from .fake_host import FakeHost
from .real_host import real_host


@pytest.fixture
def fake_host(tmp_path: Path) -> Iterator[Callable[..., FakeHost]]:
    """`fake_host(PluginClass, config=..., grants=...)`: a FakeHost that is stopped at the end."""
    made: list[FakeHost] = []

    def make(plugin: type[Plugin] | Plugin, **options: Any) -> FakeHost:
        host = FakeHost(plugin, folder=tmp_path, **options)
        host.start()
        made.append(host)
        return host

    yield make
    for host in made:
        host.stop()


@pytest.fixture
def loom_host() -> Callable[..., AbstractAsyncContextManager[Any]]:
    """`async with loom_host(folder, tier="wasm") as host`: the plugin in a real host.

    With `build=True` it is built first; what keeps it from that fails the test in one line.
    """
    return _hosted


@asynccontextmanager
async def _hosted(folder: Path | str, *, build: bool = False, **options: Any) -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:
        problem = ""
        try:
            host = await stack.enter_async_context(real_host(folder, build=build, **options))
        except PluginLoadError as error:
            if not build:
                raise
            problem = error.message
        if problem:
            pytest.fail(problem, pytrace=False)
        yield host
