"""`service Host` for children without Session: one server of a runtime, the token says who asks."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn

import grpc

from loom_sdk._proto import plugin_pb2_grpc as pb_grpc
from loom_sdk.errors import LoomError
from loom_sdk.status import TOKEN_KEY

from . import host_calls
from .host_calls import Client
from .translate import to_status

MAX_REQUEST = 64 * 1024**2
"""Largest message that a child may send to the host, in bytes."""


class HostServer:
    """Serves `service Host` on a Unix socket."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._clients: dict[str, Client] = {}
        options = [
            ("grpc.max_receive_message_length", MAX_REQUEST),
            ("grpc.max_send_message_length", -1),
        ]
        self._server = grpc.aio.server(options=options)
        pb_grpc.add_HostServicer_to_server(_Host(self._clients), self._server)

    async def start(self) -> None:
        self._server.add_insecure_port(f"unix:{self.socket}")
        await self._server.start()

    def admit(self, client: Client) -> str:
        """A fresh token, good until `revoke`."""
        token = secrets.token_urlsafe(32)
        self._clients[token] = client
        return token

    def revoke(self, token: str) -> None:
        self._clients.pop(token, None)

    async def aclose(self) -> None:
        await self._server.stop(None)


def _unary(method: host_calls.Method) -> Callable[[Any, Any, Any], Awaitable[Any]]:
    """A unary call: who asks, the work, and a refusal as the status of the error table."""

    async def serve(self: _Host, request: Any, context: Any) -> Any:
        client = await self.client(context)
        try:
            return await method(client, request)
        except LoomError as error:
            await _refuse(context, error)

    return serve


class _Host(pb_grpc.HostServicer):  # type: ignore[misc]  # generated, untyped
    def __init__(self, clients: dict[str, Client]) -> None:
        self._clients = clients

    async def client(self, context: Any) -> Client:
        given = next((v for k, v in context.invocation_metadata() or () if k == TOKEN_KEY), "")
        client = self._clients.get(str(given))
        if client is None:
            text = f"the metadata {TOKEN_KEY} is not the LOOM_TOKEN of a running plugin"
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, text)
            raise AssertionError("abort raises")
        return client

    async def Invoke(self, request: Any, context: Any) -> None:
        client = await self.client(context)
        try:
            async for message in host_calls.invoke(client, request):
                await context.write(message)
        except LoomError as error:
            await _refuse(context, error)

    Publish = _unary(host_calls.publish)
    Emit = _unary(host_calls.emit)
    KvGet = _unary(host_calls.kv_get)
    KvPut = _unary(host_calls.kv_put)
    KvDelete = _unary(host_calls.kv_delete)
    KvList = _unary(host_calls.kv_list)
    HttpRequest = _unary(host_calls.http_request)
    Log = _unary(host_calls.log)
    Span = _unary(host_calls.span)
    GetSecret = _unary(host_calls.get_secret)


async def _refuse(context: Any, error: LoomError) -> NoReturn:
    code, text, trailing = to_status(error)
    await context.abort(code, text, trailing)
    raise AssertionError("abort raises") from error
