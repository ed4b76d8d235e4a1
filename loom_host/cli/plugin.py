"""`loom plugin`: build, test, list, inspect, pack and install plugins."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from loom_host import assembly, builds, discovery

from . import (
    plugin_check,
    plugin_inspect,
    plugin_install,
    plugin_new,
    plugin_pack,
    plugin_run,
    plugin_stubs,
    plugin_test,
)
from .common import add_json, print_json, print_table, settings_of

GROUPS = (
    plugin_new,
    plugin_check,
    plugin_run,
    plugin_test,
    plugin_stubs,
    plugin_inspect,
    plugin_pack,
    plugin_install,
)


def add_parser(subparsers: Any) -> None:
    plugin = subparsers.add_parser("plugin", help="build, test, inspect, pack and install plugins")
    verbs = plugin.add_subparsers(dest="verb", metavar="VERB", required=True)
    build = verbs.add_parser(
        "build", help="compile a plugin (wasm, Go, Rust), or fetch a Node plugin's packages"
    )
    build.add_argument("folder")
    build.set_defaults(handler=run_build)
    listing = verbs.add_parser("list", help="plugins that this host can find")
    add_json(listing)
    listing.set_defaults(handler=run_list)
    for group in GROUPS:
        group.add_parser(verbs)


def run_build(arguments: argparse.Namespace) -> int:
    built = builds.build_plugin(
        Path(arguments.folder), lambda name: print(f"building {name}", file=sys.stderr)
    )
    if not built.seconds:
        print(f"{built.path} is up to date")
        return 0
    size = f"{built.path.stat().st_size / 1e6:.1f} MB, " if built.path.is_file() else ""
    print(f"{built.path} ({size}{built.seconds:.1f} s)")
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
