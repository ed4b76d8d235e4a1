"""Where model files lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import ModelMissing


def models_dir() -> Path:
    """`$LOOM_MODELS`, else `$XDG_CACHE_HOME/loom/models`, else `~/.cache/loom/models`."""
    if named := os.environ.get("LOOM_MODELS"):
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "loom" / "models"


def find(name: str) -> Path:
    """Folder of a pulled model, or the file or folder that an absolute path names.

    Raises:
        ModelMissing: it is not there; the message names the pull command.
    """
    path = Path(name)
    if not path.is_absolute():
        path = models_dir() / name
    if path.exists():
        return path
    raise ModelMissing(f"model {name!r} is not at {path}: run `loom models pull {path.name}`")
