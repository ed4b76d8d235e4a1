"""`loom models list | pull`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from loom_host.model_registry import SOURCES, ModelEntry, Progress, load_registry
from loom_host.models import entry_of, installed, pull
from loom_sdk.models import models_dir

MB = 1_000_000
PIPED_COLUMNS = 200


def add_parser(subparsers: Any) -> None:
    """Add the verb group to the `loom` parser; each verb sets `handler(args) -> exit code`."""
    group = subparsers.add_parser("models", help="list and fetch speech and language models")
    verbs = group.add_subparsers(dest="verb", required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="what exists, its licence, and what is here")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(handler=list_models)
    pulling = verbs.add_parser("pull", help="fetch models that are not here yet")
    pulling.add_argument("names", nargs="*", metavar="NAME", help="models, as in `models list`")
    pulling.add_argument("--needed", action="store_true", help="those that the voice demo needs")
    pulling.add_argument(
        "--source", choices=SOURCES, help="where from (default: the first that `list` names)"
    )
    pulling.set_defaults(handler=pull_models)


def list_models(args: argparse.Namespace) -> int:
    """Print every model of the registry."""
    registry = load_registry()
    rows = [_row(entry, installed(entry.name, registry)) for entry in registry.values()]
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        _print_table(rows)
    return 0


def _row(entry: ModelEntry, here: bool) -> dict[str, Any]:
    return {
        "name": entry.name,
        "kind": entry.kind,
        "description": entry.description,
        "licence": entry.licence,
        "bytes": entry.size,
        "needed": entry.default,
        "sources": list(entry.sources),
        "installed": here,
        "path": str(models_dir() / entry.name) if here else "",
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for heading in ("name", "kind", "size", "here", "sources"):
        table.add_column(heading, no_wrap=True)
    for heading in ("licence", "what"):
        table.add_column(heading)
    for row in rows:
        size, here = f"{row['bytes'] / MB:.1f} MB", "yes" if row["installed"] else "no"
        sources = ", ".join(row["sources"])
        table.add_row(
            row["name"], row["kind"], size, here, sources, row["licence"], row["description"]
        )
    # Piped, it is not squeezed into the 80 columns of a terminal that is not there.
    Console(width=None if sys.stdout.isatty() else PIPED_COLUMNS).print(table)


def pull_models(args: argparse.Namespace) -> int:
    """Fetch the named models; raises LoomError for the first that cannot be had."""
    registry = load_registry()
    names = list(dict.fromkeys(args.names))
    if args.needed:
        names += [name for name, entry in registry.items() if entry.default and name not in names]
    if not names:
        print("loom models pull: name a model or give --needed; see `loom models list`",
              file=sys.stderr)  # fmt: skip
        return 2
    for name in names:
        entry_of(name, registry)
    for name in names:
        if installed(name, registry):
            print(f"{name}: already here", file=sys.stderr)
            continue
        with _progress() as progress:
            path = pull(name, progress, source=args.source, registry=registry)
        print(f"{name}: {path}", file=sys.stderr)
    return 0


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on a terminal, elsewhere a line for each tenth of a file."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TransferSpeedColumn,
    )  # fmt: skip
    from rich.progress import (
        Progress as Bar,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(),
               TransferSpeedColumn())  # fmt: skip
    with Bar(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        yield show


def _lines() -> Progress:
    shown: dict[str, int] = {}

    def show(what: str, done: int, total: int) -> None:
        tenth = done * 10 // total if total else 10
        if tenth > shown.get(what, -1):
            shown[what] = tenth
            print(f"{what}: {done / MB:.1f} of {total / MB:.1f} MB", file=sys.stderr, flush=True)

    return show
