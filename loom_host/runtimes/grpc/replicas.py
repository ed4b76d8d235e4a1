"""All replicas of a remote plugin: found by name, kept, and chosen among."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import count

from loom_host.runtimes.base import PluginSpec
from loom_sdk.errors import PluginLoadError

from .connect import Connector
from .replica import Replica
from .resolve import Address, Resolve, Unresolved, addresses

RESOLVE_EVERY_S = 30.0
RESOLVE_AGAIN_S = 1.0
"""Between two questions for a name after failures."""
PINS = 10_000
"""Streams that are remembered; the one unheard for longest is forgotten."""


class Replicas:
    """Addresses to Sessions.

    Args:
        on_change: told whenever a replica comes or goes.
    """

    def __init__(
        self,
        spec: PluginSpec,
        connector: Connector,
        resolve: Resolve,
        on_change: Callable[[], None],
    ) -> None:
        self._spec, self._connector, self._resolve = spec, connector, resolve
        self._changed = on_change
        self._all: dict[Address, Replica] = {}
        self._retired: set[Replica] = set()
        self._pins: OrderedDict[str, Replica] = OrderedDict()
        self._turns = count(1)
        self._used: dict[Replica, int] = {}
        self._soon = asyncio.Event()
        self.problem = ""
        """Why the name does not tell all that it should."""

    def __iter__(self) -> Iterator[Replica]:
        return iter(self._all.values())

    def __len__(self) -> int:
        return len(self._all)

    @property
    def ready(self) -> list[Replica]:
        return [replica for replica in self._all.values() if replica.ready]

    @property
    def up(self) -> bool:
        """Whether any Session is left, also one that drains."""
        return any(r.up for r in (*self._all.values(), *self._retired))

    async def find(self) -> None:
        """Resolve, begin to connect to what is new, let go of what is gone.

        Raises:
            Unresolved: nothing is known; what was known before stays.
            PluginLoadError: several addresses for a plugin that keeps state.
        """
        found = await addresses(self._connector.endpoint, self._resolve)
        if self._spec.instances == "single" and len(found) > 1:
            self._refuse_several(found)
            return
        self.problem = ""
        self._take(found)

    async def keep_finding(self) -> None:
        """On a timer, and soon after a failure."""
        while True:
            try:
                async with asyncio.timeout(RESOLVE_EVERY_S):
                    await self._soon.wait()
                await asyncio.sleep(RESOLVE_AGAIN_S)
            except TimeoutError:
                pass
            self._soon.clear()
            try:
                await self.find()
            except (Unresolved, PluginLoadError) as error:
                self.problem = str(error)

    def least(self) -> Replica | None:
        """The ready replica with the fewest calls, of equals the one that waited longest."""
        ready = self.ready
        if not ready:
            return None
        chosen = min(ready, key=lambda r: (r.outstanding, self._used.get(r, 0)))
        self._used[chosen] = next(self._turns)
        return chosen

    def pinned(self, stream_id: str) -> Replica | None:
        """The replica of a stream, for as long as it is ready; then, for good, another one."""
        replica = self._pins.get(stream_id)
        if replica is None or not replica.ready:
            replica = self.least()
            if replica is None:
                return None
            self._pins[stream_id] = replica
        self._pins.move_to_end(stream_id)
        if len(self._pins) > PINS:
            self._pins.popitem(last=False)
        return replica

    async def aclose(self, grace_s: float) -> None:
        every = (*self._all.values(), *self._retired)
        await asyncio.gather(*(replica.aclose(grace_s) for replica in every))

    def _refuse_several(self, found: list[Address]) -> None:
        """Raises PluginLoadError, unless the one in use is still among them."""
        names = ", ".join(map(str, found))
        text = (
            f'{self._spec.id} keeps state (instances = "single") and {self._spec.name!r} has '
            f"{len(found)} addresses ({names}): run one replica, or let its plugin.toml say "
            'instances = "pool"'
        )
        if not any(replica.up and address in found for address, replica in self._all.items()):
            raise PluginLoadError(text, plugin_id=self._spec.id)
        self.problem = text

    def _take(self, found: list[Address]) -> None:
        for address in found:
            if address not in self._all:
                replica = Replica(address, self._spec, self._connector, self._on_change)
                self._all[address] = replica
                replica.start()
        for address in [a for a in self._all if a not in found]:
            replica = self._all.pop(address)
            self._retired.add(replica)
            replica.retire()
            self._used.pop(replica, None)

    def _on_change(self) -> None:
        self._retired = {replica for replica in self._retired if not replica.over}
        if any(not replica.ready for replica in self._all.values()):
            self._soon.set()
        self._changed()
