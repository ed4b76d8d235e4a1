"""The garbage collector is still while a host starts, and works again afterwards."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from loom_host.collector import collector_still

from .hosting import native_host


def test_it_is_still_inside_and_as_before_afterwards() -> None:
    with pytest.raises(KeyError), collector_still():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()
    gc.disable()
    try:
        with collector_still():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()


async def test_a_host_collects_when_it_runs_and_when_it_did_not_start(tmp_path: Path) -> None:
    async with native_host(tmp_path, lab={"allow": {"provide": ["*"]}}):
        assert gc.isenabled()
    with pytest.raises(Exception, match="no plugin is called 'nobody'"):
        async with native_host(tmp_path, nobody={}):
            pass
    assert gc.isenabled()
