"""From a spawned child to one that has answered Init, or to what was wrong with it."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc

from loom_host.runtimes.base import PluginSpec
from loom_sdk._proto import plugin_pb2 as pb
from loom_sdk.errors import LoomError, PluginLoadError, ProtocolMismatch
from loom_sdk.plugin import API_VERSION
from loom_sdk.status import TOKEN_KEY, error_from_proto

from .diagnosis import hint
from .host_calls import Client
from .instance import GrpcInstance
from .pending import LinkLost
from .process import ChildProcess
from .session import Session
from .translate import from_grpc
from .unary import Unary

API_VERSIONS = (API_VERSION,)
CONNECT_POLL_S = 0.002
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
            PluginLoadError, ProtocolMismatch: as `GrpcRuntime.start`.
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
        self._accept(response)

    async def _init(self, path: Path, host_socket: Path) -> Any:
        await _until_listening(path)
        if self._sessions:
            try:
                return await self._open_session()
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                    raise
        spec, channel = self._spec, self._instance.channel
        unary = Unary(channel, self._metadata, spec, self._client.services)
        self._instance.connect(unary)
        return await unary.init(_request(spec, str(host_socket)))

    async def _open_session(self) -> Any:
        session = Session(self._instance.channel, self._metadata, self._spec, self._client)
        try:
            response = await session.init(_request(self._spec, ""))
        except BaseException:
            await session.aclose()
            raise
        self._instance.connect(session)
        session.lost.add_done_callback(lambda _: self._instance.lost())
        return response

    def _accept(self, response: Any) -> None:
        spec = self._spec
        if response.HasField("error"):
            error = error_from_proto(response.error)
            if isinstance(error, ProtocolMismatch):
                raise error
            text = f"{spec.id} did not start: {error.message}"
            raise PluginLoadError(text, plugin_id=spec.id) from error
        if response.api_version not in API_VERSIONS:
            raise _mismatch(spec.id, response.api_version)
        try:
            self._instance.declare(response.meta)
        except LoomError as error:
            raise PluginLoadError(f"{spec.id}: at Init: {error}", plugin_id=spec.id) from error


def _mismatch(plugin_id: str, version: str) -> ProtocolMismatch:
    newest = max(map(int, API_VERSIONS))
    newer = version.isdecimal() and int(version) > newest
    what = "loom-host" if newer else "the plugin, with its SDK"
    return ProtocolMismatch(
        f"{plugin_id} chose api {version!r}, the host speaks {', '.join(API_VERSIONS)}: "
        f"upgrade {what}",
        plugin_id=plugin_id,
    )


def _not_started(child: ChildProcess, spec: PluginSpec, problem: str) -> PluginLoadError:
    if child.exited.done():
        problem = f"ended before it was ready ({child.exited.result()})"
    help_ = hint(child.last_lines)
    return PluginLoadError(f"{spec.id} {problem}{child.tail()}{help_}", plugin_id=spec.id)


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


def _request(spec: PluginSpec, host_socket: str) -> Any:
    quotas = {name: int(value) for name, value in asdict(spec.quotas).items()}
    return pb.InitRequest(
        api_versions=API_VERSIONS,
        plugin_id=spec.id,
        config=json.dumps(dict(spec.config)),
        grants=spec.grants,
        host_socket=host_socket,
        data_dir=str(spec.data_dir),
        cache_dir=str(spec.cache_dir),
        quotas=quotas,
    )
