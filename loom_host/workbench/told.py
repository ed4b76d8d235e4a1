"""A runtime that tells the error behind each failed start, which the host keeps only as a line."""

from __future__ import annotations

from collections.abc import Callable

from loom_host.runtimes.base import HostServices, PluginInstance, PluginSpec, Runtime
from loom_sdk.errors import LoomError


class ToldRuntime:
    """As `inner`; `tell` gets what made a start fail."""

    def __init__(self, inner: Runtime, tell: Callable[[BaseException], None]) -> None:
        self.tier = inner.tier
        self._inner, self._tell = inner, tell

    async def start(self, spec: PluginSpec, services: HostServices) -> PluginInstance:
        try:
            return await self._inner.start(spec, services)
        except LoomError as error:
            if error.__cause__ is not None:
                self._tell(error.__cause__)
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()
