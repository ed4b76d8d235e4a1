"""Changing what runs: `swap`, `disable`, `enable`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from .calls import parse_arguments
from .common import add_json, ask_once, print_json


def add_parser(subparsers: Any) -> None:
    swap = subparsers.add_parser("swap", help="put a new instance, or another plugin, in its place")
    swap.add_argument("plugin")
    swap.add_argument("--tier", default="", help="run the new one in this tier")
    swap.add_argument(
        "--config", action="append", default=[], dest="changed", metavar="KEY=VALUE",
        help="a setting of the new one that differs",
    )  # fmt: skip
    swap.add_argument(
        "--with", default="", dest="other", metavar="OTHER_PLUGIN",
        help="another plugin that provides the same takes its place",
    )  # fmt: skip
    swap.set_defaults(handler=run_swap)
    disable = subparsers.add_parser("disable", help="let a plugin finish, and stop it")
    disable.add_argument("plugin")
    disable.add_argument("--reason", required=True, help="what its callers are told")
    disable.set_defaults(handler=run_disable)
    enable = subparsers.add_parser("enable", help="start a plugin that is switched off or failed")
    enable.add_argument("plugin")
    enable.set_defaults(handler=run_enable)
    for parser in (swap, disable, enable):
        add_json(parser)


async def run_swap(arguments: argparse.Namespace) -> int:
    request = {
        "op": "swap",
        "plugin": arguments.plugin,
        "with": arguments.other,
        "tier": arguments.tier,
        "config": parse_arguments(arguments.changed),
    }
    answer = await ask_once(arguments, request)
    if arguments.json:
        print_json(answer)
        return 0
    what = f"{answer['plugin']} {answer['version']} ({answer['tier']})"
    print(f"{what} is in the place of {answer['instead_of']}, after {answer['ready_ms']:.0f} ms")
    print(f"the old one ended what it had in hand and stopped: {answer['drained_ms']:.0f} ms")
    return 0


async def run_disable(arguments: argparse.Namespace) -> int:
    request = {"op": "disable", "plugin": arguments.plugin, "reason": arguments.reason}
    answer = await ask_once(arguments, request)
    text = json.dumps(arguments.reason, ensure_ascii=False)  # such a string is one of TOML, too
    lines = f"[plugins.{arguments.plugin}]\nenabled = false\nreason = {text}"
    if arguments.json:
        print_json({**answer, "persistent": False, "to_persist": lines})
        return 0
    print(f"{answer['plugin']} is {answer['state']}: {answer['reason']}")
    print(f"{arguments.config or 'loom.toml'} is as it was; for the next start write there:")
    print(lines)
    return 0


async def run_enable(arguments: argparse.Namespace) -> int:
    answer = await ask_once(arguments, {"op": "enable", "plugin": arguments.plugin})
    if arguments.json:
        print_json(answer)
    else:
        print(f"{answer['plugin']} is {answer['state']}")
    return 0
