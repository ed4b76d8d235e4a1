"""`loom plugin stubs`: a typed client for the capabilities that a plugin invokes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from loom_host import assembly, discovery
from loom_host.manifest import load_manifest
from loom_sdk.errors import ManifestError

from .common import settings_of

LANGUAGES = ("python",)


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser("stubs", help="write a typed client for what a plugin invokes")
    parser.add_argument(
        "what", nargs="+", metavar="FOLDER|CAPABILITY",
        help="a plugin, for what its manifest asks to invoke; or names, in which * may stand",
    )  # fmt: skip
    parser.add_argument("--lang", choices=LANGUAGES, default="python", help="default: python")
    parser.add_argument("-o", "--out", metavar="FILE", help="default: standard output")
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    from loom_host import stubs  # no other command needs it

    settings = settings_of(arguments.config)
    found = discovery.find_manifests(assembly.roots_of(settings)).values()
    offers = stubs.known_offers(found)
    wanted: dict[str, stubs.Offered] = {}
    for word in arguments.what:
        if (Path(word) / "plugin.toml").is_file():
            its = _of_folder(Path(word), offers)
        else:
            its = stubs.wanted_named([word], offers)
        wanted |= {offered.spec.name: offered for offered in its}
    text = stubs.module_of(list(wanted.values()))
    if not arguments.out:
        print(text, end="")
        return 0
    Path(arguments.out).write_text(text, encoding="utf-8")
    print(f"{arguments.out}: {', '.join(sorted(wanted))}", file=sys.stderr)
    return 0


def _of_folder(folder: Path, offers: Any) -> Any:
    from loom_host import stubs

    manifest = load_manifest(folder / "plugin.toml")
    if not manifest.permissions.invoke:
        raise ManifestError(
            f"{folder}/plugin.toml asks to invoke nothing: write [permissions] invoke = "
            '["weather.get"], or name the capabilities: loom plugin stubs weather.get'
        )
    found, empty = stubs.wanted_by(manifest, offers)
    for pattern in empty:
        print(
            f"nothing that this host finds offers {pattern}: add its folder to host.plugin_paths",
            file=sys.stderr,
        )
    if not found:
        raise ManifestError(f"nothing that {folder}/plugin.toml asks to invoke is known here")
    return found
