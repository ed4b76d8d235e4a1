"""`loom logs`: what the plugins of the running host wrote."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from loom_host.telemetry.logs import visible

from .common import add_json, ask_host, whole_number

LEVELS = ("debug", "info", "warning", "error")
DEFAULT_LINES = 100


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "logs", help="what the plugins of the running host wrote: output and log lines"
    )
    parser.add_argument("plugin", nargs="?", default="", help="its name; without it all plugins")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until Ctrl-C")
    parser.add_argument(
        "-n",
        "--lines",
        type=whole_number,
        default=DEFAULT_LINES,
        help=f"how many of the last lines; default {DEFAULT_LINES}",
    )
    parser.add_argument("--level", choices=LEVELS, default="debug", help="only from this one on")
    add_json(parser)
    parser.set_defaults(handler=logs)


async def logs(arguments: argparse.Namespace) -> int:
    """0 after the last line that is kept; with `--follow` 1 where the host ended."""
    request = {
        "op": "logs",
        "plugin": arguments.plugin,
        "lines": arguments.lines,
        "level": arguments.level,
        "follow": arguments.follow,
    }
    async for row in ask_host(arguments, request):
        if "dropped" in row:
            _tell_dropped(row["dropped"])
            return 0
        if arguments.json:
            print(json.dumps(row, ensure_ascii=False), flush=True)
        elif "missed" in row:
            print(f"-- {row['missed']} lines were missed: they came too fast for this reader --")
        else:
            print(line_of(row, named=not arguments.plugin), flush=True)
    print("loom: the host ended: no more log lines come", file=sys.stderr)
    return 1


def line_of(entry: dict[str, Any], *, named: bool) -> str:
    """An entry for people: time (UTC), level, plugin where `named`, message, attributes, trace."""
    extra = dict(entry.get("extra", {}))
    attributes = extra.pop("attributes", {})
    stream = attributes.pop("stream", "")
    pairs = {**attributes, **extra}
    pairs |= {"trace": entry["trace_id"]} if "trace_id" in entry else {}
    who = f"{entry['plugin']}: " if named else ""
    what = f"{stream}| {entry['message']}" if stream else entry["message"]
    rest = "".join(f" {key}={value}" for key, value in pairs.items())
    time = entry["time"][:23]
    return visible(f"{time}Z {entry['level'].upper():7} {who}{what}{rest}")


def _tell_dropped(dropped: dict[str, int]) -> None:
    for name, count in dropped.items():
        print(
            f"loom: {name}: {count} lines since the host's start were dropped: over the quota "
            "log_rate or log_bytes",
            file=sys.stderr,
        )
