"""`loom approvals`: the calls of agents that wait to be allowed, and the answer to one."""

from __future__ import annotations

import argparse
import time
from typing import Any

from .common import WrongUsage, add_json, ask_once, print_json, print_table


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("approvals", help="calls of agents that wait to be allowed")
    parser.add_argument("verb", nargs="?", default="list", choices=("list", "allow", "deny"))
    parser.add_argument("id", nargs="?", default="", help="of the call, as the list shows it")
    add_json(parser)
    parser.set_defaults(handler=run)


async def run(arguments: argparse.Namespace) -> int:
    verb, id = arguments.verb, arguments.id
    if (verb == "list") == bool(id):
        raise WrongUsage("write `loom approvals`, `loom approvals allow ID` or `... deny ID`")
    request: dict[str, Any] = {"op": "approvals"}
    if id:
        request |= {"id": id, "allow": verb == "allow"}
    rows = await ask_once(arguments, request)
    if arguments.json:
        print_json(rows)
    elif id:
        print(f"{'allowed' if verb == 'allow' else 'denied'}: {rows[0]['capability']}")
    else:
        _print(rows)
    return 0


def _print(rows: list[dict[str, Any]]) -> None:
    if not rows:
        print("no call waits to be allowed")
        return
    now = time.time() * 1000
    columns = ("id", "agent", "capability", "arguments")
    table = [
        (*(row[key] for key in columns), f"{max(0, row['expires_unix_ms'] - now) / 1000:.0f}")
        for row in rows
    ]
    print_table((*columns, "seconds left"), table)
