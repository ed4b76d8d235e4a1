"""`loom plugin inspect`: what a component exports and imports, without running it."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from loom_host.manifest import load_manifest
from loom_sdk.errors import ManifestError

from .common import add_json, print_json, print_table, size


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser("inspect", help="what a component exports and imports")
    parser.add_argument("file", help="a .wasm file, or the folder of a wasm plugin")
    add_json(parser)
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    from loom_host.runtimes.wasm.inspection import inspect

    path, plugin = _component(Path(arguments.file))
    report = inspect(path, plugin)
    if arguments.json:
        print_json(report)
    else:
        _print(report, plugin)
    return 0


def _component(path: Path) -> tuple[Path, str]:
    """The file to look at, and the plugin's name. Builds it where a folder has only sources."""
    if not path.is_dir():
        return path, re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-") or "plugin"
    from loom_host.runtimes.wasm.build import ensure_component
    from loom_host.runtimes.wasm.cache import default_folder

    manifest = load_manifest(path / "plugin.toml")
    if "wasm" not in manifest.tiers or not isinstance(manifest.entry, str):
        raise ManifestError(f"{path}/plugin.toml does not claim the wasm tier: nothing to inspect")
    return ensure_component(path, manifest.entry, default_folder()), manifest.name


def _print(report: dict[str, Any], plugin: str) -> None:
    whose = "a Loom plugin" if report["loom_plugin"] else "not written for Loom"
    print(f"{report['file']}: a component of {size(report['size'])} bytes, {whose}")
    if report["problem"]:
        print(f"refused: {report['problem']}")
    print("\nexports")
    for row in report["exports"]:
        print(f"  {row.get('capability') or row['export']}: {row['type']}")
        for side in ("input", "output"):
            if side in row:
                print(f"    {side}: {json.dumps(row[side], ensure_ascii=False)}")
    for row in report["not_offered"]:
        print(f"  not offered: {row['export']}: {row['why']}")
    print("\nimports" if report["imports"] else "\nimports nothing")
    if report["imports"]:
        rows = [(row["name"], row["status"], row["meaning"]) for row in report["imports"]]
        print_table(("NAME", "STATUS", "MEANING"), rows)
    if not report["loom_plugin"] and not report["problem"]:
        _print_use(report, plugin)


def _print_use(report: dict[str, Any], plugin: str) -> None:
    names = json.dumps([row["capability"] for row in report["exports"]])
    print(f"\nto use it, write in loom.toml:\n  [plugins.{plugin}]")
    print(f"  path = {json.dumps(report['file'])}\n  allow = {{ provide = {names} }}")
