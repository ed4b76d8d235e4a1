"""What a child may ask of the host, method by method, for both transports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from loom_host.runtimes.base import HostServices, serving
from loom_sdk import wire
from loom_sdk._proto import plugin_pb2 as pb

from .flights import Flights


@dataclass(frozen=True, slots=True)
class Client:
    """One child that asks."""

    plugin_id: str
    services: HostServices
    flights: Flights


async def publish(client: Client, request: Any) -> Any:
    call_id = client.flights.check(request.call_id)
    event = replace(wire.event_from_proto(request.event), source=client.plugin_id)
    return pb.PublishReply(delivered=await client.services.publish(event, call_id))


async def emit(client: Client, request: Any) -> Any:
    call_id = client.flights.check(request.call_id)
    await client.services.emit(call_id, wire.item_from_proto(request))
    return pb.Empty()


async def kv_get(client: Client, request: Any) -> Any:
    value = await client.services.kv_get(request.key)
    return pb.KvReply(found=value is not None, value=value or b"")


async def kv_put(client: Client, request: Any) -> Any:
    await client.services.kv_put(request.key, request.value)
    return pb.KvReply()


async def kv_delete(client: Client, request: Any) -> Any:
    await client.services.kv_delete(request.key)
    return pb.KvReply()


async def kv_list(client: Client, request: Any) -> Any:
    return pb.KvReply(keys=await client.services.kv_list(request.key))


async def http_request(client: Client, request: Any) -> Any:
    served = serving.set(client.flights.check(request.call_id) or serving.get())
    headers = wire.headers_from_proto(request.headers)
    try:
        response = await client.services.http_request(
            request.method, request.url, headers, request.body, request.timeout_ms
        )
    finally:
        serving.reset(served)
    return wire.http_to_proto(response)


async def log(client: Client, request: Any) -> Any:
    attributes = dict(request.attributes)
    client.services.log(request.level, request.message, attributes, request.call_id)
    return pb.Empty()


async def span(client: Client, request: Any) -> Any:
    client.services.span(wire.span_from_proto(request), request.call_id)
    return pb.Empty()


async def get_secret(client: Client, request: Any) -> Any:
    return pb.SecretReply(value=await client.services.get_secret(request.name))


Method = Callable[[Client, Any], Awaitable[Any]]

METHODS: dict[str, tuple[Method, str]] = {
    "publish": (publish, "publish"),
    "emit": (emit, "empty"),
    "kv_get": (kv_get, "kv"),
    "kv_put": (kv_put, "kv"),
    "kv_delete": (kv_delete, "kv"),
    "kv_list": (kv_list, "kv"),
    "http_request": (http_request, "http"),
    "log": (log, "empty"),
    "span": (span, "empty"),
    "get_secret": (get_secret, "secret"),
}
"""Field of HostCall to what serves it and the field of HostReply; `invoke` has many answers."""


async def invoke(client: Client, request: Any) -> AsyncIterator[Any]:
    """Items, then one message without `item`; only without `stream` it carries the result."""
    call = wire.call_from_proto(request)
    if not request.idempotent_id:
        call.id = ""
    call.parent_call_id = client.flights.check(call.parent_call_id)
    if request.stream:
        async for item in client.services.stream(call):
            yield wire.item_to_proto(request.id, item)
        yield pb.ActionResult(call_id=request.id)
        return
    result = await client.services.invoke(call)
    for item in result.items:
        yield wire.item_to_proto(request.id, item)
    yield wire.result_to_proto(request.id, result)
