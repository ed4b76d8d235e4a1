"""A host's half of remote plugins, for tests: instances without a host, and names of our own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loom_host.endpoint import Endpoint, endpoint_of
from loom_host.quotas import Quotas
from loom_host.runtimes.base import PluginSpec
from loom_host.runtimes.grpc.remote import RemoteInstance, start_remote
from loom_host.runtimes.grpc.resolve import Resolve
from loom_sdk import Call
from loom_sdk.errors import (
    PluginLoadError,
)

from .far import OUTPOST
from .support import FakePort
from .test_runtime_grpc import AsyncServices, Services

NAME = "stt.example"
PLAIN = ("--insecure",)


class Names:
    """A resolver of our own: what the name has now."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.asked = 0

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        if not self.addresses:
            raise OSError(f"{host}: no such name")
        return self.addresses


def plain(address: str, keepalive_s: float = 10.0) -> Endpoint:
    return endpoint_of(address, {}, True, keepalive_s)


def spec_of(where: Endpoint, *, instances: str = "pool", **quotas: Any) -> PluginSpec:
    return PluginSpec(
        name="outpost", id="test/outpost", version="1", tier="grpc",
        entry="outpost_plugin:Outpost", folder=OUTPOST, config={}, grants=(),
        quotas=Quotas(**{"concurrency": 64, **quotas}), data_dir=Path("/nowhere"),
        cache_dir=Path("/nowhere"), instances=instances, start_timeout_s=10, remote=where,
    )  # fmt: skip


@asynccontextmanager
async def outpost(
    where: Endpoint, resolve: Resolve | None = None, port: FakePort | None = None, **options: Any
) -> AsyncIterator[RemoteInstance]:
    services: Any = AsyncServices(port or Services())  # type: ignore[arg-type]
    instance = await start_remote(spec_of(where, **options), services, resolve or Names())
    try:
        yield instance
    finally:
        await instance.aclose(2)


async def refused(where: Endpoint, resolve: Names | None = None, **options: Any) -> str:
    with pytest.raises(PluginLoadError) as caught:
        async with outpost(where, resolve, **options):
            pass
    return caught.value.message


async def who(instance: RemoteInstance) -> dict[str, Any]:
    return dict((await instance.invoke(Call("outpost.who", {}))).output)


async def work(instance: RemoteInstance, ms: int) -> int:
    """Process id of who did it."""
    return int((await instance.invoke(Call("outpost.work", {"ms": ms}))).output["pid"])
