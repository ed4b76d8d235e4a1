"""A real host for the tests of one plugin; `loom_sdk.testing.real_host` finds it here."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from loom_sdk.errors import PluginLoadError

from .builds import build_plugin
from .config import load_settings, merge, passing_folders
from .discovery import code_hash
from .grants import asked_for
from .host import Host
from .manifest import Manifest, load_manifest


@asynccontextmanager
async def real_host(
    folder: Path | str,
    *,
    tier: str = "",
    config: Mapping[str, Any] | None = None,
    allow: Mapping[str, list[str]] | None = None,
    settings: Mapping[str, Any] | None = None,
    build: bool = False,
) -> AsyncIterator[Host]:
    """A running host with the plugin of this folder, and data in a temporary one.

    Args:
        folder: holds `plugin.toml`.
        tier: one of those that the manifest claims; default: the manifest's.
        config: the plugin's settings.
        allow: permissions; default: all that the manifest asks for, except the network.
        settings: further tables of `loom.toml`.
        build: first do what `loom plugin build` does, unless that is up to date.

    Raises:
        LoomError: the plugin did not start; the message tells why.
    """
    manifest = _manifest(folder)
    if build:
        await asyncio.to_thread(build_plugin, manifest.folder)
    with tempfile.TemporaryDirectory(prefix="loom-test-") as place:
        own = _tables(manifest, tier or manifest.tier, place) | {
            "plugins": {manifest.name: _table(manifest, tier, config, allow)}
        }
        async with Host(load_settings(None, merge(own, settings or {}))) as host:
            handle = host.plugins[manifest.name]
            if handle.state == "failed":
                raise PluginLoadError(handle.reason, plugin_id=manifest.id)
            yield host


def _manifest(folder: Path | str) -> Manifest:
    return load_manifest(Path(folder).absolute() / "plugin.toml")


def _tables(manifest: Manifest, tier: str, place: str) -> dict[str, Any]:
    folders = passing_folders(Path(place), tier)
    return {
        "host": {"plugin_paths": [str(manifest.folder)], "control": False} | folders,
        "telemetry": {"log_level": "error"},
    }


def _table(
    manifest: Manifest,
    tier: str,
    config: Mapping[str, Any] | None,
    allow: Mapping[str, list[str]] | None,
) -> dict[str, Any]:
    asked = {k: list(v) for k, v in asked_for(manifest).items() if k != "network"}
    table: dict[str, Any] = {
        "allow": asked if allow is None else dict(allow),
        "config": dict(config or {}),
        "trusted": True,
        "code": code_hash(manifest.folder),
    }
    return table | ({"tier": tier} if tier else {})
