"""The plugin that runs now, and how another takes its place when a file is saved."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from loom_host import compiled_plugin, node_plugin
from loom_host.builds import build_plugin
from loom_host.manifest import Manifest
from loom_sdk.errors import LoomError, PluginUnhealthy, encode

from . import debug
from .bench import Bench, Hear
from .doorway import Doorway
from .order import Order
from .watch import Seen, look, saved

STILL_EVERY_S = 3.0
"""Between two signs that a build goes on."""


class Workbench:
    """One plugin, kept running as its folder changes. Made by `opened`.

    Args:
        hear: gets `building`, `built`, `ready`, `reloaded`, `kept` (a reload failed) and what a
            bench tells: `event`, `log`, `denied`, `ended`.
    """

    def __init__(self, order: Order, place: Path, hear: Hear) -> None:
        self.order = order
        self.manifest: Manifest | None = None
        self.bench: Bench | None = None
        self.doorway = Doorway()
        self._place, self._hear = place, hear
        self._seats = 0
        self._text = b""
        self._seen: Seen = {}
        """The folder before the first start, so that no save since then is missed."""
        self._one = asyncio.Lock()

    async def start(self) -> None:
        """Build and start it. Raises a LoomError that tells why it does not run."""
        async with self._one:
            began = time.monotonic()
            self._seen = await asyncio.to_thread(look, self.order.folder)
            manifest, text = await self._read()
            await self._renew(manifest, text)
        self._tell("ready", began)

    async def reload(self, changed: Sequence[str] = ()) -> bool:
        """Put the code that is there now in the place of what runs; else that goes on."""
        async with self._one:
            began = time.monotonic()
            try:
                manifest, text = await self._read()
                if self._swaps(manifest, text):
                    await self.running().ask({"op": "swap", "plugin": manifest.name})
                else:
                    await self._renew(manifest, text)
            except LoomError as error:
                self._hear("kept", {"message": encode(error).message, "changed": list(changed)})
                return False
        self._tell("reloaded", began, changed=list(changed))
        return True

    async def follow(self) -> None:
        """Reload whenever something is saved, until it is cancelled."""
        async with contextlib.aclosing(saved(self.order.folder, self._seen)) as changes:  # type: ignore[type-var]
            async for changed in changes:
                await self.reload(changed)

    def running(self) -> Bench:
        """Raises PluginUnhealthy where nothing runs yet."""
        if self.bench is None:
            raise PluginUnhealthy("the plugin has not started yet: mend it and save, or `reload`")
        return self.bench

    async def aclose(self) -> None:
        await self.doorway.aclose()
        if self.bench is not None:
            await self.bench.aclose()

    async def _read(self) -> tuple[Manifest, bytes]:
        """The manifest, and what is run from, built."""
        manifest = self.order.manifest()
        text = (manifest.folder / "plugin.toml").read_bytes()
        tier = self.order.tier_of(manifest)
        if self.order.debug:
            debug.check(manifest, tier)
        if tier == "wasm" or node_plugin.needs_packages(manifest) or _compiles(manifest):
            await self._build(manifest)
        return manifest, text

    async def _build(self, manifest: Manifest) -> None:
        began = time.monotonic()
        loop = asyncio.get_running_loop()

        def tell(_: str) -> None:
            loop.call_soon_threadsafe(self._hear, "building", {"seconds": 0})

        building = asyncio.create_task(asyncio.to_thread(build_plugin, manifest.folder, tell))
        while not (await asyncio.wait({building}, timeout=STILL_EVERY_S))[0]:
            self._hear("building", {"seconds": round(time.monotonic() - began)})
        built = building.result()
        if built.seconds:
            self._hear("built", {"path": str(built.path), "seconds": round(built.seconds, 1)})

    def _swaps(self, manifest: Manifest, text: bytes) -> bool:
        """Whether the host that runs can take it: native code and new grants want a new one."""
        alive = self.bench is not None and not self.bench.ended.done()
        return alive and text == self._text and self.order.tier_of(manifest) != "native"

    async def _renew(self, manifest: Manifest, text: bytes) -> None:
        self._seats += 1
        seat = self._place / str(self._seats)
        bench = await Bench.start(self.order, manifest, self._place, seat, self._hear)
        old, self.bench = self.bench, bench
        self.manifest, self._text = manifest, text
        self.doorway.ports = bench.ports
        if old is not None:
            await old.aclose()

    def _tell(self, kind: str, began: float, **data: Any) -> None:
        assert self.manifest is not None
        self._hear(
            kind,
            {
                "plugin": self.manifest.id,
                "tier": self.order.tier_of(self.manifest),
                "seconds": round(time.monotonic() - began, 2),
                **data,
            },
        )


def _compiles(manifest: Manifest) -> bool:
    return compiled_plugin.toolchain_of(manifest) is not None


@contextlib.asynccontextmanager
async def opened(order: Order, hear: Hear) -> AsyncIterator[Workbench]:
    """A workbench that has not started its plugin; all that it started ends with it."""
    with tempfile.TemporaryDirectory(prefix="loom-run-") as place:
        bench = Workbench(order, Path(place), hear)
        try:
            yield bench
        finally:
            await bench.aclose()
