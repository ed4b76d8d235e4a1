"""Every plugin of tests/broken is flagged by the check that its fault names (part 3 of 3)."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conformance_matrix import check_flagged, part
from .test_broken_plugins import named

pytestmark = pytest.mark.soak


@pytest.mark.parametrize("folder", part(2), ids=named)
async def test_a_fault_is_flagged_by_its_check_and_no_other(folder: Path) -> None:
    await check_flagged(folder)
