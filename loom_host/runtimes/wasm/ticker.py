"""Moves an engine's epoch while guests run, so that their deadlines are noticed."""

from __future__ import annotations

import threading
from collections.abc import Callable

TICK_S = 0.01
"""Length of an epoch: how late a deadline may be noticed. Stopping does not wait for it."""


class Ticker:
    """One thread, started at need, that sleeps while no guest runs.

    Entering and leaving take no lock, since every call does both: adding to a set is atomic, and
    the thread looks at the set once more after it has said that it sleeps.
    """

    def __init__(self, move: Callable[[], None]) -> None:
        self._move = move
        self._running: set[object] = set()
        self._asleep = True
        self._starting = threading.Lock()
        self._wake, self._ended = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def enter(self, guest: object) -> None:
        """A guest begins to run; it is not running yet."""
        self._running.add(guest)
        if self._asleep:
            self._rouse()

    def leave(self, guest: object) -> None:
        self._running.discard(guest)

    def _rouse(self) -> None:
        self._wake.set()
        with self._starting:
            if self._thread is None and not self._ended.is_set():
                self._thread = threading.Thread(
                    target=self._work, name="loom-wasm-ticker", daemon=True
                )
                self._thread.start()

    def _work(self) -> None:
        while not self._ended.is_set():
            if not self._running:
                self._wake.clear()
                self._asleep = True
                if not self._running and not self._ended.is_set():
                    self._wake.wait()
            self._asleep = False
            if not self._ended.wait(TICK_S):
                self._move()

    def close(self) -> None:
        self._ended.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
