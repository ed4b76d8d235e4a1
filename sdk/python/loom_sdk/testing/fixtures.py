"""Fixtures for pytest; found by the entry point `pytest11` of `loom-sdk`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

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
    """`async with loom_host(folder, tier="wasm") as host`: the plugin in a real host."""
    return real_host
