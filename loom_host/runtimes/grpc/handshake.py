"""From a spawned child to one that has answered Init, or to what was wrong with it."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import grpc

from loom_host.runtimes.base import PluginSpec
from loom_sdk.errors import PluginCrashed, PluginError, PluginLoadError
from loom_sdk.status import TOKEN_KEY

from .diagnosis import hint
from .host_calls import Client
from .init import declared, init_request
from .instance import GrpcInstance
from .pending import LinkLost
from .process import ChildProcess
from .session import Session
from .translate import from_grpc
from .unary import Unary

CONNECT_POLL_S = 0.002
NO_SESSION = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL)
"""How a child without Session ends the stream. Its refusal can reach gRPC as a reset of a stream
that is still being written to, which gRPC calls INTERNAL."""
SETTLE_S = 0.2
"""A lost connection mostly means that the process is about to end: so long that news is awaited."""


class Handshake:
    """Connects one instance to its child.

    Args:
        sessions: whether the child is asked for a Session first.
    """

    def __init__(
        self, instance: GrpcInstance, spec: PluginSpec, client: Client, token: str, sessions: bool
    ) -> None:
        self._instance, self._spec, self._client = instance, spec, client
        self._metadata = ((TOKEN_KEY, token),)
        self._sessions = sessions

    async def run(self, path: Path, host_socket: Path) -> None:
        """Wait until the child listens on `path`, Init it and take what it declares.

        Raises:
            PluginLoadError, PluginCrashed, ProtocolMismatch: as `GrpcRuntime.start`.
        """
        spec, child = self._spec, self._instance.child
        work = asyncio.ensure_future(self._init(path, host_socket))
        try:
            ends: set[asyncio.Future[Any]] = {work, child.exited}
            limit = spec.start_timeout_s
            await asyncio.wait(ends, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            response = work.result() if work.done() else None
        except (LinkLost, grpc.aio.AioRpcError, grpc.aio.BaseError) as error:
            await asyncio.wait({child.exited}, timeout=SETTLE_S)
            raise _not_started(child, spec, _refusal(error, spec.id)) from error
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        if response is None:
            raise _not_started(child, spec, _late(spec))
        self._instance.declaration = declared(spec, response)

    async def _init(self, path: Path, host_socket: Path) -> Any:
        await _until_listening(path)
        if self._sessions:
            try:
                return await self._open_session()
            except grpc.aio.AioRpcError as error:
                if error.code() not in NO_SESSION:
                    raise
        spec, channel = self._spec, self._instance.channel
        unary = Unary(channel, self._metadata, spec, self._client.services)
        self._instance.connect(unary)
        return await unary.init(init_request(spec, str(host_socket)))

    async def _open_session(self) -> Any:
        session = Session(self._instance.channel, self._metadata, self._spec, self._client)
        try:
            response = await session.init(init_request(self._spec))
        except BaseException:
            await session.aclose()
            raise
        self._instance.connect(session)
        session.lost.add_done_callback(lambda _: self._instance.lost())
        return response


def _not_started(child: ChildProcess, spec: PluginSpec, problem: str) -> PluginError:
    """A signal from outside may have been chance: that is a crash, which is tried again."""
    kind: type[PluginError] = PluginLoadError
    if child.exited.done():
        end = child.exited.result()
        problem = f"ended before it was ready ({end})"
        if end.startswith("killed by SIG") and child.exceeded is None:
            kind = PluginCrashed
    text = f"{spec.id} {problem}{child.tail()}{hint(child.last_words.lines)}"
    return kind(text, plugin_id=spec.id)


def _refusal(error: Exception, plugin_id: str) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            return "does not know the token it was given: it must use LOOM_TOKEN of its environment"
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return "serves no Init: it must serve loom.v1.Plugin of plugin.proto on LOOM_SOCKET"
    return f"failed at Init: {from_grpc(error, plugin_id).message}"


def _late(spec: PluginSpec) -> str:
    return (
        f"was not ready within {spec.start_timeout_s:g} s: it must listen on LOOM_SOCKET and "
        "answer Init; raise the start-up limit if it needs longer"
    )


async def _until_listening(path: Path) -> None:
    """Tries the socket itself: a file that nobody listens on yet would cost a gRPC backoff."""
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            if probe.connect_ex(str(path)) == 0:
                return
        await asyncio.sleep(CONNECT_POLL_S)
