"""A host with the kit's own probe in the place of the plugin under test."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from loom_host.config import load_settings, passing_folders
from loom_host.discovery import code_hash, is_first_party
from loom_host.grants import asked_for
from loom_host.handle import PluginHandle
from loom_host.host import Host
from loom_host.manifest import Manifest, Permissions

from .kit import Fault
from .world import granted_folders

SOURCE = Path(__file__).parent / "probe" / "loom_probe.py"
NAME = "conformance-probe"
CAPABILITIES = ("conformance.attempt", "conformance.press")
GRACE_MS = 500


@asynccontextmanager
async def probe_host(
    manifest: Manifest,
    tier: str,
    quotas: Mapping[str, Any],
) -> AsyncIterator[Host]:
    """A running host with the probe alone: the tier, profile and grants of this manifest.

    Raises Fault where the probe does not start.
    """
    with tempfile.TemporaryDirectory(prefix="loom-probe-") as place:
        folder = Path(place) / NAME
        folder.mkdir()
        shutil.copy(SOURCE, folder)
        (folder / "plugin.toml").write_text(_toml(manifest, tier))
        settings = _settings(manifest, tier, Path(place), folder, quotas)
        with _imported(folder):
            async with Host(load_settings(None, settings)) as host:
                handle = probe_of(host)
                if not handle.serves:
                    raise Fault(f"the kit's probe does not start in its place: {handle.explain()}")
                yield host


def probe_is_built() -> bool:
    """Whether the wasm tier needs no compiler for the probe."""
    from loom_host.runtimes.wasm.build import is_cached
    from loom_host.runtimes.wasm.cache import default_folder

    return is_cached(SOURCE.parent, f"{SOURCE.stem}:Probe", default_folder())


def probe_of(host: Host) -> PluginHandle:
    return host.plugins[NAME]


def _toml(manifest: Manifest, tier: str) -> str:
    """A plugin.toml; JSON's strings, lists and numbers are TOML's, too."""
    wants = manifest.permissions
    asked = {
        key: getattr(wants, key)
        for key in Permissions.__dataclass_fields__
        if getattr(wants, key)
    }  # fmt: skip
    head = {
        "id": f"loom/{NAME}", "version": "1.0.0", "api": "1", "type": "tool", "tier": tier,
        "entry": f"{SOURCE.stem}:Probe", "description": "Tries what it may not.",
        "sandbox": manifest.sandbox,
    }  # fmt: skip
    lines = ["[plugin]", *_pairs(head)]
    for name in CAPABILITIES:
        lines += ["[[capability]]", *_pairs({"name": name, "effects": "none"})]
    lines += ["[events]", *_pairs({"publishes": manifest.publishes})]
    lines += ["[permissions]", *_pairs(asked)]
    return "\n".join(lines) + "\n"


def _pairs(table: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value)}" for key, value in table.items()]


def _settings(
    manifest: Manifest,
    tier: str,
    place: Path,
    folder: Path,
    quotas: Mapping[str, Any],
) -> dict[str, Any]:
    own = is_first_party(manifest)
    allow = {
        **{kind: list(values) for kind, values in asked_for(manifest).items()},
        "provide": list(CAPABILITIES),
    }
    table: dict[str, Any] = {
        "tier": tier,
        "allow": allow,
        "folders": granted_folders(manifest.permissions, place),
        "quotas": dict(quotas),
        "trusted": True,
        "code": code_hash(folder),
    }
    if tier == "grpc":
        table["sandbox"] = manifest.sandbox or ("standard" if own else "strict")
    if tier == "wasm":
        table["isolation"] = "thread" if own else "process"
    places = passing_folders(place, tier)
    return {
        "host": {
            "plugin_paths": [str(folder)], "control": False, "stop_grace_ms": GRACE_MS, **places,
        },
        "telemetry": {"log_level": "error"},
        "plugins": {NAME: table},
    }  # fmt: skip


@contextmanager
def _imported(folder: Path) -> Iterator[None]:
    """The native tier loads code once in a process: afterwards it never was."""
    try:
        yield
    finally:
        sys.modules.pop(SOURCE.stem, None)
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
