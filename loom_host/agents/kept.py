"""Agents that were created at run time, kept in a file for the next start."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loom_host.settings import AgentSettings, Policy, ToolPolicy
from loom_sdk.errors import StorageError

FOLDER = "agents"
"""Below `host.data_dir`, with a file for each."""


class Kept:
    """Name to settings and whether it ran; without a folder nothing is kept."""

    def __init__(self, data_dir: Path | None) -> None:
        self._folder = data_dir / FOLDER if data_dir else None

    def load(self) -> dict[str, tuple[AgentSettings, bool]]:
        """Raises StorageError where a file cannot be read."""
        if self._folder is None or not self._folder.exists():
            return {}
        return {path.stem: _read(path) for path in sorted(self._folder.glob("*.json"))}

    def put(self, name: str, own: AgentSettings, ran: bool) -> None:
        """In place of what was there. Raises StorageError."""
        if self._folder is None:
            return
        path = self._folder / f"{name}.json"
        fresh = path.with_suffix(".new")
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            fresh.write_text(json.dumps({"settings": asdict(own), "ran": ran}))
            os.replace(fresh, path)
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error}") from error

    def drop(self, name: str) -> None:
        """Forget one. Raises StorageError."""
        if self._folder is None:
            return
        try:
            (self._folder / f"{name}.json").unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"agent {name} cannot be forgotten: {error}") from error


def _read(path: Path) -> tuple[AgentSettings, bool]:
    try:
        row: dict[str, Any] = json.loads(path.read_text())
        return _settings(row["settings"]), bool(row["ran"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path} cannot be read: {error}; mend or move it") from error


def _settings(row: dict[str, Any]) -> AgentSettings:
    nested = {"policy": Policy(**row["policy"]), "tools": ToolPolicy(**row["tools"])}
    return AgentSettings(**{**row, **nested, "subscribe": tuple(row["subscribe"])})
