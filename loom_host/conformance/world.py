"""The host in which a plugin is tested, and what stands in for the rest of the world there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loom_host.config import load_settings
from loom_host.discovery import code_hash
from loom_host.grants import asked_for
from loom_host.host import Host

from .plan import Plan


def make_host(plan: Plan, tier: str, place: Path) -> Host:
    """A host with this plugin alone, granted all that it asks for, over the data in `place`."""
    manifest = plan.manifest
    folders = {f"{name}_dir": str(place / name) for name in ("data", "cache", "runtime")}
    asked: dict[str, Any] = {key: list(value) for key, value in asked_for(manifest).items()}
    table = {
        "allow": asked,
        "config": dict(plan.stand_ins.config),
        "trusted": True,
        "code": code_hash(manifest.folder),
        "tier": tier,
    }
    settings = {
        "host": {"plugin_paths": [str(manifest.folder)], "control": False, **folders},
        "telemetry": {"log_level": "error"},
        "plugins": {manifest.name: table},
    }
    return Host(load_settings(None, settings))
