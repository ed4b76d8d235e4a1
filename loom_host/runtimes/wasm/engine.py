"""Runs guests: load a component, instantiate it, call it, stop it. Synchronous, no event loop.

    Engine      one wasmtime engine with its ticker, shared by the guests of a process
    Loaded      a component whose imports and exports were checked
    Guest       one store: its state lives until a trap or `close`

Nothing ambient reaches a guest: WASI is linked with no folder, no variable, no argument, no
socket, and the imports of `plugin.wit` go to the port that the guest was made with.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wasmtime import Config, Store, WasiConfig, WasmtimeError
from wasmtime import Engine as WasmtimeEngine
from wasmtime.component import Component, Linker

from loom_sdk.errors import ErrorInfo, InvalidArguments, PluginLoadError, decode

from . import marshal, memory, pollable, traps
from .cache import CodeCache
from .codecs import Failed, Ok, TooLarge
from .contract import EXPORTS, HOST, PLUGIN, Loaded
from .host_imports import HostImports
from .ticket import Stopped, Ticket, TicketedPort

TICK_S = 0.01
"""Length of an epoch: how late a deadline may be noticed. Stopping does not wait for it."""

_SETTINGS = "epochs"
_LIFT_LIMIT = 64 * 1024**2


class Ticker:
    """Moves the engine's epoch every 10 ms while a guest runs; one thread, started at need."""

    def __init__(self, move: Callable[[], None]) -> None:
        self._move = move
        self._running = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> None:
        with self._lock:
            self._running += 1
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="loom-wasm-ticker", daemon=True
                )
                self._thread.start()
        self._wake.set()

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._running -= 1
            if not self._running:
                self._wake.clear()

    def _work(self) -> None:
        while not self._ended.wait(TICK_S):
            self._move()
            self._wake.wait()

    def close(self) -> None:
        self._ended.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()


class Engine:
    """One wasmtime engine: compiled code is shared, an epoch reaches every guest's check."""

    def __init__(self, cache_dir: Path) -> None:
        config = Config()
        config.epoch_interruption = True
        self.wasmtime = WasmtimeEngine(config)
        self.ticker = Ticker(self.wasmtime.increment_epoch)
        self.cache = CodeCache(cache_dir, _SETTINGS)
        self.running = threading.local()
        self._loading = threading.Lock()
        self._plain: tuple[Linker, Component] | None = None

    def load(self, path: Path) -> Loaded:
        """Load a component, from the cache of compiled code where it can.

        Raises:
            PluginLoadError: unreadable, no component, unknown imports or another contract.
        """
        try:
            wasm = path.read_bytes()
        except OSError as error:
            raise PluginLoadError(f"cannot read {path}: {error.strerror}") from error
        with self._loading:
            try:
                component = self.cache.component(self.wasmtime, wasm)
            except PluginLoadError as error:
                raise PluginLoadError(f"{path.name}: {error.message}") from error
            if self._plain is None:
                linker = Linker(self.wasmtime)
                linker.add_wasip2()
                adapter = self.cache.component(self.wasmtime, pollable.adapter_wasm())
                self._plain = linker, adapter
        return Loaded(component, self.wasmtime, path.name)

    def linker(self, loaded: Loaded) -> Linker:
        """Imports of one component. Which guest calls is known by the thread."""
        linker = Linker(self.wasmtime)
        linker.add_wasip2()
        pollable.shadow(linker, lambda: self.running.guest.wait)
        with linker.root() as root, root.add_instance(HOST) as interface:
            for name, signature in loaded.imports.items():
                marshal.serve(interface, name, signature, self._import(name), _LIFT_LIMIT)
        return linker

    def _import(self, name: str) -> Callable[..., Any]:
        return lambda *arguments: self.running.guest.host_import(name, arguments)

    def waiter(self, store: Store) -> Any:
        assert self._plain is not None, "load a component first"
        return pollable.instantiate(self._plain[0], store, self._plain[1])

    def stop(self, ticket: Ticket, reason: str) -> None:
        """End what runs under a ticket, from any thread, within about a millisecond."""
        ticket.stop(reason)
        self.wasmtime.increment_epoch()

    def close(self) -> None:
        self.ticker.close()


class Guest:
    """One instance in its own store. Used by one thread at a time.

    Raises from the constructor and from `call`:
        DeadlineExceeded, QuotaExceeded, PluginCrashed: after any of these by a trap `dead` is
            true and the instance must be replaced.
    """

    def __init__(
        self,
        engine: Engine,
        loaded: Loaded,
        linker: Linker,
        port: TicketedPort,
        limits: traps.Limits,
    ) -> None:
        self._engine, self._loaded, self._limits, self._port = engine, loaded, limits, port
        self._host = HostImports(port, limits.plugin_id, limits.output_bytes)
        self.dead = False
        self._functions: dict[str, Any] = {}
        self._linker, self._addresses = linker, frozenset[int]()
        self._store = Store(engine.wasmtime)
        self._store.set_limits(memory_size=limits.memory)
        self._store.set_wasi(self._wasi())
        self._on_epoch = marshal.on_epoch(self._store, lambda: port.ticket.check())

    def _wasi(self) -> WasiConfig:
        wasi = WasiConfig()
        wasi.stdout_custom = self._host.printed("stdout")
        wasi.stderr_custom = self._host.printed("stderr")
        return wasi

    def open(self, ticket: Ticket) -> None:
        """Instantiate; start code of the component runs."""

        def create() -> Any:
            self.wait = self._engine.waiter(self._store)
            return self._linker.instantiate(self._store, self._loaded.component)

        instance, self._addresses = self._guarded(ticket, lambda: memory.watching(create))
        interface = instance.get_export_index(self._store, PLUGIN)
        for name in EXPORTS:
            index = instance.get_export_index(self._store, name, interface)
            self._functions[name] = instance.get_func(self._store, index)

    def call(self, name: str, arguments: tuple[Any, ...], ticket: Ticket) -> Any:
        """The good side of an export's result; its `action-error` is raised as what it is."""
        signature, limit = self._loaded.exports[name], self._limits.output_bytes
        answer = self._guarded(
            ticket,
            lambda: signature.call(self._functions[name], self._store, arguments, limit),
        )
        if isinstance(answer, Failed):
            info = ErrorInfo(*(answer.value[name] for name in ("code", "message", "details")))
            self._log_traceback(info, ticket)
            raise decode(info)
        return answer.value if isinstance(answer, Ok) else answer

    def _log_traceback(self, info: ErrorInfo, ticket: Ticket) -> None:
        with contextlib.suppress(ValueError):
            details = json.loads(info.details or "{}")
            if isinstance(details, dict) and "traceback" in details:
                text = {"traceback": str(details["traceback"])}
                self._port.log("error", info.message, text, ticket.call_id)

    def _guarded(self, ticket: Ticket, run: Callable[[], Any]) -> Any:
        self._port.ticket = ticket
        self._engine.running.guest = self
        ticket.begin()
        self._store.set_epoch_deadline(1)
        try:
            if ticket.check():
                raise traps.stopped(ticket, self._limits)
            with self._engine.ticker:
                return run()
        except TooLarge as error:
            raise traps.too_large(error.size, self._limits) from error
        except WasmtimeError as error:
            self.dead = True
            raise traps.translated(error, ticket, self._limits, self.memory_bytes()) from error
        except (TypeError, ValueError) as error:
            raise InvalidArguments(
                f"{self._limits.plugin_id}: a value does not fit plugin.wit: {error}"
            ) from error
        finally:
            self._engine.running.guest = None

    def host_import(self, name: str, arguments: tuple[Any, ...]) -> Any:
        ticket = self._port.ticket
        if ticket.check():
            raise WasmtimeError(f"loom: stopped: {ticket.reason}")
        try:
            return self._host.answer(name, arguments)
        except Stopped as error:
            raise WasmtimeError(f"loom: stopped: {ticket.check() or error}") from error

    def memory_bytes(self) -> int:
        """Linear memory now; 0 where the system does not tell."""
        return 0 if self._store is None else memory.total(self._addresses)

    def close(self) -> None:
        """Free the store. The guest's code does not run again."""
        self.dead = True
        self._functions.clear()
        self._addresses = frozenset()
        self._store.close()
