"""`loom plugin check`: what can be told of a plugin from its folder, without running it."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import WrongUsage, add_json, print_json, print_table

if TYPE_CHECKING:
    from loom_host.lint import Finding

ERROR = "error"


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser("check", help="look for mistakes in a plugin, without running it")
    parser.add_argument("folder", nargs="?", default=".", help="holds plugin.toml; default: here")
    parser.add_argument("--strict", action="store_true", help="exit with 1 for warnings, too")
    parser.add_argument("--rules", action="store_true", help="list the rules instead")
    add_json(parser)
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """1 where there is an error; with --strict, where there is any finding."""
    from loom_host.lint import check_folder  # no other command needs it

    if arguments.rules:
        return _list_rules(arguments.json)
    folder = Path(arguments.folder)
    if not folder.is_dir():
        raise WrongUsage(f"{folder} is no folder: name the one that holds plugin.toml")
    found = check_folder(folder)
    errors = sum(finding.severity == ERROR for finding in found)
    if arguments.json:
        rows = [asdict(finding) for finding in found]
        counts = {"errors": errors, "warnings": len(found) - errors}
        print_json({"folder": str(folder), **counts, "findings": rows})
    else:
        _print(folder, found, errors)
    return 1 if errors or (arguments.strict and found) else 0


def _print(folder: Path, found: list[Finding], errors: int) -> None:
    for finding in found:
        print(f"{folder / finding.place}: {finding.severity} {finding.rule}: {finding.what}")
        print(f"    fix: {finding.fix}")
    warnings = len(found) - errors
    print(f"{folder}: {_count(errors, 'error')}, {_count(warnings, 'warning')}")


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _list_rules(as_json: bool) -> int:
    from loom_host.lint import RULES

    rows = [(rule, severity, means) for rule, (severity, means) in RULES.items()]
    if as_json:
        print_json([{"rule": r, "severity": s, "means": m} for r, s, m in rows])
    else:
        print_table(("RULE", "SEVERITY", "MEANING"), rows)
    return 0
