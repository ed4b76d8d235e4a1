"""This side of a bench: starts the process with the host, hears what it tells, asks it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from loom_host.control import ask
from loom_host.manifest import Manifest
from loom_sdk.errors import PluginCrashed, PluginLoadError

from .debug import QUIET
from .order import Order

LINE_LIMIT = 32 * 1024**2
STOP_S = 8.0
"""For the host to stop its plugin (`stop_grace_ms` is 3000) and itself, before it is killed."""
_LOUD = ("warning", "error", "critical")

Hear = Callable[[str, dict[str, Any]], None]
"""Gets what happens: its kind and what there is to tell."""


class Bench:
    """A host process with one plugin. Made by `start`."""

    def __init__(self, process: asyncio.subprocess.Process, seat: Path, hear: Hear) -> None:
        self._process, self._seat, self._hear = process, seat, hear
        self._ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._closing = False
        self.ports: list[int] = []
        """Where debuggers attach, the newest last."""
        readers = (self._read_told(), self._read_log())
        self._reading = [asyncio.create_task(reader) for reader in readers]
        self.ended = asyncio.create_task(self._end())
        """Done when the process is gone."""

    @classmethod
    async def start(
        cls, order: Order, manifest: Manifest, place: Path, seat: Path, hear: Hear
    ) -> Bench:
        """A bench that serves.

        Raises:
            PluginLoadError: the plugin did not start; nothing is left of the process.
        """
        await asyncio.to_thread(_write, order, manifest, place, seat)
        options = [QUIET] if order.debug else []
        process = await asyncio.create_subprocess_exec(
            sys.executable, *options, "-m", f"{__package__}.bench_process", str(seat),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, limit=LINE_LIMIT, start_new_session=True,
        )  # fmt: skip
        bench = cls(process, seat, hear)
        try:
            failure = await asyncio.shield(bench._ready)
        except BaseException:
            await bench.aclose()
            raise
        if failure:
            await bench.aclose()
            raise PluginLoadError(failure, plugin_id=manifest.id)
        return bench

    async def ask(self, request: dict[str, Any]) -> Any:
        """The host's one answer. Raises what it answers instead, or PluginCrashed."""
        if self.ended.done():
            raise PluginCrashed("the plugin's process has ended: save a file, or say `reload`")
        answers = ask(self._seat, request)
        async for answer in answers:
            await answers.aclose()  # type: ignore[attr-defined]  # an async generator
            return answer
        raise PluginCrashed("the plugin's process ended before it answered")

    async def aclose(self) -> None:
        """Ask to stop, wait, then kill; returns when nothing is left of it."""
        self._closing = True
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        done, _ = await asyncio.wait({self.ended}, timeout=STOP_S)
        if not done:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self.ended

    async def _end(self) -> None:
        code = await self._process.wait()
        # What it started holds the pipes open where the host was killed; nobody waits for that.
        await asyncio.wait(self._reading, timeout=1.0)
        for task in self._reading:
            task.cancel()
        if self._process.stdin is not None:
            self._process.stdin.close()
        how = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        if not self._ready.done():
            self._ready.set_result(f"the plugin's process ended before it served: {how}")
        elif not self._closing:
            self._hear("ended", {"message": f"the plugin's process ended: {how}"})

    def _read_told(self) -> Coroutine[Any, Any, None]:
        return _each_line(self._process.stdout, self._told)

    def _read_log(self) -> Coroutine[Any, Any, None]:
        return _each_line(self._process.stderr, self._logged)

    def _told(self, line: str) -> None:
        told: dict[str, Any] = json.loads(line)
        kind = told.pop("kind")
        if kind == "debug":
            self.ports.append(told["port"])
        elif kind not in ("ready", "failed"):
            self._hear(kind, told)
        elif not self._ready.done():
            self._ready.set_result(told["message"] if kind == "failed" else "")

    def _logged(self, line: str) -> None:
        """The plugin's lines, warnings of the host, and what native code prints."""
        try:
            row = json.loads(line)
            logger, level, message = row["logger"], row["level"], row["message"]
        except (ValueError, TypeError, KeyError):
            self._hear("log", {"level": "output", "message": line})
            return
        if "plugin" in row:
            fields = dict(row.get("extra", {}))
            fields |= fields.pop("attributes", {})
            if "stream" in fields:
                level = fields.pop("stream")
            self._hear("log", {"level": level, "message": message, "fields": fields})
        elif level in _LOUD and logger != "loom.audit":  # denials are told with their line
            self._hear("log", {"level": level, "message": f"{logger}: {message}"})


async def _each_line(stream: asyncio.StreamReader | None, take: Callable[[str], None]) -> None:
    assert stream is not None
    while line := await stream.readline():
        take(line.decode("utf-8", "replace").rstrip("\n"))


def _write(order: Order, manifest: Manifest, place: Path, seat: Path) -> None:
    seat.mkdir()
    wish = {
        "plugin": manifest.name,
        "tier": order.tier_of(manifest),
        "debug": order.debug,
        "settings": order.settings(manifest, place, seat),
    }
    (seat / "order.json").write_text(json.dumps(wish))
