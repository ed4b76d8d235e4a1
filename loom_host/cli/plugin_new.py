"""`loom plugin new` and `loom schema`: where an author begins."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from loom_host.discovery import bundle
from loom_host.editor_schemas import loom_schema, plugin_schema
from loom_host.scaffold import Wish, create
from loom_host.templates import KINDS, LANGUAGES, TEMPLATES, TIERS, kinds_of, tiers_of

from .common import WrongUsage, add_json, print_json, print_table

CHOICES = {"lang": LANGUAGES, "tier": TIERS, "type": KINDS}
HELP = {
    "lang": "default: python",
    "tier": "default: wasm where the language and type can",
    "type": "default: tool",
}


def add_parser(verbs: Any) -> None:
    new = verbs.add_parser("new", help="write a new plugin that builds and passes its test")
    new.add_argument("name", nargs="?", help="lower case letters, digits and dashes")
    for option, choices in CHOICES.items():
        new.add_argument(f"--{option}", choices=choices, help=HELP[option])
    new.add_argument("--publisher", metavar="NAME", help="of its id PUBLISHER/NAME; default: me")
    new.add_argument("--dir", metavar="FOLDER", help="default: ./NAME")
    new.add_argument("--list", action="store_true", help="which combinations there are")
    add_json(new)
    new.set_defaults(handler=run_new)
    schema = verbs.add_parser(
        "schema", help="print the JSON Schema of a file, for editors, or a file of the contract"
    )
    schema.add_argument("file", choices=(*SCHEMAS, *CONTRACT))
    schema.set_defaults(handler=run_schema)


def run_new(arguments: argparse.Namespace) -> int:
    if arguments.list:
        return _list(arguments.json)
    wish = _wish(arguments)
    folder = Path(arguments.dir or wish.name)
    files = create(wish, folder)
    lacking = wish.template().lacking()
    if arguments.json:
        names = [path.relative_to(folder).as_posix() for path in files]
        print_json({"folder": str(folder), "files": names, "lacking": lacking})
        return 0
    for path in files:
        print(path)
    if lacking:
        toolchain = wish.template().toolchain
        print(
            f"not installed: {', '.join(lacking)}; building it needs {toolchain}", file=sys.stderr
        )
    print(f"next: cd {folder} && python -m pytest", file=sys.stderr)
    return 0


def _list(as_json: bool) -> int:
    rows = [
        {
            "lang": lang, "tier": tier, "types": list(kinds_of(lang, tier)),
            "needs": next(t.toolchain for t in TEMPLATES if (t.lang, t.tier) == (lang, tier)),
        }
        for lang in LANGUAGES
        for tier in tiers_of(lang)
    ]  # fmt: skip
    if as_json:
        print_json(rows)
    else:
        print_table(
            ("LANG", "TIER", "TYPES", "NEEDS"),
            [(r["lang"], r["tier"], ",".join(r["types"]), r["needs"] or "-") for r in rows],
        )
    return 0


def _wish(arguments: argparse.Namespace) -> Wish:
    name, lang, tier, kind = arguments.name, arguments.lang, arguments.tier, arguments.type
    if name is None:
        if not sys.stdin.isatty():
            raise WrongUsage("say the plugin's name: loom plugin new NAME")
        name = input("Name: ").strip()
        lang = lang or _asked("lang", LANGUAGES)
        tier = tier or _asked("tier", tiers_of(lang, kind or "") or TIERS)
        kind = kind or _asked("type", kinds_of(lang, tier) or KINDS)
    lang, kind = lang or LANGUAGES[0], kind or KINDS[0]
    tier = tier or (tiers_of(lang, kind) or tiers_of(lang))[0]
    return Wish(name, lang, tier, kind, arguments.publisher or "me")


def _asked(option: str, choices: tuple[str, ...]) -> str:
    """One of the choices; the first where nothing is said."""
    while True:
        answer = input(f"{option} ({', '.join(choices)}) [{choices[0]}]: ").strip() or choices[0]
        if answer in choices:
            return answer
        print(f"one of: {', '.join(choices)}")


def run_schema(arguments: argparse.Namespace) -> int:
    if arguments.file in SCHEMAS:
        print_json(SCHEMAS[arguments.file]())
    else:
        print(CONTRACT[arguments.file]().read_text(encoding="utf-8"), end="")
    return 0


def _wit() -> Path:
    from loom_host.runtimes.wasm.compiler import sdk_dir  # no other command of these needs it

    return sdk_dir("wit") / "plugin.wit"


SCHEMAS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "plugin.toml": plugin_schema,
    "loom.toml": loom_schema,
}
CONTRACT: Mapping[str, Callable[[], Path]] = {
    "plugin.wit": _wit,
    "plugin.proto": lambda: bundle("proto") / "plugin.proto",
}
