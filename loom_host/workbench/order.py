"""What the author wants to run, and the settings of the host that this makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loom_host.discovery import code_hash
from loom_host.grants import asked_for
from loom_host.manifest import Manifest, load_manifest
from loom_sdk.errors import ConfigError

DEBUG_DEADLINE_MS = 24 * 3_600_000
"""Of a call under a debugger: somebody may look at a breakpoint for long."""


@dataclass(frozen=True, slots=True)
class Order:
    """How to run the plugin of one folder; made again from its `plugin.toml` at each start."""

    folder: Path
    tier: str = ""
    """Empty: the manifest's."""
    config: Mapping[str, Any] = field(default_factory=dict)
    network: bool = False
    """Whether what it asks for of the network is granted too."""
    folders: Mapping[str, str] = field(default_factory=dict)
    """Where folders that it asks for are; others are temporary ones."""
    log_level: str = "info"
    debug: bool = False

    def manifest(self) -> Manifest:
        """Raises ManifestError, ProtocolMismatch, or ConfigError for a tier that it lacks."""
        manifest = load_manifest(self.folder / "plugin.toml")
        if self.tier and self.tier not in manifest.tiers:
            raise ConfigError(
                f"--tier {self.tier}: {manifest.id} claims only {', '.join(manifest.tiers)}; add "
                "it to tiers in plugin.toml"
            )
        return manifest

    def tier_of(self, manifest: Manifest) -> str:
        return self.tier or manifest.tier

    def allowed(self, manifest: Manifest) -> dict[str, list[str]]:
        """What is granted: all that is asked for, of the network only where it was said."""
        asked = asked_for(manifest)
        return {k: list(v) for k, v in asked.items() if self.network or k != "network"}

    def withheld(self, manifest: Manifest) -> list[str]:
        """What is asked for and not granted."""
        return [] if self.network else list(asked_for(manifest).get("network", ()))

    def settings(self, manifest: Manifest, place: Path, seat: Path) -> dict[str, Any]:
        """The tables of `loom.toml`.

        Args:
            place: data and cache, kept from one host to the next.
            seat: of this host alone: its sockets.
        """
        tier = self.tier_of(manifest)
        own: dict[str, Any] = {
            "tier": tier,
            "allow": self.allowed(manifest),
            "config": dict(self.config),
            "folders": self._folders(manifest, place),
        }
        if tier == "native":
            own |= {"trusted": True, "code": code_hash(manifest.folder)}
        if self.debug:
            own["quotas"] = {"deadline_ms": DEBUG_DEADLINE_MS}
        return {
            "host": {
                "plugin_paths": [str(manifest.folder)],
                "data_dir": str(place / "data"),
                "cache_dir": str(place / "cache"),
                "runtime_dir": str(seat),
            },
            "telemetry": {"log_level": self.log_level, "log_format": "json"},
            "plugins": {manifest.name: own},
        }

    def _folders(self, manifest: Manifest, place: Path) -> dict[str, str]:
        names = {ask.removesuffix(":rw") for ask in manifest.permissions.filesystem}
        found = {}
        for name in sorted(names):
            path = Path(self.folders.get(name) or place / "folders" / name)
            if name not in self.folders:
                path.mkdir(parents=True, exist_ok=True)
            found[name] = str(path.absolute())
        return found
