"""Watches from a thread how long a plugin's code keeps the event loop to itself."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from loom_sdk import driver

LOOK_S = 0.005
BEAT_S = 0.01
_DRIVER = driver.__file__


class Stalls:
    """Use it as `async with Stalls(folder) as stalls`.

    The loop has to beat; where it does not, its thread's stack tells whose code it is in. So what
    the machine or the host itself is slow at is nobody's fault.

    Args:
        folder: of the plugin's code.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = f"{folder}/"
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._done = threading.Event()
        self._beat = time.monotonic()
        self._watcher = threading.Thread(target=self._watch, name="loom-stalls", daemon=True)
        self.longest_s = 0.0
        """For which the plugin's code held the loop."""
        self.where = ""

    async def __aenter__(self) -> Stalls:
        self._tick()
        self._watcher.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._timer.cancel()
        self._done.set()
        self._watcher.join()

    def _tick(self) -> None:
        self._beat = time.monotonic()
        self._timer = self._loop.call_later(BEAT_S, self._tick)

    def _watch(self) -> None:
        since = 0.0
        while not self._done.wait(LOOK_S):
            beat = self._beat
            place = self._place(sys._current_frames().get(self._thread))
            if not place or beat != self._beat:
                since = 0.0
                continue
            now = time.monotonic()
            since = max(since or now, beat)  # it beat meanwhile: the loop went on
            if now - since > self.longest_s:
                self.longest_s, self.where = now - since, place

    def _place(self, frame: FrameType | None) -> str:
        """Where in the plugin's code, or in what that calls, the loop is; empty: it is not."""
        driven = False
        while frame is not None:
            name = frame.f_code.co_filename
            if name.startswith(self._folder):
                return f"{Path(name).name}:{frame.f_lineno}"
            driven = driven or name == _DRIVER
            frame = frame.f_back
        return "its code" if driven else ""
