"""`loom`: one parser, one file per verb group, one place where errors are printed."""

from __future__ import annotations

import argparse
import asyncio
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path

from loom_host.telemetry.logs import visible
from loom_sdk.errors import LoomError, told

from . import (
    agent,
    approvals,
    bench,
    calls,
    changes,
    check,
    demo,
    events,
    grants,
    logs,
    mcp,
    models,
    plugin,
    route,
    run,
    show,
    storage,
    top,
)
from .common import WrongUsage
from .entry import EXIT_INTERRUPTED

GROUPS = (
    agent,
    demo,
    run,
    check,
    show,
    top,
    logs,
    calls,
    events,
    storage,
    changes,
    grants,
    models,
    plugin,
    route,
    approvals,
    mcp,
    bench,
)
EXIT_ERROR, EXIT_USAGE = 1, 2


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="loom", description="A plugin host for voice and AI agents."
    )
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        help="settings; default ./loom.toml, else the shipped voice profile",
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for group in GROUPS:
        group.add_parser(subparsers)
    for command in subparsers.choices.values():
        command.set_defaults(own_parser=command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 a failure that is told on stderr, 2 wrong usage, 130 interrupted."""
    arguments = _parse(argv)
    arguments.config = _config_path(arguments.config)
    try:
        answer = arguments.handler(arguments)
        if inspect.iscoroutine(answer):
            answer = asyncio.run(answer)
        return int(answer or 0)
    except WrongUsage as error:
        print(f"loom: {error.message}", file=sys.stderr)
        return EXIT_USAGE
    except LoomError as error:
        text = "\n".join(map(visible, told(error).split("\n")))
        print(f"loom: {text}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return EXIT_ERROR
    except OSError as error:
        print(f"loom: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        return EXIT_ERROR


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """`loom call` takes options before its arguments, too, which argparse does not."""
    arguments, rest = build_parser().parse_known_args(
        _two_words(sys.argv[1:] if argv is None else argv)
    )
    if rest and (arguments.command != "call" or any(word.startswith("-") for word in rest)):
        arguments.own_parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.arguments += rest
    return arguments


def _two_words(argv: Sequence[str]) -> list[str]:
    """`events record` is one command where its words follow each other as the first ones."""
    words = list(argv)
    first = 0
    while first < len(words) and words[first].startswith("-"):
        first += 2 if words[first] in ("-c", "--config") else 1
    if (both := " ".join(words[first : first + 2])) in events.COMMANDS:
        words[first : first + 2] = [both]
    return words


def _config_path(given: str | None) -> Path | None:
    if given is not None:
        return Path(given)
    here = Path("loom.toml")
    return here if here.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
