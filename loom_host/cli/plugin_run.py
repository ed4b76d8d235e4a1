"""`loom plugin run`: a plugin alone in a host, reloaded as its author saves."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from loom_host.manifest import TIERS
from loom_host.workbench import debug
from loom_host.workbench.order import Order
from loom_host.workbench.workbench import Workbench, opened
from loom_sdk.errors import LoomError, encode

from .calls import parse_arguments, parse_pair
from .entry import EXIT_INTERRUPTED
from .logs import LEVELS
from .offspring import end_children
from .plugin_console import INTERRUPTED, Console
from .plugin_prompt import Commands, from_pipe, from_terminal

DEBUG_PORT = 5678
"""That of debugpy's own documentation, so that editors' launch files fit."""
QUIET_S, QUIET_MOST_S = 0.5, 5.0
"""At the end of a pipe: so long nothing is told before all that came of its commands was told."""


def add_parser(verbs: Any) -> None:
    run = verbs.add_parser("run", help="the plugin alone in a host, reloaded as you save")
    run.add_argument("folder", nargs="?", default=".", help="with plugin.toml; default: here")
    run.add_argument("--tier", choices=TIERS, help="default: the manifest's")
    run.add_argument(
        "--config", dest="own", action="append", default=[], metavar="KEY=VALUE",
        help="a setting of the plugin; may be said again",
    )  # fmt: skip
    run.add_argument(
        "--folder", dest="folders", action="append", default=[], metavar="NAME=PATH",
        help="where a folder is that it asks for; default: a temporary one",
    )  # fmt: skip
    run.add_argument("--allow-network", action="store_true", help="grant that too")
    run.add_argument("--no-reload", action="store_true", help="only on the command `reload`")
    run.add_argument(
        "--debug", nargs="?", type=_port, const=DEBUG_PORT, metavar="PORT",
        help=f"let a debugger attach, on loopback; default port {DEBUG_PORT}; 0: any. Python only",
    )  # fmt: skip
    run.add_argument("--log-level", choices=LEVELS, default="info", help="default: info")
    run.add_argument("--json", action="store_true", help="print all that happens as JSON lines")
    run.set_defaults(handler=run_plugin)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r}: a port from 0 to 65535, as --debug=5680")
    return int(text)


async def run_plugin(arguments: argparse.Namespace) -> int:
    """0; 1 where it did not start, or a command from a pipe failed; 130 stopped before it ran."""
    console, stop = Console(as_json=arguments.json), _Stop()
    try:
        async with opened(_order(arguments), console.show) as bench:
            return await stop.guard(_session(bench, console, arguments, stop))
    finally:
        await end_children()  # a compiler, whose thread would be waited for


def _order(arguments: argparse.Namespace) -> Order:
    return Order(
        Path(arguments.folder).absolute(),
        tier=arguments.tier or "",
        config=parse_arguments(arguments.own),
        network=arguments.allow_network,
        folders=dict(map(parse_pair, arguments.folders)),
        log_level=arguments.log_level,
        debug=arguments.debug is not None,
    )


class _Stop:
    """Ctrl-C and SIGTERM: they end the command that runs at a terminal, else the session."""

    def __init__(self) -> None:
        self.command: asyncio.Task[None] | None = None
        self.served = False
        self._session: asyncio.Task[int] | None = None

    async def guard(self, session: Any) -> int:
        self._session = asyncio.create_task(session)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        loop.add_signal_handler(signal.SIGTERM, self._session.cancel)
        await asyncio.wait({self._session})
        if self._session.cancelled():
            return 0 if self.served else EXIT_INTERRUPTED
        return self._session.result()

    def _interrupt(self) -> None:
        task = self.command or self._session
        if task is not None:
            task.cancel()


async def _session(
    bench: Workbench, console: Console, arguments: argparse.Namespace, stop: _Stop
) -> int:
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if arguments.debug is not None:
        await _open_doorway(bench, console, arguments.debug)
    try:
        await bench.start()
    except LoomError as error:
        if arguments.no_reload or not terminal or not bench.order.folder.is_dir():
            raise
        console.show("kept", {"message": encode(error).message, "changed": []})
    commands = Commands(bench, console)
    if bench.manifest is not None:
        await commands.run("grants")
    stop.served = True
    following = asyncio.create_task(_nothing() if arguments.no_reload else bench.follow())
    try:
        lines = from_terminal(commands) if terminal else from_pipe()
        return await _obey(lines, commands, console, stop if terminal else None)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _nothing() -> None: ...


async def _open_doorway(bench: Workbench, console: Console, port: int) -> None:
    manifest = bench.order.manifest()
    debug.check(manifest, bench.order.tier_of(manifest))
    await bench.doorway.open(port)
    port = bench.doorway.port
    message = f"a debugger may attach at {debug.LOOPBACK}:{port} (DAP, as of debugpy)"
    console.show("debugger", {"message": message, "host": debug.LOOPBACK, "port": port})


async def _obey(
    lines: AsyncIterator[str], commands: Commands, console: Console, stop: _Stop | None
) -> int:
    """Each line in its turn, until `quit` or the last; 1 where one of a pipe failed."""
    failed = False
    async with contextlib.aclosing(lines):  # type: ignore[type-var]  # an async generator
        async for line in lines:
            if line.strip() in ("quit", "exit"):
                break
            if line.strip():
                failed |= not await _did(line, commands, console, stop)
    if stop is None:
        await _quiet(console)
    return int(failed and stop is None)


async def _did(line: str, commands: Commands, console: Console, stop: _Stop | None) -> bool:
    task = asyncio.create_task(commands.run(line))
    if stop is not None:
        stop.command = task
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        raise
    finally:
        if stop is not None:
            stop.command = None
    if task.cancelled():
        console.show("error", {"message": "interrupted", "code": INTERRUPTED})
        return False
    error = task.exception()
    if error is None:
        return True
    if not isinstance(error, LoomError | OSError):
        raise error
    told = encode(error)
    console.show("error", {"message": told.message, "code": getattr(error, "code", told.code)})
    return False


async def _quiet(console: Console) -> None:
    began = time.monotonic()
    while True:
        left = min(console.last + QUIET_S, began + QUIET_MOST_S) - time.monotonic()
        if left <= 0:
            return
        await asyncio.sleep(left)
