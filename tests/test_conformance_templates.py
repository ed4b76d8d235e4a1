"""What `loom plugin new` writes passes the conformance kit as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from loom_host.conformance.plan import plan_of
from loom_host.scaffold import Wish, create
from loom_host.templates import KINDS

from .conformance_matrix import failed, outcomes_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", KINDS)
async def test_a_new_python_plugin_is_flagged_by_no_check(tmp_path: Path, kind: str) -> None:
    """In the tiers that need no build: each of those takes 5 s and more."""
    folder = tmp_path / "it"
    tier = "grpc" if kind == "source" else "wasm"
    create(Wish(f"kit-{kind}", tier=tier, kind=kind), folder)
    tiers = [one for one in plan_of(folder).manifest.tiers if one != "wasm"]
    found = await outcomes_of(folder, tiers, 20.0)
    assert not failed(found)
    assert sum(one.status == "passed" for one in found) >= 10
