"""Runs guests: load a component, instantiate it, call it, stop it. Synchronous, no event loop.

    Engine      one wasmtime engine with its ticker, shared by the guests of a process
    Loaded      a component whose imports and exports were checked
    Guest       one store: its state lives until a trap or `close`

Nothing ambient reaches a guest: WASI is linked with no folder but those granted, no variable, no
argument, no socket, and the imports of `plugin.wit` go to the port that the guest was made with.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasmtime import Config, Store, WasiConfig, WasmtimeError
from wasmtime import Engine as WasmtimeEngine
from wasmtime.component import Component, Linker

from loom_sdk.errors import ErrorInfo, InvalidArguments, PluginLoadError, decode

from . import epochs, memory, pollable, traps
from .border import Call
from .component_types import Function
from .contract import HOST, PLUGIN, Loaded, check_preamble
from .foreign import ForeignGuest
from .fuel import metered
from .host_imports import HostImports
from .preopens import Preopen
from .ticker import Ticker
from .ticket import Stopped, Ticket, TicketedPort
from .values import Failed, Ok, TooLarge

if TYPE_CHECKING:
    from .cache import CodeCache

SETTINGS = ("epochs", "epochs fuel")
"""Names what compiled code depends on; how it was compiled is no part of it. The
second where fuel is metered."""
_LIFT_LIMIT = 64 * 1024**2


class Engine:
    """One wasmtime engine: compiled code is shared, an epoch reaches every guest's check.

    Args:
        cache_dir: of compiled code; None where code comes compiled, as in a worker process.
        parallel: compile in as many threads as there are processors.
        metered: count fuel.
    """

    def __init__(
        self, cache_dir: Path | None = None, parallel: bool = True, metered: bool = False
    ) -> None:
        config = Config()
        config.epoch_interruption = True
        config.consume_fuel = metered
        config.parallel_compilation = parallel
        self.wasmtime = WasmtimeEngine(config)
        self.ticker = Ticker(self.wasmtime.increment_epoch)
        self._cache_dir, self._metered = cache_dir, metered
        self.running = threading.local()
        self._loading = threading.Lock()
        self._plain: tuple[Linker, Component] | None = None

    def load(self, path: Path, direct: bool = True) -> Loaded:
        """Load a component, from the cache of compiled code where it can.

        Args:
            direct: as for `Loaded`.

        Raises:
            PluginLoadError: unreadable, no component, unknown imports or another contract.
        """
        from .cache import mapped  # a worker process does without

        with self._loading:
            try:
                with mapped(path) as wasm:
                    check_preamble(wasm[:8], path.name)
                    component = self._cache.component(self.wasmtime, wasm)
            except OSError as error:
                raise PluginLoadError(f"cannot read {path}: {error.strerror}") from error
            except PluginLoadError as error:
                raise PluginLoadError(_named(path, error)) from error
            if self._plain is None:
                self._link_plain(self._cache.component(self.wasmtime, pollable.adapter_wasm()))
        return Loaded(component, self.wasmtime, path.name, direct)

    @cached_property
    def _cache(self) -> CodeCache:
        from .cache import CodeCache  # a worker process does without

        assert self._cache_dir is not None, "an engine without a cache loads compiled code only"
        return CodeCache(self._cache_dir, SETTINGS[self._metered])

    def prepare(self) -> None:
        """Make what every guest needs, without a cache; takes 10 ms. A fork inherits it."""
        self._link_plain(Component(self.wasmtime, pollable.adapter_wasm()))

    def _link_plain(self, adapter: Component) -> None:
        linker = Linker(self.wasmtime)
        linker.add_wasip2()
        self._plain = linker, adapter

    def linker(self, loaded: Loaded) -> Linker:
        """Imports of one component, for all its guests. Which one calls is known by the thread."""
        if loaded.linker is None:
            loaded.linker = self._link(loaded)
        return loaded.linker

    def _link(self, loaded: Loaded) -> Linker:
        linker = Linker(self.wasmtime)
        linker.add_wasip2()
        pollable.shadow(linker, lambda: self.running.guest.wait)
        with linker.root() as root, root.add_instance(HOST) as interface:
            for name, kind in loaded.imports.items():
                loaded.serve(interface, name, kind, self._import(name), _LIFT_LIMIT)
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


def _named(path: Path, error: PluginLoadError) -> str:
    return error.message if path.name in error.message else f"{path.name}: {error.message}"


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
        preopens: tuple[Preopen, ...] = (),
    ) -> None:
        self._engine, self._loaded, self._limits, self._port = engine, loaded, limits, port
        self._host = HostImports(port, limits.plugin_id, limits.output_bytes)
        self.dead = False
        self._functions: dict[Any, Call] = {}
        foreign = loaded.foreign
        self._foreign = ForeignGuest(foreign, self._call_foreign) if foreign else None
        self._linker, self._addresses = linker, frozenset[int]()
        self._store = Store(engine.wasmtime)
        self._store.set_limits(limits.memory, limits.tables, **traps.STORE_LIMITS)
        self._store.set_wasi(self._wasi(preopens))
        self._on_epoch = epochs.on_epoch(self._store, lambda: port.ticket.check())
        self._store.set_epoch_deadline(1)  # each check moves it on

    def _wasi(self, preopens: tuple[Preopen, ...]) -> WasiConfig:
        wasi = WasiConfig()
        for path, inside, writable in preopens:
            wasi.preopen_dir(path, inside, writable)
        wasi.stdout_custom = self._host.printed("stdout")
        wasi.stderr_custom = self._host.printed("stderr")
        return wasi

    def open(self, ticket: Ticket) -> None:
        """Instantiate; start code of the component runs."""

        def create() -> Any:
            self.wait = self._engine.waiter(self._store)
            return self._linker.instantiate(self._store, self._loaded.component)

        instance, self._addresses = self._guarded(ticket, memory.watching, create)
        if self._loaded.foreign is not None:
            for path, kind in self._loaded.foreign.functions.items():
                self._functions[path] = self._bound(instance, path, kind)
        for name, kind in self._loaded.exports.items():
            self._functions[name] = self._bound(instance, (PLUGIN, name), kind)

    def _bound(self, instance: Any, path: tuple[str, ...], kind: Function) -> Call:
        index = None
        for name in path:
            index = instance.get_export_index(self._store, name, index)
        function = instance.get_func(self._store, index)
        bound: Call = self._loaded.bind(function, self._store, kind)
        return bound

    def call(self, name: str, arguments: tuple[Any, ...], ticket: Ticket) -> Any:
        """The good side of an export's result; its `action-error` is raised as what it is."""
        if self._foreign is not None:
            self._port.ticket = ticket
            return self._foreign.call(name, arguments)
        answer = self._call(name, arguments, ticket)
        if isinstance(answer, Failed):
            info = ErrorInfo(*(answer.value[name] for name in ("code", "message", "details")))
            self._log_traceback(info, ticket)
            raise decode(info)
        return answer.value if isinstance(answer, Ok) else answer

    def _call(self, key: Any, arguments: tuple[Any, ...], ticket: Ticket) -> Any:
        limit = self._limits.output_bytes
        return self._guarded(ticket, self._functions[key], arguments, limit)

    def _call_foreign(self, path: tuple[str, ...], arguments: tuple[Any, ...]) -> Any:
        return self._call(path, arguments, self._port.ticket)

    def _log_traceback(self, info: ErrorInfo, ticket: Ticket) -> None:
        with contextlib.suppress(ValueError):
            details = json.loads(info.details or "{}")
            if isinstance(details, dict) and "traceback" in details:
                text = {"traceback": str(details["traceback"])}
                self._port.log("error", info.message, text, ticket.call_id)

    def _guarded(self, ticket: Ticket, run: Callable[..., Any], *given: Any) -> Any:
        self._port.ticket = ticket
        self._engine.running.guest = self
        ticket.begin()
        try:
            if ticket.check():
                raise traps.stopped(ticket, self._limits)
            self._engine.ticker.enter(self)
            if self._limits.metered:
                return metered(self._store, ticket, lambda: run(*given))
            return run(*given)
        except TooLarge as error:
            raise traps.too_large(error.size, self._limits) from error
        except WasmtimeError as error:
            self.dead = True
            most = memory.largest(self._addresses, pollable.MEMORY)
            raise traps.translated(error, ticket, self._limits, most) from error
        except (TypeError, ValueError) as error:
            raise InvalidArguments(
                f"{self._limits.plugin_id}: a value does not fit plugin.wit: {error}"
            ) from error
        finally:
            self._engine.ticker.leave(self)
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
        self._foreign = None  # else the two would keep each other, and files, until collected
        self._addresses = frozenset()
        self._store.close()
