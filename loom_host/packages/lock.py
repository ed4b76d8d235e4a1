"""`loom.lock`: what is installed, by whose key, with which permissions; and which keys are trusted.

Lies beside `loom.toml`, or in the data folder of a host that has none, and belongs into version
control: with it the same packages are installed again elsewhere, with the same consent.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from loom_sdk.errors import ConfigError

FORMAT = 1
_ID = re.compile(r"[a-z0-9][a-z0-9-]*/[a-z0-9][a-z0-9-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Locked:
    """One installed plugin."""

    id: str
    version: str
    digest: str
    """SHA-256 of its package's description, which pins every file."""
    key: str
    """The public key that signed it."""
    grants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What was consented to."""
    source: str = ""
    """Where it came from: a file or URL."""


@dataclass
class Lock:
    """The file's content; `save` writes it."""

    path: Path
    plugins: dict[str, Locked] = field(default_factory=dict)
    """By the plugin's name."""
    publishers: dict[str, str] = field(default_factory=dict)
    """Publisher to the public key that is pinned to it."""
    highest: dict[str, str] = field(default_factory=dict)
    """Plugin id to the highest version seen; stays when the plugin is removed."""
    revoked: dict[str, str] = field(default_factory=dict)
    """Public keys that are trusted no more, with the reason."""

    def save(self) -> None:
        """Replaces the file in one step."""
        content = {
            "format": FORMAT,
            "plugins": {name: asdict(self.plugins[name]) for name in sorted(self.plugins)},
            "publishers": dict(sorted(self.publishers.items())),
            "highest": dict(sorted(self.highest.items())),
            "revoked": dict(sorted(self.revoked.items())),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".loom.lock-")
        with os.fdopen(handle, "w") as file:
            file.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        os.chmod(temporary, 0o644)
        os.replace(temporary, self.path)


def load_lock(path: Path) -> Lock:
    """An empty one where there is no file. Raises ConfigError: it is damaged or of a newer host."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return Lock(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): restore it, or remove it") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise ConfigError(f"{path} is of format {found!r}, this host writes {FORMAT}: upgrade it")
    try:
        return Lock(
            path,
            {name: _locked(name, entry) for name, entry in content["plugins"].items()},
            _texts(content["publishers"]),
            _texts(content["highest"]),
            _texts(content["revoked"]),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path} is damaged ({error!r}): restore it, or remove it") from error


def _locked(name: str, entry: Mapping[str, Any]) -> Locked:
    """Folders are named after these: what is no id or digest leads nowhere."""
    grants = {kind: tuple(map(str, values)) for kind, values in entry["grants"].items()}
    texts = _texts({key: value for key, value in entry.items() if key != "grants"})
    locked = Locked(**texts, grants=grants)
    if not (_ID.fullmatch(locked.id) and _DIGEST.fullmatch(locked.digest)):
        raise ValueError(f"{name} has no id or digest")
    if locked.id.partition("/")[2] != name:
        raise ValueError(f"{name} is listed as {locked.id}")
    return locked


def _texts(table: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in table.items():
        if not isinstance(value, str):
            raise TypeError(f"{key} is no text")
    return dict(table)
