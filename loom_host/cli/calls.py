"""Talking to what runs: `call`, `publish`, `events`."""

from __future__ import annotations

import argparse
import base64
import json
import sys
from pathlib import Path
from typing import Any

from loom_host.control import answer_of, socket_path
from loom_host.host import Host
from loom_host.settings import Settings
from loom_sdk.errors import LoomError, PluginUnhealthy, encode

from .common import (
    WrongUsage,
    add_json,
    ask_host,
    ask_once,
    print_json,
    settings_of,
    whole_number,
)


def add_parser(subparsers: Any) -> None:
    call = subparsers.add_parser("call", help="invoke a capability")
    call.add_argument("capability", help="such as calculator.evaluate")
    call.add_argument("arguments", nargs="*", metavar="KEY=VALUE", help="or one JSON object")
    call.add_argument("--payload", metavar="FILE", help="binary sent beside the arguments")
    call.add_argument("--content-type", default="")
    call.add_argument("--out", metavar="FILE", help="where a binary result goes")
    call.add_argument("--timeout-ms", type=int, default=30_000)
    add_json(call)
    call.set_defaults(handler=run_call)
    publish = subparsers.add_parser("publish", help="publish an event on the running host")
    publish.add_argument("topic")
    publish.add_argument("payload", nargs="?", default="")
    publish.add_argument("--type", default="message")
    publish.add_argument("--metadata", action="append", default=[], metavar="KEY=VALUE")
    add_json(publish)
    publish.set_defaults(handler=run_publish)
    events = subparsers.add_parser("events", help="show events of the running host as they come")
    events.add_argument("pattern", nargs="?", default=">")
    events.add_argument(
        "--count", type=whole_number, default=0, help="stop after so many; 0: never"
    )
    add_json(events)
    events.set_defaults(handler=run_events)


def parse_arguments(words: list[str]) -> dict[str, Any]:
    """`key=value` words, or one JSON object. Values that are JSON count as such."""
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        try:
            data = json.loads(words[0])
        except ValueError as error:
            raise WrongUsage(f"the arguments are not JSON: {error}") from error
        return dict(data)
    return dict(_pair(word) for word in words)


def parse_pair(word: str) -> tuple[str, str]:
    """`key=value` as it stands, for metadata, whose values are texts."""
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise WrongUsage(f"{word!r}: write it as key=value")
    return key, value


def _pair(word: str) -> tuple[str, Any]:
    if not word.partition("=")[1] or word.startswith("="):
        raise WrongUsage(f"{word!r}: write arguments as key=value or as one JSON object")
    key, value = parse_pair(word)
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _read(file: str | None) -> bytes:
    return Path(file).read_bytes() if file else b""


async def run_call(arguments: argparse.Namespace) -> int:
    """On the running host where there is one, else on a host started for this call."""
    payload = _read(arguments.payload)
    request: dict[str, Any] = {
        "op": "call",
        "capability": arguments.capability,
        "arguments": parse_arguments(arguments.arguments),
        "payload": base64.b64encode(payload).decode(),
        "content_type": arguments.content_type,
        "timeout_ms": arguments.timeout_ms,
    }
    settings = settings_of(arguments.config)
    try:
        answer = await _answer(arguments, settings, request, payload)
    except LoomError as error:
        if arguments.json:
            code = str(getattr(error, "code", "")) or encode(error).code
            print_json({"error": {"code": code, "message": error.message}})
        raise
    return _print_result(answer, arguments)


async def _answer(
    arguments: argparse.Namespace, settings: Settings, request: dict[str, Any], payload: bytes
) -> dict[str, Any]:
    if socket_path(settings.host.runtime_dir).exists():
        try:
            answer: dict[str, Any] = await ask_once(arguments, request)
            return answer
        except PluginUnhealthy:
            pass  # a socket that a killed host left behind
    async with Host(settings) as host:
        result = await host.invoke(
            arguments.capability,
            request["arguments"],
            payload=payload,
            content_type=arguments.content_type,
            timeout_ms=arguments.timeout_ms,
        )
    return answer_of(result)


def _print_result(answer: dict[str, Any], arguments: argparse.Namespace) -> int:
    payload = base64.b64decode(answer.pop("payload"))
    if arguments.out:
        Path(arguments.out).write_bytes(payload)
        print(f"wrote {len(payload)} bytes to {arguments.out}", file=sys.stderr)
    if arguments.json:
        print_json({**answer, "payload_bytes": len(payload)})
        return 0
    for item in answer["items"]:
        print(json.dumps(item, ensure_ascii=False))
    print(json.dumps(answer["output"], ensure_ascii=False, indent=2))
    return 0


async def run_publish(arguments: argparse.Namespace) -> int:
    request = {
        "op": "publish",
        "topic": arguments.topic,
        "type": arguments.type,
        "payload": arguments.payload,
        "metadata": dict(map(parse_pair, arguments.metadata)),
    }
    answer = await ask_once(arguments, request)
    if arguments.json:
        print_json(answer)
    else:
        print(f"delivered to {answer['delivered']} subscription(s)")
    return 0


async def run_events(arguments: argparse.Namespace) -> int:
    """0 after as many as were asked for; 1 where the host ended first."""
    seen = 0
    async for row in ask_host(arguments, {"op": "events", "pattern": arguments.pattern}):
        if arguments.json:
            print(json.dumps(row, ensure_ascii=False), flush=True)
        else:
            extra = " ".join(f"{k}={v}" for k, v in row["metadata"].items())
            what = f"{row['topic']}  {row['type']}  from {row['source']}"
            print(f"{what}  {row['payload_bytes']} B  {extra}", flush=True)
        seen += 1
        if seen == arguments.count:
            return 0
    print("loom: the host ended: no more events come", file=sys.stderr)
    return 1
