"""The process of a bench: a host with one plugin, which tells what happens as JSON lines.

`python -m loom_host.workbench.bench_process FOLDER`, where `order.json` is. Requests come over the
control socket of every host; on stdout are events and denials, on stderr the host's log.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from loom_host.bus.tap import Tap
from loom_host.config import load_settings
from loom_host.control import ControlServer, event_row
from loom_host.host import Host
from loom_host.tiers import RUNTIMES
from loom_sdk import Event
from loom_sdk.child import end_with_host
from loom_sdk.errors import LoomError, encode

from .debug import DebuggedRuntime, listen_here
from .told import ToldRuntime

LOOK_EVERY_S = 0.1
"""For denials, of which the host keeps a list."""


class Teller:
    """Writes what happens to the process that holds the other end of stdout.

    A plugin in this process may print: what it does goes to stderr, apart from these lines.
    """

    def __init__(self) -> None:
        sys.stdout.flush()
        self._out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
        os.dup2(2, 1)

    def tell(self, kind: str, **data: Any) -> None:
        self._out.write(json.dumps({"kind": kind, **data}, ensure_ascii=False, default=str) + "\n")


def main() -> int:
    seat = Path(sys.argv[1])
    order = json.loads((seat / "order.json").read_text())
    return asyncio.run(_until_told(order, Teller()))


async def _until_told(order: Mapping[str, Any], teller: Teller) -> int:
    """Serve until SIGTERM, a `stop` over the control socket, or the death of who started it."""
    stop = asyncio.Event()

    async def end() -> None:
        stop.set()

    end_with_host(end)
    working = asyncio.create_task(_serve(order, teller, stop))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    working.cancel()
    stopping.cancel()
    await asyncio.gather(working, return_exceptions=True)
    return 1 if working.cancelled() else working.result()


async def _serve(order: Mapping[str, Any], teller: Teller, stop: asyncio.Event) -> int:
    tier, name = order["tier"], order["plugin"]
    try:
        host = _host(order, teller)
        with_tap = Tap(host.bus, [">"], "workbench", lambda event: _event(teller, event))
        async with host:
            handle = host.plugins[name]
            if not handle.serves:
                teller.tell("failed", message=handle.reason or handle.explain())
                return 1
            control = ControlServer(host)
            await control.start()
            try:
                teller.tell("ready", tier=tier, state=handle.state)
                await _watch(host, teller, control.stop_requested)
            finally:
                await control.aclose()
                with_tap.close()
    except LoomError as error:
        teller.tell("failed", message=encode(error).message)
        return 1
    return 0


def _host(order: Mapping[str, Any], teller: Teller) -> Host:
    settings, tier = load_settings(None, order["settings"]), order["tier"]
    runtime: Any = RUNTIMES[tier](settings)
    if order["debug"]:
        if tier == "native":
            teller.tell("debug", port=listen_here())
        runtime = DebuggedRuntime(runtime, lambda port: teller.tell("debug", port=port))
    if tier == "native":
        runtime = ToldRuntime(runtime, _trace)
    return Host(settings, runtimes={tier: runtime})


def _trace(error: BaseException) -> None:
    """Why it did not start, from the plugin's own code on."""
    trace = error.__traceback__
    while trace is not None and "loom_host" in trace.tb_frame.f_code.co_filename:
        trace = trace.tb_next
    print("".join(traceback.format_exception(type(error), error, trace)), file=sys.stderr, end="")


def _event(teller: Teller, event: Event) -> None:
    teller.tell("event", **event_row(event))


async def _watch(host: Host, teller: Teller, stop: asyncio.Event) -> None:
    """Tell of each denial once, until `stop`."""
    seen, told = 0, set[tuple[str, str]]()
    while not stop.is_set():
        count = sum(host.audit.denied.values())
        for refusal in list(host.audit.refusals)[-(count - seen) :] if count > seen else ():
            if (refusal.kind, refusal.value) not in told:
                told.add((refusal.kind, refusal.value))
                teller.tell(
                    "denied", permission=f"{refusal.kind}:{refusal.value}", line=refusal.line
                )
        seen = count
        try:
            await asyncio.wait_for(stop.wait(), LOOK_EVERY_S)
        except TimeoutError:
            continue


def _end() -> NoReturn:
    code = main()
    sys.stderr.flush()
    os._exit(code)  # a thread of native code that blocks does not keep the process


if __name__ == "__main__":
    _end()
