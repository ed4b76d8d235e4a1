"""Runs of the wasm tier that take minutes; `make soak`."""

from __future__ import annotations

import pytest

from bench.wasm_costs import binary_growth_mb


@pytest.mark.soak
@pytest.mark.parametrize("isolation", ["thread", "process"])
async def test_a_hundred_thousand_binary_results_leave_no_memory_behind(isolation: str) -> None:
    """componentize-py keeps every list<u8> that a guest returns, so guests are renewed."""
    assert await binary_growth_mb(isolation, 100_000) < 20
