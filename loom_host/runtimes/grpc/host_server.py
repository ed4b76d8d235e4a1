"""`service Host`: one server for all children of a runtime; the token says which plugin asks."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import grpc

from loom_host.runtimes.base import HostServices
from loom_sdk import wire
from loom_sdk._proto import plugin_pb2 as pb
from loom_sdk._proto import plugin_pb2_grpc as pb_grpc
from loom_sdk.errors import LoomError
from loom_sdk.status import TOKEN_KEY

from .translate import to_status

MAX_REQUEST = 64 * 1024**2
"""Largest message that a child may send to the host, in bytes."""


@dataclass(frozen=True, slots=True)
class _Client:
    plugin_id: str
    services: HostServices


class HostServer:
    """Serves `service Host` on a Unix socket."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._clients: dict[str, _Client] = {}
        options = [
            ("grpc.max_receive_message_length", MAX_REQUEST),
            ("grpc.max_send_message_length", -1),
        ]
        self._server = grpc.aio.server(options=options)
        pb_grpc.add_HostServicer_to_server(_Host(self._clients), self._server)

    async def start(self) -> None:
        self._server.add_insecure_port(f"unix:{self.socket}")
        await self._server.start()

    def admit(self, plugin_id: str, services: HostServices) -> str:
        """A fresh token, good until `revoke`."""
        token = secrets.token_urlsafe(32)
        self._clients[token] = _Client(plugin_id, services)
        return token

    def revoke(self, token: str) -> None:
        self._clients.pop(token, None)

    async def aclose(self) -> None:
        await self._server.stop(None)


Method = Callable[[Any, _Client, Any], Awaitable[Any]]


def _served(method: Method) -> Callable[[Any, Any, Any], Awaitable[Any]]:
    """A unary call: who asks, the work, and a refusal as the status of the error table."""

    @wraps(method)
    async def serve(self: Any, request: Any, context: Any) -> Any:
        client = await self.client(context)
        try:
            return await method(self, client, request)
        except LoomError as error:
            await _refuse(context, error)

    return serve


class _Host(pb_grpc.HostServicer):  # type: ignore[misc]  # generated, untyped
    def __init__(self, clients: dict[str, _Client]) -> None:
        self._clients = clients

    async def client(self, context: Any) -> _Client:
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
            call = wire.call_from_proto(request)
            async for message in _answer(client.services, call, request.stream):
                await context.write(message)
        except LoomError as error:
            await _refuse(context, error)

    @_served
    async def Publish(self, client: _Client, request: Any) -> Any:
        event = replace(wire.event_from_proto(request.event), source=client.plugin_id)
        return pb.PublishReply(delivered=await client.services.publish(event, request.call_id))

    @_served
    async def Emit(self, client: _Client, request: Any) -> Any:
        await client.services.emit(request.call_id, wire.item_from_proto(request))
        return pb.Empty()

    @_served
    async def KvGet(self, client: _Client, request: Any) -> Any:
        value = await client.services.kv_get(request.key)
        return pb.KvReply(found=value is not None, value=value or b"")

    @_served
    async def KvPut(self, client: _Client, request: Any) -> Any:
        await client.services.kv_put(request.key, request.value)
        return pb.KvReply()

    @_served
    async def KvDelete(self, client: _Client, request: Any) -> Any:
        await client.services.kv_delete(request.key)
        return pb.KvReply()

    @_served
    async def KvList(self, client: _Client, request: Any) -> Any:
        return pb.KvReply(keys=await client.services.kv_list(request.key))

    @_served
    async def HttpRequest(self, client: _Client, request: Any) -> Any:
        headers = wire.headers_from_proto(request.headers)
        response = await client.services.http_request(
            request.method, request.url, headers, request.body, request.timeout_ms
        )
        return wire.http_to_proto(response)

    @_served
    async def Log(self, client: _Client, request: Any) -> Any:
        attributes = dict(request.attributes)
        client.services.log(request.level, request.message, attributes, request.call_id)
        return pb.Empty()

    @_served
    async def Span(self, client: _Client, request: Any) -> Any:
        client.services.span(wire.span_from_proto(request), request.call_id)
        return pb.Empty()

    @_served
    async def GetSecret(self, client: _Client, request: Any) -> Any:
        return pb.SecretReply(value=await client.services.get_secret(request.name))


async def _answer(services: HostServices, call: Any, stream: bool) -> AsyncIterator[Any]:
    """Items, then one message without `item`; only without `stream` it carries the result."""
    if stream:
        async for item in services.stream(call):
            yield wire.item_to_proto(call.id, item)
        yield pb.ActionResult(call_id=call.id)
        return
    result = await services.invoke(call)
    for item in result.items:
        yield wire.item_to_proto(call.id, item)
    yield wire.result_to_proto(call.id, result)


async def _refuse(context: Any, error: LoomError) -> NoReturn:
    code, text, trailing = to_status(error)
    await context.abort(code, text, trailing)
    raise AssertionError("abort raises") from error
