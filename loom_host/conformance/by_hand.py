"""Speaks plugin.proto with a child by hand, as any host may, to see what this one would not."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc

from loom_host.runtimes.base import HostServices, PluginSpec
from loom_host.runtimes.grpc.init import init_request
from loom_host.runtimes.grpc.instance import GrpcInstance
from loom_host.runtimes.grpc.runtime import GrpcRuntime, Spawned
from loom_sdk import Call, wire
from loom_sdk._proto import plugin_pb2_grpc as pb_grpc
from loom_sdk.errors import LoomError

from .kit import Fault
from .plan import Example
from .subject import Subject
from .world import make_host

TOKEN_KEY = "loom-token"
ANSWER_S = 10.0
LOOK_S = 0.005


class _Holding(GrpcRuntime):
    """Keeps what the host would start the plugin with, and never comes to its start."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.held: asyncio.Future[tuple[PluginSpec, HostServices]] = asyncio.Future()

    async def start(self, spec: PluginSpec, services: HostServices) -> GrpcInstance:
        self.held.set_result((spec, services))
        await asyncio.Event().wait()
        raise AssertionError("it waits until it is cancelled")


@dataclass(slots=True)
class Hand:
    """A child in its sandbox that listens and was told nothing yet."""

    spec: PluginSpec
    spawned: Spawned
    stub: Any

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return ((TOKEN_KEY, self.spawned.token),)

    async def init(self, versions: Sequence[str], metadata: Any = None) -> Any:
        """The `InitResponse`. Raises grpc.aio.AioRpcError."""
        request = init_request(self.spec, str(self.spawned.host_socket))
        request.api_versions[:] = versions
        sent = self.metadata if metadata is None else metadata
        limit_s = min(ANSWER_S, self.spec.start_timeout_s)
        return await self.stub.Init(request, metadata=sent, timeout=limit_s)

    async def messages(self, example: Example, metadata: Any = None) -> list[Any]:
        """All that the child sends for one call. Raises grpc.aio.AioRpcError."""
        call = Call(
            example.spec.name, dict(example.arguments), example.payload, example.content_type
        )
        sent = self.metadata if metadata is None else metadata
        rpc = self.stub.Invoke(wire.call_to_proto(call), metadata=sent, timeout=ANSWER_S)
        return [message async for message in rpc]


@asynccontextmanager
async def by_hand(subject: Subject) -> AsyncIterator[Hand]:
    """A child of its own, with fresh data. Raises Fault where there is none to speak to."""
    with tempfile.TemporaryDirectory(prefix="loom-hand-") as place:
        runtime = _Holding(Path(place) / "runtime")
        async with make_host(
            subject.plan, "grpc", Path(place), {"grpc": runtime}, start="background"
        ):
            spec, services = await runtime.held
            spec = replace(spec, start_timeout_s=subject.plan.start_s)
            async with _spoken(runtime, spec, services) as hand:
                yield hand


@asynccontextmanager
async def _spoken(
    runtime: GrpcRuntime, spec: PluginSpec, services: HostServices
) -> AsyncIterator[Hand]:
    try:
        spawned = await runtime.spawn(spec, services)
    except LoomError as error:
        raise Fault(error.message) from error
    options = (("grpc.default_authority", "localhost"), ("grpc.use_local_subchannel_pool", 1))
    channel = grpc.aio.insecure_channel(f"unix:{spawned.socket}", options=options)
    try:
        await _listening(spawned, spec.start_timeout_s)
        yield Hand(spec, spawned, pb_grpc.PluginStub(channel))
    finally:
        await channel.close(None)
        await asyncio.shield(spawned.child.aclose())
        spawned.release()


async def _listening(spawned: Spawned, limit_s: float) -> None:
    """Raises Fault where it does not come to it."""
    try:
        async with asyncio.timeout(limit_s):
            while not _connects(spawned.socket):
                if spawned.child.exited.done():
                    raise Fault(f"it ended before it listened{spawned.child.tail()}")
                await asyncio.sleep(LOOK_S)
    except TimeoutError as error:
        raise Fault(f"it did not listen on LOOM_SOCKET within {limit_s:g} s") from error


def _connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path)) == 0
