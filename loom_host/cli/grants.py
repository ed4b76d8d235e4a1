"""`loom grants learn`: run with all that plugins ask for, and propose what they used."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loom_host.host import Host

from .common import WrongUsage, add_json, print_json, settings_of
from .run import serve

if TYPE_CHECKING:
    from loom_host.learning import Learned

WARNING = """\
AUDIT MODE: until it ends, every plugin named below has ALL that its plugin.toml asks for,
also what loom.toml does not allow. Do not run it with plugins or input that you do not trust."""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("grants", help="find out which grants plugins need")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    learn = verbs.add_parser(
        "learn", help="run in audit mode, then print the least grants for what was done"
    )
    learn.add_argument("file", nargs="?", metavar="CONFIG", help="default: as with -c")
    learn.add_argument(
        "--plugin", action="append", default=[], metavar="NAME",
        help="only for this plugin, others keep their grants; more than once",
    )  # fmt: skip
    learn.add_argument("--seconds", type=_seconds, help="how long; default: until Ctrl-C")
    learn.add_argument("--write", action="store_true", help="write the lines into the file")
    add_json(learn)
    learn.set_defaults(handler=run)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r}: seconds above 0")
    return value


async def run(arguments: argparse.Namespace) -> int:
    """130 where it was stopped before the host was ready: nothing is learned then."""
    from loom_host.learning import Learner, opened

    path = Path(arguments.file) if arguments.file else arguments.config
    if arguments.write and path is None:
        raise WrongUsage("--write: there is no loom.toml here: name the file to write to")
    settings = settings_of(path)
    host = Host(opened(settings, arguments.plugin))
    learner = Learner(host, settings, arguments.plugin)
    if code := await serve(host, _greet(arguments.plugin), arguments.seconds):
        return code
    learned = learner.learned()
    if arguments.json:
        print_json([_row(item) for item in learned])
    else:
        for item in learned:
            _print(item)
    if arguments.write:
        from loom_host.allow_writing import write_allow

        write_allow(path, {item.plugin: item.allow for item in learned})
        print(f"{path}: allow of {len(learned)} plugins written", file=sys.stderr)
    return 0


def _greet(only: list[str]) -> Any:
    def greet(host: Host) -> None:
        running = [h for h in host.plugins.values() if h.state != "stopped"]
        named = [h.name for h in running if not only or h.name in only]
        print(f"{WARNING}\n{', '.join(named)}", file=sys.stderr)
        for handle in running:
            if handle.state == "failed":
                print(f"{handle.name} failed: {handle.reason}", file=sys.stderr)
        print("use it now as it is to be used; then Ctrl-C", file=sys.stderr)

    return greet


def _print(item: Learned) -> None:
    print(item.lines)
    for (kind, pattern), values in item.wide.items():
        print(f"# {kind} {pattern!r} is asked for and was used for: {', '.join(values)}")
    for kind, value in item.fresh:
        print(f"# not allowed today: {kind} {value!r}")
    for kind, values in item.idle.items():
        print(f"# asked for and never used: {kind} {_listed(values)}")
    for kind, values in item.unseen.items():
        stays = f"; kept: {_listed(item.kept[kind])}" if kind in item.kept else "; left out"
        print(f"# not observed: {kind} {_listed(values)}, given for this run{stays}")
    for kind, value in item.refused:
        print(f"# denied, since its plugin.toml does not ask for it: {kind} {value!r}")
    print()


def _listed(values: tuple[str, ...]) -> str:
    return ", ".join(map(repr, values))


def _row(item: Learned) -> dict[str, Any]:
    def plain(lists: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
        return {kind: list(values) for kind, values in lists.items()}

    return {
        "plugin": item.plugin,
        "allow": plain(item.allow),
        "used": plain(item.used),
        "not_used": plain(item.idle),
        "not_observed": plain(item.unseen),
        "not_allowed_today": [f"{kind}:{value}" for kind, value in item.fresh],
        "denied": [f"{kind}:{value}" for kind, value in item.refused],
        "wide": [
            {"kind": kind, "pattern": pattern, "used_for": list(values)}
            for (kind, pattern), values in item.wide.items()
        ],
    }
