"""`loom events log`, `loom events record`, `loom events replay`; `loom events` itself is in calls.

They are commands of two words, `events record`, beside `events`, whose first word may be any topic.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Coroutine, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from loom_host.replay import Difference, Outcome, replay, replay_settings
from loom_host.storage import EventLog, RocksStore
from loom_host.storage.opening import FOLDER
from loom_host.storage.record import Record, event_line, first_line, plain_event, read_record
from loom_host.telemetry.logs import visible
from loom_sdk import Event
from loom_sdk.errors import BusError, ConfigError, PluginUnhealthy, StorageError
from loom_sdk.topics import check_pattern

from .common import add_json, ask_host, print_json, settings_of, whole_number

COMMANDS = ("events log", "events record", "events replay")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def add_parser(subparsers: Any) -> None:
    log = subparsers.add_parser(COMMANDS[0])
    log.add_argument("--topic", type=pattern, default=">", metavar="PATTERN")
    for name, text in (("--since", "from then on"), ("--until", "before then")):
        help = f"{text}: 90s, 10m, 2h or 7d ago, or a time such as 2026-11-23T20:00"
        log.add_argument(name, type=moment_ms, default=0, metavar="WHEN", help=help)
    log.add_argument("--count", type=whole_number, default=0, help="at most so many; 0: all")
    log.set_defaults(handler=run_log)
    record = subparsers.add_parser(COMMANDS[1])
    record.add_argument("file", type=Path, help="a new file; see docs/STORAGE.md for what it holds")
    record.add_argument("--topics", type=pattern, nargs="+", default=[">"], metavar="PATTERN")
    record.add_argument("--count", type=whole_number, default=0, help="stop after so many events")
    record.set_defaults(handler=run_record)
    again = subparsers.add_parser(COMMANDS[2])
    again.add_argument("file", type=Path)
    again.add_argument("--through", action="append", default=[], metavar="PLUGIN")
    again.add_argument(
        "--with", action="append", default=[], dest="helpers", metavar="PLUGIN",
        help="runs beside it, for what it invokes",
    )  # fmt: skip
    again.add_argument("--fast", action="store_true", help="without the recorded pauses")
    again.add_argument("--ignore", action="append", default=[], metavar="KEY", help="of metadata")
    again.add_argument(
        "--settle-ms", type=whole_number, default=500, help="it is over after so long a silence"
    )
    again.set_defaults(handler=run_replay)
    for parser in (log, record, again):
        add_json(parser)


def pattern(text: str) -> str:
    """For argparse: a pattern of topics."""
    try:
        check_pattern(text)
    except BusError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def moment_ms(text: str) -> int:
    """For argparse: `10m` ago or a time of the local zone as Unix time in milliseconds."""
    if ago := re.fullmatch(r"([0-9]{1,9})([smhd])", text):
        return int((time.time() - int(ago[1]) * SECONDS[ago[2]]) * 1000)
    try:
        return max(0, int(datetime.fromisoformat(text).timestamp() * 1000))
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(
            f"{text!r}: write 90s, 10m, 2h or 7d, or a time such as 2026-11-23T20:00"
        ) from error


async def run_log(arguments: argparse.Namespace) -> int:
    """Events of the log, of a running or a stopped host, in the order in which they were logged."""
    seen = 0
    async with contextlib.aclosing(_logged(arguments)) as rows:
        async for row in rows:
            if arguments.json:
                print(json.dumps(row, ensure_ascii=False), flush=True)
            else:
                print(_line(row["logged_ms"], row["event"]), flush=True)
            seen += 1
            if seen == arguments.count:
                break
    return 0


async def _logged(arguments: argparse.Namespace) -> AsyncGenerator[dict[str, Any], None]:
    chosen = {"since_ms": arguments.since, "until_ms": arguments.until}
    request = {"op": "storage.log", "pattern": arguments.topic, **chosen}
    try:
        async for row in ask_host(arguments, request):
            yield row
    except PluginUnhealthy:
        folder = settings_of(arguments.config).host.data_dir / FOLDER
        if not folder.is_dir():
            raise StorageError(f"no host has stored anything at {folder} yet") from None
        store = RocksStore(folder)
        try:
            for entry in EventLog(store).read(arguments.topic, **chosen):
                position = base64.b16encode(entry.position).decode()
                event = plain_event(entry.event)
                yield {"logged_ms": entry.time_ms, "position": position, "event": event}
        finally:
            store.close()


def _line(at_ms: float, event: dict[str, Any]) -> str:
    when = datetime.fromtimestamp(at_ms / 1000).isoformat(sep=" ", timespec="milliseconds")
    extra = " ".join(f"{k}={v}" for k, v in event.get("metadata", {}).items())
    size = len(base64.b64decode(event["payload"]))
    what = f"{event.get('topic', '')}  {event['type']}  from {event.get('source', '')}"
    return visible(f"{when}  {what}  {size} B  {extra}")


def run_record(arguments: argparse.Namespace) -> int:
    """0 when it was ended by Ctrl-C or has its count; 1 where the host ended before the count."""
    path: Path = arguments.file
    try:
        with open(path, "xb", opener=_private) as file:
            asyncio.run(_until_interrupted(_record(arguments, file)))
    except PluginUnhealthy:
        path.unlink()  # nothing was begun: no host runs
        raise
    count = max(path.read_bytes().count(b"\n") - 1, 0)
    if arguments.json:
        print_json({"file": str(path), "events": count})
    else:
        print(f"recorded {count} events to {path}")
    return int(count < arguments.count)


def _private(path: str, flags: int) -> int:
    """It holds what was said."""
    return os.open(path, flags, 0o600)


async def _until_interrupted(work: Coroutine[Any, Any, None]) -> None:
    """Ctrl-C ends the work, and that is no failure."""
    task, loop = asyncio.create_task(work), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _record(arguments: argparse.Namespace, file: IO[bytes]) -> None:
    seen = 0
    request = {"op": "storage.record", "topics": arguments.topics}
    async for row in ask_host(arguments, request):
        if "started_ms" in row:
            file.write(first_line(row["started_ms"], arguments.topics).encode())
            print(f"recording to {arguments.file} until Ctrl-C", file=sys.stderr, flush=True)
        elif "lost" in row:
            print(f"loom: {row['lost']} events came too fast to be recorded", file=sys.stderr)
        else:
            file.write(event_line(row["after_ms"], row["event"]).encode())
            seen += 1
        file.flush()
        if seen and seen == arguments.count:
            return
    print("loom: the host ended: no more events come", file=sys.stderr)


async def run_replay(arguments: argparse.Namespace) -> int:
    """0 where all came as it was recorded, 1 where something differs."""
    record = _read(arguments.file)
    settings = settings_of(arguments.config)
    for name in (*arguments.through, *arguments.helpers):
        if name not in settings.plugins:
            raise ConfigError(f"[plugins.{name}]: no plugin of the settings is called so")
    runs = [*arguments.through, *arguments.helpers] if arguments.through else []
    with tempfile.TemporaryDirectory(prefix="loom-replay-") as folder:
        outcome = await replay(
            replay_settings(settings, runs, Path(folder)),
            record,
            arguments.through,
            helpers=arguments.helpers,
            fast=arguments.fast,
            settle_s=arguments.settle_ms / 1000,
            ignore=arguments.ignore,
        )
    _tell(outcome, arguments)
    return int(bool(outcome.differences))


def _read(path: Path) -> Record:
    with path.open("rb") as file:
        record = read_record(file, str(path))
    if record.cut_off:
        print(f"loom: the end of {path} is missing: its last line is left out", file=sys.stderr)
    return record


def _tell(outcome: Outcome, arguments: argparse.Namespace) -> None:
    if arguments.json:
        print_json(
            {
                "through": list(outcome.through),
                "given": outcome.given,
                "compared": outcome.compared,
                "differences": [_plain(item) for item in outcome.differences],
            }
        )
        return
    for item in outcome.differences:
        for line in _lines(item):
            print(visible(line))
    print(
        f"{outcome.given} events through {', '.join(outcome.through)}: of {outcome.compared} "
        f"recorded events {len(outcome.differences)} differ"
    )


def _plain(item: Difference) -> dict[str, Any]:
    events = {"recorded": item.recorded, "replayed": item.replayed}
    plain = {name: plain_event(event) for name, event in events.items() if event is not None}
    head = {"kind": item.kind, "topic": item.topic, "number": item.number}
    return {**head, "fields": list(item.fields), **plain}


def _lines(item: Difference) -> Iterator[str]:
    """`-` what was recorded, `+` what came."""
    what = f": {', '.join(item.fields)}" if item.fields else ""
    yield f"{item.topic} #{item.number} {item.kind}{what}"
    for sign, event in (("-", item.recorded), ("+", item.replayed)):
        if event is not None:
            yield f"  {sign} {_content(event, item.fields)}"


def _content(event: Event, fields: tuple[str, ...]) -> str:
    """The fields that differ, or type, metadata and size where all of it does."""
    if not fields:
        return f"{event.type} {dict(event.metadata)} {len(event.payload)} B"
    return " ".join(f"{name}={_short(getattr(event, name))}" for name in fields)


def _short(value: Any) -> str:
    text = repr(dict(value) if hasattr(value, "items") else value)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)"
