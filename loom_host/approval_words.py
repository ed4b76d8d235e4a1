"""`[agents.NAME.parameters] tools`: which tools of an agent ask before they act."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loom_sdk.errors import ConfigError

from .settings import APPROVALS, ToolPolicy
from .tables import check_keys, like


def tool_policy_of(table: Any, where: str) -> ToolPolicy:
    """The checked form of the table. Raises ConfigError.

    `tools.approval.notes.add` and `tools.approval."notes.add"` mean the same tool.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where} must be a table, not {table!r}")
    check_keys(table, ["approval", "approval_timeout_s"], where)
    words = dict(_flat(table.get("approval", {}), f"{where} approval"))
    for pattern, word in words.items():
        if word not in APPROVALS:
            known = ", ".join(APPROVALS)
            raise ConfigError(f"{where} approval {pattern!r} = {word!r}: must be one of {known}")
    limit_s = like(30.0, table.get("approval_timeout_s", 30.0), f"{where} approval_timeout_s")
    return ToolPolicy(words, limit_s)


def _flat(table: Any, where: str, prefix: str = "") -> list[tuple[str, Any]]:
    """TOML makes tables of dots that are not quoted."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where} must be a table of tools, not {table!r}")
    found: list[tuple[str, Any]] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            found += _flat(value, where, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found
