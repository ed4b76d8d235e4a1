"""The child side of the grpc tier: `python -m loom_sdk.serve module:Class`, or `serve(Class)`.

Serves `service Plugin` around one plugin object on the socket that the host names in the
environment, and ends with the host: stdin is a pipe from it, whose end means that it is gone.
With `--listen` it serves hosts on other machines instead: see `listen.py`.

Beside it the standard `grpc.health.v1` and server reflection answer, without a token: they tell
no more than the public contract, on a socket in a folder that only the host's user enters.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import grpc

from . import wire
from ._proto import plugin_pb2_grpc as pb_grpc
from .child import end_with_host
from .driver import load_entry
from .errors import PluginLoadError
from .methods import Methods
from .plugin import Plugin
from .ports import OPTIONS, HostPort, RemotePort
from .running import Running
from .session import PluginSession
from .status import TOKEN_KEY
from .work import Work

SERVICE = "loom.v1.Plugin"


class PluginServer(pb_grpc.PluginServicer):  # type: ignore[misc]  # generated, untyped
    """`service Plugin` around one plugin object."""

    def __init__(self, load: Callable[[], type[Plugin]], token: str, host_socket: str) -> None:
        self._token, self._host_socket = token.encode(), host_socket
        self.work = Work(load)
        self._port: RemotePort | None = None
        self._session: PluginSession | None = None
        self.stopping = asyncio.Event()

    async def Init(self, request: Any, context: Any) -> Any:
        await self._admit(context)
        port = self._port = HostPort(self._host_socket, self._token.decode(), self.work.running)
        response = await self.work.start(request, port)
        await port.flush()
        return response

    async def Invoke(self, request: Any, context: Any) -> None:
        await self._ready(context)
        limit = self.work.quotas.get("output_bytes", 0)
        running = Running(request.id, limit, context.write, self.work.plugin_id)
        message = await self._served(self.work.call, request, running)
        await context.write(message)

    async def HandleEvent(self, request: Any, context: Any) -> Any:
        await self._ready(context)
        return await self._served(self.work.event, request, Running(request.id))

    async def Health(self, request: Any, context: Any) -> Any:
        await self._ready(context)
        return self.work.health()

    async def Shutdown(self, request: Any, context: Any) -> Any:
        await self._admit(context)
        began = time.perf_counter_ns()
        failure = await self.work.stop(request.grace_ms / 1000)
        self.stopping.set()
        return wire.response_to_proto(failure, (time.perf_counter_ns() - began) // 1000)

    async def Session(self, requests: Any, context: Any) -> None:
        await self._admit(context)
        if self._session is not None:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "there is a Session already")
        session = self._session = PluginSession(self.work, self.work.stop, self.stopping.set)
        try:
            await session.serve(context.read, context.write, grpc.aio.EOF)
        finally:
            self._session = None

    async def stop(self) -> None:
        """The host wants this process to end, without a Shutdown."""
        await self.work.stop(1.0)
        self.stopping.set()

    def end_session(self) -> None:
        """Before the server stops, which would cut it off."""
        if self._session is not None:
            self._session.aclose()

    async def aclose(self) -> None:
        if self._port is not None:
            await self._port.aclose()
        if self.work.running:  # a thread that never ends would hold the interpreter
            sys.stdout.flush()
            os._exit(0)

    async def _served(self, serve: Callable[..., None], request: Any, running: Running) -> Any:
        """The last message of an answer; cancelling tells whoever serves it."""
        future = asyncio.get_running_loop().create_future()

        def done(message: Any) -> None:
            if not future.done():
                future.set_result(message)

        serve(request, running, done)
        try:
            message = await future
        except asyncio.CancelledError:
            running.cancel()
            raise
        if self._port is not None:
            await self._port.flush()
        return message

    async def _admit(self, context: Any) -> None:
        """Refuses whoever does not present the token that the host gave to this process."""
        given = next((v for k, v in context.invocation_metadata() or () if k == TOKEN_KEY), "")
        if not hmac.compare_digest(str(given).encode(), self._token):
            await context.abort(
                grpc.StatusCode.UNAUTHENTICATED, f"the metadata {TOKEN_KEY} is missing or wrong"
            )

    async def _ready(self, context: Any) -> None:
        await self._admit(context)
        if self.work.driver is None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "call Init first")


def methods(server: PluginServer) -> Methods:
    """All that a child serves. The standard services are imported when somebody first asks."""

    def serving() -> bool:
        return server.work.driver is not None and server.work.health().healthy

    def standard(table: Methods) -> None:
        from . import standard

        standard.add(table, serving, (SERVICE,))

    table = Methods({"/grpc.health.": standard, "/grpc.reflection.": standard})
    pb_grpc.add_PluginServicer_to_server(server, table)
    # Bytes in and out: frames are cut and joined before gRPC sees them.
    session: Any = grpc.stream_stream_rpc_method_handler(server.Session)
    table.add_registered_method_handlers(SERVICE, {"Session": session})
    return table


def serve(plugin: type[Plugin] | str) -> None:
    """Serve a plugin class, or the one named `module:Class`, until the host ends it.

    Reads LOOM_SOCKET, LOOM_TOKEN and LOOM_HOST_SOCKET, which the host sets for its children.
    """
    environ = os.environ
    if not environ.get("LOOM_SOCKET"):
        raise SystemExit(
            "LOOM_SOCKET is not set: the Loom host starts this program; name the plugin in "
            "loom.toml and run `loom run`"
        )
    token = environ.pop("LOOM_TOKEN", "")  # not for processes that the plugin starts

    def load() -> type[Plugin]:
        if not isinstance(plugin, str):
            return plugin
        try:
            return load_entry(plugin)
        except ImportError as error:
            raise PluginLoadError(f"entry {plugin!r} cannot be imported: {error}") from error

    asyncio.run(_serve(load, token, environ["LOOM_SOCKET"], environ.get("LOOM_HOST_SOCKET", "")))


async def _serve(load: Callable[[], type[Plugin]], token: str, socket: str, host: str) -> None:
    plugin = PluginServer(load, token, host)
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((methods(plugin),))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    end_with_host(plugin.stop)
    await plugin.stopping.wait()
    plugin.end_session()
    await server.stop(0.1)
    await plugin.aclose()


if __name__ == "__main__":
    if len(sys.argv) == 2 and not sys.argv[1].startswith("-"):
        serve(sys.argv[1])
    else:
        from .listen import main

        main(sys.argv[1:])
