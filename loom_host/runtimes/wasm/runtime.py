"""The runtime of the wasm tier: from a plugin's spec to a running instance."""

from __future__ import annotations

from pathlib import Path

from loom_host.runtimes.base import HostServices, PluginSpec
from loom_sdk.errors import LoomError, PluginLoadError, ProtocolMismatch

from .build import ensure_component
from .cache import default_folder
from .engine import Engine
from .instance import WasmInstance


class WasmRuntime:
    """Loads a `.wasm` component, or builds one from `module:Class`.

    Args:
        cache_dir: its folder `wasm` holds built and precompiled components and is made private to
            this user; None for `$XDG_CACHE_HOME/loom`, else `~/.cache/loom`.
    """

    tier = "wasm"

    def __init__(self, cache_dir: Path | None = None) -> None:
        self._cache_dir = default_folder() if cache_dir is None else cache_dir / "wasm"
        self._engine: Engine | None = None

    async def start(self, spec: PluginSpec, services: HostServices) -> WasmInstance:
        entry = spec.entry
        if not isinstance(entry, str):
            raise PluginLoadError(
                f"{spec.name}: a command line runs in the grpc tier, not wasm", plugin_id=spec.id
            )
        if self._engine is None:
            self._engine = Engine(self._cache_dir)
        instance = WasmInstance(spec, services, self._engine)
        try:
            await instance.load(lambda: ensure_component(spec.folder, entry, self._cache_dir))
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

    async def aclose(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None
