"""All checks, in the order in which they run; docs/CONFORMANCE.md has the same list."""

from __future__ import annotations

from loom_host.conformance.kit import Check, FolderCheck, OverCheck

FOLDER_CHECKS: tuple[FolderCheck, ...] = ()
CHECKS: tuple[Check, ...] = ()
OVER_CHECKS: tuple[OverCheck, ...] = ()
