"""All checks, in the order in which they run; docs/CONFORMANCE.md has the same list."""

from __future__ import annotations

from loom_host.conformance.kit import Check, FolderCheck, OverCheck

from .calls import CALLS, SCHEMA
from .contract import CONTRACT
from .denied import DENIED
from .effects import EFFECTS
from .events import EVENTS
from .folder import FOLDER
from .generated import GENERATED
from .leaks import LEAKS
from .lifecycle import ENDING, LIFECYCLE
from .logs import LOGS
from .natives import NATIVES
from .permissions import PERMISSIONS
from .tiers import TIERS_SAME
from .trips import TRIP

FOLDER_CHECKS: tuple[FolderCheck, ...] = FOLDER
CHECKS: tuple[Check, ...] = (
    *LIFECYCLE, *CONTRACT, *SCHEMA, *CALLS, *EFFECTS, *ENDING, GENERATED, *EVENTS,
    *LEAKS, *LOGS, *NATIVES, *PERMISSIONS, DENIED, TRIP,
)  # fmt: skip
"""Examples come first, then a second start over what they left, then what is made up: that fills
the storage with what no example knows of.
"""
OVER_CHECKS: tuple[OverCheck, ...] = (TIERS_SAME,)
