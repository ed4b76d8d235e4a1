"""What the router decides: `loom route explain`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from loom_host.control import socket_path
from loom_host.explain import broker_at_rest, explain_route
from loom_sdk.errors import PluginUnhealthy

from .calls import parse_arguments
from .common import add_json, ask_once, print_json, print_table, settings_of


def add_parser(subparsers: Any) -> None:
    route = subparsers.add_parser("route", help="what the router decides, and why")
    verbs = route.add_subparsers(dest="verb", metavar="VERB", required=True)
    explain = verbs.add_parser(
        "explain", help="the decision for a capability now, and what each provider failed on"
    )
    explain.add_argument("capability", help="such as llm.chat")
    explain.add_argument(
        "--policy",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a key of the policy that is to be another, such as privacy=local-only",
    )
    explain.add_argument("--agent", default="", metavar="NAME", help="whose policy holds")
    add_json(explain)
    explain.set_defaults(handler=run_explain)


async def run_explain(arguments: argparse.Namespace) -> int:
    """Of the running host where there is one, else by the settings alone."""
    answer = await _explained(arguments, parse_arguments(arguments.policy))
    if arguments.json:
        print_json(answer)
    else:
        _print(answer)
    return 0


async def _explained(arguments: argparse.Namespace, changes: dict[str, Any]) -> dict[str, Any]:
    capability, agent = arguments.capability, arguments.agent
    settings = settings_of(arguments.config)
    if socket_path(settings.host.runtime_dir).exists():
        request = {"op": "route", "capability": capability, "agent": agent, "policy": changes}
        try:
            answer: dict[str, Any] = await ask_once(arguments, request)
            return answer
        except PluginUnhealthy:
            pass  # a socket that a killed host left behind
    print("loom: no host runs: this is by the settings alone", file=sys.stderr)
    return explain_route(broker_at_rest(settings), settings, capability, agent, changes)


def _print(answer: dict[str, Any]) -> None:
    decision, policy = answer["decision"], answer["policy"]
    route = decision["route"]
    print(f"{answer['capability']}  {route}: {decision['reason'].removeprefix(f'{route}: ')}")
    print(
        f"confidence {decision['confidence']:.3f}, about {decision['estimated_ms']:.0f} ms, "
        f"cost {decision['estimated_cost']:.4f}"
    )
    print("policy  " + "  ".join(f"{key}={_text(value)}" for key, value in policy.items()))
    print()
    print_table(
        ("PROVIDER", "PLACEMENT", "STATE", "CONFIDENCE", "ERRORS", "LATENCY", "COST", "VERDICT"),
        [
            (
                row["name"],
                row["placement"],
                row["state"],
                f"{row['confidence']:.2f}",
                f"{row['error_rate']:.0%}",
                "-" if row["latency_ms"] is None else f"{row['latency_ms']:.1f} ms",
                f"{row['cost']:g}",
                row["verdict"],
            )
            for row in answer["candidates"]
        ],
    )


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
