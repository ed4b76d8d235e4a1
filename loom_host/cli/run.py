"""`loom run`: serve until interrupted."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from typing import Any

from loom_host.control import ControlServer
from loom_host.host import Host

from .common import settings_of


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("run", help="run the host until Ctrl-C")
    parser.add_argument("--mic", action="store_true", help="listen to the microphone and speak")
    parser.set_defaults(handler=run)


async def run(arguments: argparse.Namespace) -> int:
    overrides: dict[str, Any] = {}
    if arguments.mic:
        devices = {"source": "microphone", "sink": "speaker", "autostart": True}
        overrides = {"plugins": {"audio-io": {"config": devices}}}
    host = Host(settings_of(arguments.config, overrides))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(host)
        waiting = [asyncio.create_task(stop.wait())]
        if host.settings.host.control:
            control = ControlServer(host)
            await control.start()
            stack.push_async_callback(control.aclose)
            waiting.append(asyncio.create_task(control.stop_requested.wait()))
        _greet(host)
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        print("stopping", file=sys.stderr)
    return 0


def _greet(host: Host) -> None:
    states = ", ".join(f"{h.name} ({h.spec.tier}, {h.state})" for h in host.plugins.values())
    print(f"loom runs {len(host.plugins)} plugins: {states or 'none'}", file=sys.stderr)
