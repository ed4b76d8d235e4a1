"""Which tiers there are: the one place that knows, and imports what a tier needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from importlib import import_module

from .runtimes.base import Runtime
from .settings import Settings


class Tiers:
    """The runtimes of one host by tier: those given, or each made when a plugin first needs it."""

    def __init__(self, settings: Settings, given: Mapping[str, Runtime] | None = None) -> None:
        self._settings = settings
        self._runtimes = dict(given or {})
        self._lazy = given is None

    async def runtime(self, tier: str) -> Runtime | None:
        """The tier's runtime, made at first need; heavy libraries are imported beside the loop."""
        if tier not in self._runtimes and self._lazy:
            if tier in _HEAVY:
                await asyncio.to_thread(import_module, _HEAVY[tier])
            self._runtimes.setdefault(tier, RUNTIMES[tier](self._settings))
        return self._runtimes.get(tier)

    async def aclose(self) -> None:
        for runtime in self._runtimes.values():
            await runtime.aclose()


def _native(settings: Settings) -> Runtime:
    from .runtimes.native import NativeRuntime

    return NativeRuntime()


def _wasm(settings: Settings) -> Runtime:
    from .runtimes.wasm.runtime import WasmRuntime

    return WasmRuntime(settings.host.cache_dir)


def _grpc(settings: Settings) -> Runtime:
    from .runtimes.grpc.tier import GrpcTier

    return GrpcTier(settings.host.runtime_dir)


_HEAVY = {tier: f"{__package__}.runtimes.{tier}.runtime" for tier in ("wasm", "grpc")}
RUNTIMES: Mapping[str, Callable[[Settings], Runtime]] = {
    "native": _native,
    "wasm": _wasm,
    "grpc": _grpc,
}
