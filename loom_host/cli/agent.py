"""`loom agent`: the agents of a running host, and their lives."""

from __future__ import annotations

import argparse
from typing import Any

from .calls import parse_arguments
from .common import add_json, ask_once, print_json, print_table, whole_number

COLUMNS = ("name", "plugin", "state", "plugin_state", "durable", "origin", "waiting", "hears")


def add_parser(subparsers: Any) -> None:
    agent = subparsers.add_parser("agent", help="list, create, start, stop, delete agents")
    verbs = agent.add_subparsers(dest="verb", metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="all agents, and what waits for each")
    listing.set_defaults(handler=run_list)
    create = verbs.add_parser("create", help="make one, which is started later; kept for restarts")
    create.add_argument("plugin", help="a plugin that runs")
    create.add_argument("name", help="of the new agent")
    create.add_argument(
        "--parameter", action="append", default=[], dest="parameters", metavar="KEY=VALUE",
        help="a setting of the plugin that differs for this agent",
    )  # fmt: skip
    create.add_argument(
        "--subscribe", action="append", default=[], metavar="TOPIC",
        help="of what the plugin hears what the agent hears; default: all",
    )  # fmt: skip
    create.add_argument("--durable", action="store_true", help="its events outlive the host")
    create.add_argument("--mailbox", type=whole_number, default=0, help="events that may wait")
    create.set_defaults(handler=run_create)
    for verb, help in (
        ("start", "let it hear"),
        ("stop", "let it hear nothing more"),
        ("delete", "forget it, with its state and its log"),
    ):
        parser = verbs.add_parser(verb, help=help)
        parser.add_argument("name")
        parser.set_defaults(handler=run_verb)
    for parser in verbs.choices.values():
        add_json(parser)


async def run_list(arguments: argparse.Namespace) -> int:
    rows = await ask_once(arguments, {"op": "agent.list"})
    if arguments.json:
        print_json(rows)
        return 0
    for row in rows:
        row |= {"durable": "yes" if row["durable"] else "", "hears": " ".join(row["hears"])}
    print_table(COLUMNS, [[row[column] for column in COLUMNS] for row in rows])
    return 0


async def run_create(arguments: argparse.Namespace) -> int:
    request = {
        "op": "agent.create",
        "name": arguments.name,
        "plugin": arguments.plugin,
        "parameters": parse_arguments(arguments.parameters),
        "durable": arguments.durable,
        "mailbox": arguments.mailbox,
        "subscribe": arguments.subscribe,
    }
    return _show(arguments, await ask_once(arguments, request))


async def run_verb(arguments: argparse.Namespace) -> int:
    request = {"op": f"agent.{arguments.verb}", "name": arguments.name}
    return _show(arguments, await ask_once(arguments, request))


def _show(arguments: argparse.Namespace, row: dict[str, Any]) -> int:
    if arguments.json:
        print_json(row)
    else:
        print(f"{row['name']} is {row['state']}")
        if row["state"] == "deleted" and row["origin"] != "created":
            print(f"it is made anew at the next start, since its origin is {row['origin']}")
    return 0
