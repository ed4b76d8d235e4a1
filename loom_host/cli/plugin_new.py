"""`loom plugin new` and `loom schema`: where an author begins."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from loom_host.editor_schemas import loom_schema, plugin_schema
from loom_host.scaffold import KINDS, LANGUAGES, TIERS, Wish, create

from .common import WrongUsage, add_json, print_json

DEFAULTS = {"lang": "python", "tier": "wasm", "type": "tool"}
CHOICES = {"lang": LANGUAGES, "tier": TIERS, "type": KINDS}


def add_parser(verbs: Any) -> None:
    new = verbs.add_parser("new", help="write a new plugin that builds and passes its test")
    new.add_argument("name", nargs="?", help="lower case letters, digits and dashes")
    for option, choices in CHOICES.items():
        new.add_argument(f"--{option}", choices=choices, help=f"default: {DEFAULTS[option]}")
    new.add_argument("--publisher", metavar="NAME", help="of its id PUBLISHER/NAME; default: me")
    new.add_argument("--dir", metavar="FOLDER", help="default: ./NAME")
    add_json(new)
    new.set_defaults(handler=run_new)
    schema = verbs.add_parser("schema", help="print the JSON Schema of a file, for editors")
    schema.add_argument("file", choices=("plugin.toml", "loom.toml"))
    schema.set_defaults(handler=run_schema)


def run_new(arguments: argparse.Namespace) -> int:
    wish = _wish(arguments)
    folder = Path(arguments.dir or wish.name)
    files = create(wish, folder)
    if arguments.json:
        print_json({"folder": str(folder), "files": [path.name for path in files]})
        return 0
    for path in files:
        print(path)
    print(f"next: cd {folder} && python -m pytest", file=sys.stderr)
    return 0


def _wish(arguments: argparse.Namespace) -> Wish:
    given = {option: getattr(arguments, option) for option in CHOICES}
    name = arguments.name
    if name is None:
        if not sys.stdin.isatty():
            raise WrongUsage("say the plugin's name: loom plugin new NAME")
        name = input("Name: ").strip()
        for option, choices in CHOICES.items():
            given[option] = given[option] or _asked(option, choices)
    chosen = {option: value or DEFAULTS[option] for option, value in given.items()}
    if chosen["type"] == "source" and given["tier"] is None:
        chosen["tier"] = "grpc"
    publisher = arguments.publisher or "me"
    return Wish(name, chosen["lang"], chosen["tier"], chosen["type"], publisher)


def _asked(option: str, choices: tuple[str, ...]) -> str:
    while True:
        answer = input(f"{option} ({', '.join(choices)}) [{DEFAULTS[option]}]: ").strip()
        if answer in choices or not answer:
            return answer
        print(f"one of: {', '.join(choices)}")


def run_schema(arguments: argparse.Namespace) -> int:
    print_json(plugin_schema() if arguments.file == "plugin.toml" else loom_schema())
    return 0
