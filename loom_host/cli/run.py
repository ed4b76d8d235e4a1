"""`loom run`: serve until interrupted."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable
from typing import Any

from loom_host.control import ControlServer, require_free
from loom_host.host import Host
from loom_host.lineup import only

from .common import settings_of
from .entry import EXIT_INTERRUPTED
from .offspring import end_children


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("run", help="run the host until Ctrl-C")
    parser.add_argument("--mic", action="store_true", help="listen to the microphone and speak")
    parser.add_argument(
        "--only",
        metavar="NAMES",
        help="safe mode: run no plugin but these, by comma; first-party: all that ship with it",
    )
    parser.set_defaults(handler=run)


async def run(arguments: argparse.Namespace) -> int:
    """0 where it was stopped while it served, 130 where that was before it was ready."""
    overrides: dict[str, Any] = {}
    if arguments.mic:
        devices = {"source": "microphone", "sink": "speaker", "autostart": True}
        overrides = {"plugins": {"audio-io": {"config": devices}}}
    settings = settings_of(arguments.config, overrides)
    if arguments.only is not None:
        settings = only(settings, [word.strip() for word in arguments.only.split(",")])
    return await serve(Host(settings), _greet)


async def serve(host: Host, greet: Callable[[Host], None], seconds: float | None = None) -> int:
    """Start a host with its control socket, `greet`, and stop it when it is told to.

    Args:
        seconds: it is stopped after so long, too.

    Returns:
        0 where it was stopped while it served, 130 where that was before it was ready.
    """
    own = host.settings.host
    if own.control:
        await require_free(own.runtime_dir)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if not await _started(host, stop):
        print("stopped before it was ready", file=sys.stderr)
        return EXIT_INTERRUPTED
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_exit(host)
        waiting = [asyncio.create_task(stop.wait())]
        if own.control:
            control = ControlServer(host)
            await control.start()
            stack.push_async_callback(control.aclose)
            waiting.append(asyncio.create_task(control.stop_requested.wait()))
        greet(host)
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        print("stopping", file=sys.stderr)
    return 0


async def _started(host: Host, stop: asyncio.Event) -> bool:
    """Whether the host was entered before `stop`; else it is closed and so is what it builds."""
    starting = asyncio.create_task(host.__aenter__())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            print("stopping", file=sys.stderr)
            starting.cancel()
            await asyncio.wait({starting})
        if starting.cancelled():
            await end_children()
            return False
        await starting  # raises why the host did not start
        return True
    finally:
        stopping.cancel()


def _greet(host: Host) -> None:
    running = [h for h in host.plugins.values() if h.state != "stopped"]
    states = ", ".join(f"{h.name} ({h.spec.tier}, {h.state})" for h in running)
    print(f"loom runs {len(running)} plugins: {states or 'none'}", file=sys.stderr)
    for handle in host.plugins.values():
        if handle.state == "stopped":
            print(f"not {handle.name}: {handle.reason}", file=sys.stderr)
