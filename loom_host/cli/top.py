"""`loom top`: what the plugins of the running host do now, against their limits."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from loom_host.telemetry.logs import visible
from loom_sdk.errors import PluginCrashed, PluginUnhealthy

from .common import add_json, ask_once, print_table, size

Row = dict[str, Any]

FIRST_S = 0.5
"""What is counted a second needs two looks: the first table comes after so long."""
COLUMNS = (
    "PLUGIN", "TIER", "STATE", "CALLS/S", "ERRORS", "BUSY", "MEM", "PEAK", "LIMIT", "CPU",
    "QUOTA HITS", "RESTARTS", "DENIED", "DROPPED",
)  # fmt: skip


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "top", help="calls, memory, processor, quotas, restarts and denials of plugins, live"
    )
    parser.add_argument("--once", action="store_true", help="print it once and end")
    parser.add_argument(
        "--interval", type=_seconds, default=1.0, metavar="SECONDS", help="default 1"
    )
    add_json(parser)
    parser.set_defaults(handler=top)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: seconds, at least 0.1")
    return seconds


async def top(arguments: argparse.Namespace) -> int:
    """0 after one table, which is all where no terminal shows more; 1 where the host ended."""
    samples = _samples(arguments, await ask_once(arguments, {"op": "ps"}))
    if arguments.once or not (arguments.json or sys.stdout.isatty()):
        sample = await anext(samples)
        _print_json(sample) if arguments.json else _print(sample)
        return 0
    try:
        await (_follow_json(samples) if arguments.json else _follow_table(samples))
    except (PluginUnhealthy, PluginCrashed, ConnectionError):
        print("loom: the host ended", file=sys.stderr)
    return 1


async def _samples(
    arguments: argparse.Namespace, before: Sequence[Row]
) -> AsyncIterator[list[Row]]:
    """Rows as `loom ps --json` has them, with what was counted a second since the last ones."""
    then = time.monotonic()
    wait = min(FIRST_S, arguments.interval)
    while True:
        await asyncio.sleep(wait)
        rows, now = await ask_once(arguments, {"op": "ps"}), time.monotonic()
        yield rated(before, rows, now - then)
        before, then, wait = rows, now, arguments.interval


def rated(before: Sequence[Row], rows: Sequence[Row], seconds: float) -> list[Row]:
    """`rows` with `calls_per_s` and `cpu_now`, in processors, None where it is not known.

    A plugin that was not there before, or has a new process since, began at nothing.
    """
    old = {row["name"]: row for row in before}
    found = []
    for row in rows:
        was = old.get(row["name"], {"calls": 0, "pid": 0, "usage": {}})
        cpu = row["usage"].get("cpu_s")
        if cpu is not None:
            cpu -= was["usage"].get("cpu_s", 0.0) if was["pid"] == row["pid"] else 0.0
            cpu = max(cpu, 0.0) / seconds
        calls = max(row["calls"] - was["calls"], 0) / seconds
        found.append({**row, "calls_per_s": calls, "cpu_now": cpu})
    return found


async def _follow_json(samples: AsyncIterator[list[Row]]) -> None:
    async for sample in samples:
        _print_json(sample)


def _print_json(sample: list[Row]) -> None:
    data = {"time": time.time(), "plugins": sample}
    print(json.dumps(data, ensure_ascii=False), flush=True)


def _print(sample: list[Row]) -> None:
    print_table(COLUMNS, map(cells, sample))
    for line in remarks(sample):
        print(line)


async def _follow_table(samples: AsyncIterator[list[Row]]) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        async for sample in samples:
            table = Table(box=None, pad_edge=False)
            for index, heading in enumerate(COLUMNS):
                table.add_column(heading, no_wrap=index < 3)
            for row in sample:
                table.add_row(*(Text(cell) for cell in cells(row)))
            when = Text(time.strftime("%H:%M:%S  Ctrl-C ends it"), style="dim")
            live.update(Group(when, table, *map(Text, remarks(sample))), refresh=True)


def cells(row: Row) -> tuple[str, ...]:
    """The texts of one plugin, in the order of COLUMNS; `-` is what is not known or not limited."""
    limits = row["limits"]
    shares_host = row["tier"] == "native"  # its memory is the host's, and nothing limits it
    cpu = "-" if row["cpu_now"] is None else f"{row['cpu_now']:.2f}"
    if limits["cpu_share"] and not shares_host:
        cpu += f"/{limits['cpu_share']:g}"
    hits = ", ".join(f"{quota} {count}" for quota, count in row["hits"].items())
    return (
        row["name"],
        row["tier"],
        row["state"],
        f"{row['calls_per_s']:.1f}",
        str(row["errors"]),
        f"{row['in_flight']}/{limits['concurrency']}",
        "-" if shares_host else size(row["memory"]),
        "-" if shares_host else size(row["peak_memory"]),
        "-" if shares_host or not limits["memory"] else size(limits["memory"]),
        cpu,
        hits or "-",
        str(row["restarts"]),
        str(row["denials"]),
        str(row["lines_dropped"]),
    )


def remarks(sample: Sequence[Row]) -> list[str]:
    """Why a plugin is not well, and where the rest is told."""
    told = [visible(f"{row['name']}: {row['reason']}") for row in sample if row["reason"]]
    if any(row["denials"] for row in sample):
        told.append("denials: see loom why-denied")
    if dropped := [row["name"] for row in sample if row["lines_dropped"]]:
        told.append(f"dropped log lines: see loom logs {dropped[0]}")
    return told
