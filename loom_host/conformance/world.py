"""The host in which a plugin is tested, and what stands in for the rest of the world there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loom_host.config import load_settings, passing_folders
from loom_host.discovery import code_hash
from loom_host.grants import asked_for
from loom_host.host import Host
from loom_host.manifest import Permissions
from loom_host.runtimes.base import Runtime
from loom_host.storage import store_at

from .answers import answering
from .plan import Plan

if TYPE_CHECKING:
    from .pages import Pages


class World(Host):
    """A host that reaches no network: after the plugin's grants, `pages` answers."""

    pages: Mapping[str, Any] = {}

    def _reach_out(self) -> Pages:
        from .pages import Pages  # few plugins reach out

        return Pages(self.audit, self.pages)


def make_host(
    plan: Plan,
    tier: str,
    place: Path,
    runtimes: Mapping[str, Runtime] | None = None,
    start: str = "eager",
) -> Host:
    """A host with this plugin alone, granted all that it asks for, over the data in `place`."""
    place.mkdir(parents=True, exist_ok=True)
    table = _settings(plan, tier, place)
    table["plugins"][plan.manifest.name]["start"] = start
    settings = load_settings(None, table)
    world = World(settings, runtimes=runtimes, store=store_at(place / "data"))
    world.pages = plan.stand_ins.pages
    if plan.stand_ins.answers:
        world.broker.register(answering(plan.stand_ins.answers, place))
    return world


def _settings(plan: Plan, tier: str, place: Path) -> dict[str, Any]:
    manifest = plan.manifest
    host = passing_folders(place, tier)
    asked: dict[str, Any] = {key: list(value) for key, value in asked_for(manifest).items()}
    table = {
        "allow": asked,
        "config": dict(plan.stand_ins.config),
        "folders": granted_folders(manifest.permissions, place),
        "trusted": True,
        "code": code_hash(manifest.folder),
        "tier": tier,
    }
    grace = {"stop_grace_ms": int(plan.grace_s * 1000)}
    return {
        "host": {"plugin_paths": [str(manifest.folder)], "control": False, **host, **grace},
        "telemetry": {"log_level": "error"},
        "plugins": {manifest.name: table},
        "secrets": _secrets(plan.stand_ins.secrets, place),
    }


def granted_folders(wants: Permissions, place: Path) -> dict[str, str]:
    """An empty folder below `place` for each that the manifest asks for."""
    made = {}
    for name in (ask.removesuffix(":rw") for ask in wants.filesystem):
        path = place / "granted" / name
        path.mkdir(parents=True, exist_ok=True)
        made[name] = str(path)
    return made


def _secrets(values: Mapping[str, str], place: Path) -> dict[str, Any]:
    made = {}
    for name, value in values.items():
        path = place / "secrets" / name
        path.parent.mkdir(exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(value, encoding="utf-8")
        made[name] = {"file": str(path)}
    return made
