"""The runtime of the wasm tier: from a plugin's spec to a running instance."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path

from loom_host.runtimes.base import HostServices, PluginSpec
from loom_sdk.errors import LoomError, PluginLoadError, ProtocolMismatch

from .build import ensure_component
from .cache import WASMTIME, CodeCache, default_folder
from .cell import Cell
from .compiling import CodeStore, SharedCode
from .engine import SETTINGS, Engine
from .instance import WasmInstance
from .marshal import CHECKED_VERSION
from .nursery import Nursery
from .preopens import in_thread
from .process import ProcessCell
from .traps import Limits
from .worker import ThreadCell

logger = logging.getLogger(__name__)


class WasmRuntime:
    """Loads a `.wasm` component, or builds one from `module:Class`.

    A guest runs in a worker process, or in a thread of the host where the plugin is first-party or
    `isolation` says so.

    Args:
        cache_dir: its folder `wasm` holds built and precompiled components and is made private to
            this user; None for `$XDG_CACHE_HOME/loom`, else `~/.cache/loom`.
    """

    tier = "wasm"

    def __init__(self, cache_dir: Path | None = None) -> None:
        self._cache_dir = default_folder() if cache_dir is None else cache_dir / "wasm"
        self._engines: dict[bool, Engine] = {}
        """With and without fuel; code is compiled for one of the two."""
        self._nursery: Nursery | None = None
        self._codes: dict[bool, CodeStore] = {}

    async def start(self, spec: PluginSpec, services: HostServices) -> WasmInstance:
        instance = WasmInstance(spec, self._cells(spec, services))
        try:
            await instance.load()
        except BaseException as error:
            await instance.aclose(0)
            if isinstance(error, PluginLoadError | ProtocolMismatch):
                error.plugin_id = error.plugin_id or spec.id
            elif isinstance(error, LoomError):
                raise PluginLoadError(
                    f"{spec.name} did not start: {error.message}", plugin_id=spec.id
                ) from error
            raise
        return instance

    def _cells(self, spec: PluginSpec, services: HostServices) -> Callable[[], Cell]:
        """What makes the plugin's cells, which share its code."""
        entry = spec.entry
        if not isinstance(entry, str):
            raise PluginLoadError(
                f"{spec.name}: a command line runs in the grpc tier, not wasm", plugin_id=spec.id
            )
        quotas = spec.quotas
        limits = Limits(
            spec.id, quotas.memory, quotas.output_bytes, quotas.cpu, quotas.tables,
            quotas.fuel > 0, _direct(spec), spec.instances == "pool", ":" in entry,
        )  # fmt: skip

        def find() -> Path:
            return ensure_component(spec.folder, entry, self._cache_dir)

        if not spec.confined:
            engine, preopens = self._engine(limits.metered), in_thread(spec.folders)
            load = cache(lambda: engine.load(find(), limits.direct))
            return lambda: ThreadCell(spec.name, limits, engine, load, services, preopens)
        nursery = self._nursery = self._nursery or Nursery()
        code = SharedCode(self._code_store(limits.metered, nursery), find)
        return lambda: ProcessCell(
            spec.name, limits, nursery, code, services, spec.folders, quotas.folder_bytes
        )

    def _engine(self, metered: bool) -> Engine:
        if metered not in self._engines:
            self._engines[metered] = Engine(self._cache_dir, metered=metered)
        return self._engines[metered]

    def _code_store(self, metered: bool, nursery: Nursery) -> CodeStore:
        if metered not in self._codes:
            code_cache = CodeCache(self._cache_dir, SETTINGS[metered])
            self._codes[metered] = CodeStore(code_cache, nursery, metered)
        return self._codes[metered]

    async def aclose(self) -> None:
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()
        self._codes.clear()
        if self._nursery is not None:
            await self._nursery.aclose()
            self._nursery = None


def _direct(spec: PluginSpec) -> bool:
    """Whether the direct marshaller serves the plugin: not where wasmtime is another one."""
    if WASMTIME != CHECKED_VERSION and spec.marshal != "stock":
        logger.warning(
            f"{spec.name}: this is wasmtime {WASMTIME}, the direct marshaller was checked against "
            f"{CHECKED_VERSION}: the stock one is used, which is slower"
        )
        return False
    return spec.marshal != "stock"
