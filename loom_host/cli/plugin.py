"""`loom plugin`: build, list, inspect, pack and install plugins."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from loom_host import assembly, discovery, node_plugin
from loom_host.manifest import Manifest, load_manifest
from loom_sdk.errors import ManifestError

from . import plugin_inspect, plugin_install, plugin_new, plugin_pack
from .common import add_json, print_json, print_table, settings_of


def add_parser(subparsers: Any) -> None:
    plugin = subparsers.add_parser("plugin", help="build, inspect, pack and install plugins")
    verbs = plugin.add_subparsers(dest="verb", metavar="VERB", required=True)
    build = verbs.add_parser(
        "build", help="compile a plugin for the wasm tier, or fetch a Node plugin's packages"
    )
    build.add_argument("folder")
    build.set_defaults(handler=run_build)
    listing = verbs.add_parser("list", help="plugins that this host can find")
    add_json(listing)
    listing.set_defaults(handler=run_list)
    for group in (plugin_new, plugin_inspect, plugin_pack, plugin_install):
        group.add_parser(verbs)


def run_build(arguments: argparse.Namespace) -> int:
    folder = Path(arguments.folder)
    manifest = load_manifest(folder / "plugin.toml")
    if node_plugin.needs_packages(manifest):
        return _build_node(folder, manifest.id)
    return _build_wasm(folder, manifest)


def _build_node(folder: Path, plugin_id: str) -> int:
    if node_plugin.is_current(folder):
        print(f"{folder / 'build'} is up to date")
        return 0
    began = time.monotonic()
    print(f"building {plugin_id}", file=sys.stderr)
    print(f"{node_plugin.build(folder)} ({time.monotonic() - began:.1f} s)")
    return 0


def _build_wasm(folder: Path, manifest: Manifest) -> int:
    from loom_host.runtimes.wasm.build import build_component, built_path, is_current, wit_dir

    if "wasm" not in manifest.tiers or not isinstance(manifest.entry, str):
        raise ManifestError(f"{folder}/plugin.toml does not claim the wasm tier: add it to tiers")
    out = built_path(folder, manifest.entry)
    if is_current(folder, manifest.entry, out):
        print(f"{out} is up to date")
        return 0
    began = time.monotonic()
    print(f"building {manifest.id}", file=sys.stderr)
    build_component(folder, manifest.entry, out, wit_dir())
    print(f"{out} ({out.stat().st_size / 1e6:.1f} MB, {time.monotonic() - began:.1f} s)")
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments.config)
    found = discovery.find_manifests(assembly.roots_of(settings))
    rows = [
        {
            "name": m.name, "id": m.id, "version": m.version, "type": m.type,
            "tiers": list(m.tiers), "capabilities": [c.name for c in m.capabilities],
            "description": m.description,
        }
        for m in found.values()
    ]  # fmt: skip
    if arguments.json:
        print_json(rows)
    else:
        print_table(
            ("NAME", "VERSION", "TYPE", "TIERS", "OFFERS"),
            [
                (r["name"], r["version"], r["type"], ",".join(r["tiers"]),
                 ",".join(r["capabilities"]) or "-")
                for r in rows
            ],
        )  # fmt: skip
    return 0
