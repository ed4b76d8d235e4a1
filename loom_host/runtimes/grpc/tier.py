"""The grpc tier: children of this host, and plugins that run at an address already."""

from __future__ import annotations

from pathlib import Path

from loom_host.runtimes.base import HostServices, PluginInstance, PluginSpec

from .remote import start_remote
from .resolve import Resolve, lookup
from .runtime import GrpcRuntime


class GrpcTier:
    """What `host.py` knows of the grpc tier.

    Args:
        folder: as `GrpcRuntime`.
        resolve: from a name to addresses; the default asks as every program here does.
    """

    tier = "grpc"

    def __init__(self, folder: Path, *, resolve: Resolve = lookup) -> None:
        self._children, self._resolve = GrpcRuntime(folder), resolve

    async def start(self, spec: PluginSpec, services: HostServices) -> PluginInstance:
        """As `Runtime.start`."""
        if spec.remote is not None:
            return await start_remote(spec, services, self._resolve)
        return await self._children.start(spec, services)

    async def aclose(self) -> None:
        await self._children.aclose()
