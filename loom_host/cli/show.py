"""What a running host tells: `ps`, `why-denied`, `trace`, `stats`."""

from __future__ import annotations

import argparse
import textwrap
import time
from typing import Any

from loom_host.telemetry import Span, waterfall
from loom_sdk.errors import CapabilityError

from .common import add_json, ask_once, print_json, print_table, size


def add_parser(subparsers: Any) -> None:
    for name, handler, text in (
        ("ps", ps, "plugins of the running host, their state and use"),
        ("why-denied", why_denied, "the last refusals, each with the line that would allow it"),
        ("stats", stats, "topics and subscriptions of the running host"),
    ):
        parser = subparsers.add_parser(name, help=text)
        add_json(parser)
        parser.set_defaults(handler=handler)
    trace = subparsers.add_parser("trace", help="where the time of the last turn went")
    trace.add_argument("which", nargs="?", default="last", choices=["last"])
    trace.add_argument("--width", type=int, default=100)
    add_json(trace)
    trace.set_defaults(handler=show_trace)


async def ps(arguments: argparse.Namespace) -> int:
    rows = await ask_once(arguments, {"op": "ps"})
    if arguments.json:
        print_json(rows)
        return 0
    print_table(
        (
            "NAME", "TIER", "STATE", "CALLS", "EVENTS", "ERRORS", "RESTARTS", "DENIED", "QUOTA",
            "DROPPED", "MEM", "PEAK",
        ),
        [
            (
                r["name"], r["tier"], r["state"], r["calls"], r["events"], r["errors"],
                r["restarts"], r["denials"], r["quota_hits"], r["lines_dropped"],
                size(r["memory"]), size(r["peak_memory"]),
            )
            for r in rows
        ],
    )  # fmt: skip
    _print_guests([row for row in rows if "fuel" in row["usage"]])
    for row in rows:
        if row["reason"]:
            print(f"{row['name']}: {row['reason']}")
        if row["note"]:
            print(f"{row['name']}: {row['note']}")
        if row["circuit_reason"]:
            print(f"{row['name']}: {row['circuit_reason']}")
    for how, (quotas, names) in _unenforced(rows).items():
        print(f"{how}: {', '.join(quotas)} of {', '.join(names)}")
    return 0


def _print_guests(rows: list[dict[str, Any]]) -> None:
    """What only wasm plugins have; fuel is `-` where the quota asks for no metering."""
    if not rows:
        return
    print()
    print_table(
        ("WASM", "ISOLATION", "INSTANCES", "RENEWALS", "CPU", "FUEL"),
        [
            (
                row["name"],
                row["isolation"],
                int(row["usage"]["instances"]),
                int(row["usage"]["renewals"]),
                f"{row['usage']['cpu_s']:.2f}s",
                f"{row['usage']['fuel']:.3g}" if row["usage"]["fuel"] else "-",
            )
            for row in rows
        ],
    )


def _unenforced(rows: list[dict[str, Any]]) -> dict[str, tuple[list[str], list[str]]]:
    """How a quota is not enforced -> the quotas and the plugins that it holds for."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for row in rows:
        weak = {name: how for name, how in row["layers"].items() if how != "enforced"}
        for quota, how in (row["unenforced"] | weak).items():
            quotas, names = found.setdefault(how, ([], []))
            quotas += [quota] if quota not in quotas else []
            names += [row["name"]] if row["name"] not in names else []
    return found


async def why_denied(arguments: argparse.Namespace) -> int:
    rows = await ask_once(arguments, {"op": "why-denied"})
    if arguments.json:
        print_json(rows)
        return 0
    if not rows:
        print("nothing was refused")
    for row in rows:
        when = time.strftime("%H:%M:%S", time.localtime(row["time"]))
        print(f"{when}  {row['plugin']}: {row['kind']} {row['value']!r}")
        print("          to allow it, in place of the allow that is there:")
        print(textwrap.indent(row["line"], " " * 10))
    return 0


async def stats(arguments: argparse.Namespace) -> int:
    data = await ask_once(arguments, {"op": "stats"})
    if arguments.json:
        print_json(data)
        return 0
    topics = [{"topic": name, **row} for name, row in data["topics"].items()]
    for rows in (topics, data["subscriptions"]):
        if rows:
            columns = [name.upper() for name in rows[0]]
            print_table(columns, [[_cell(value) for value in row.values()] for row in rows])
            print()
    return 0


def _cell(value: Any) -> str:
    """Counts by reason as `reason=1`."""
    if isinstance(value, dict):
        return " ".join(f"{k}={v}" for k, v in value.items()) or "-"
    return str(value)


async def show_trace(arguments: argparse.Namespace) -> int:
    rows = await ask_once(arguments, {"op": "trace"})
    if arguments.json:
        print_json(rows)
        return 0
    if not rows:
        raise CapabilityError("no trace yet: speak to the host, or raise telemetry.sample_ratio")
    for line in waterfall([Span.from_row(row) for row in rows], arguments.width):
        print(line)
    return 0
