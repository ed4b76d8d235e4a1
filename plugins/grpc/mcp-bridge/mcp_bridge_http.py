"""A server at an address: streamable HTTP, where every request is sent by the host.

The bridge has no network. The host checks each request against the grants, as of any plugin.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp.client.streamable_http import streamable_http_client

from loom_sdk.context import AsyncContext

_KEPT = ("content-type", "mcp-session-id", "mcp-protocol-version", "retry-after", "location")
"""Headers of an answer that MCP needs; its length and packing are the host's matter."""
_DROPPED = ("host", "connection", "content-length", "accept-encoding", "user-agent")


class ByHost(httpx2.AsyncBaseTransport):
    """Sends what httpx2 asks for through `ctx.http_request`.

    Args:
        ctx: of the plugin's start: a server's session is no single call's.
        token: sent as `Authorization: Bearer`, where it is not empty.
    """

    def __init__(self, ctx: AsyncContext, token: str) -> None:
        self._ctx, self._token = ctx, token

    async def handle_async_request(self, request: Any) -> Any:
        if request.method == "GET":  # a stream without end; the host's HTTP has one
            return httpx2.Response(405, request=request)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _DROPPED}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        body = await request.aread()
        answer = await self._ctx.http_request(
            request.method, str(request.url), headers=headers, body=body, timeout_ms=60_000
        )
        kept = {k: v for k, v in answer.headers.items() if k.lower() in _KEPT}
        return httpx2.Response(answer.status, headers=kept, content=answer.body, request=request)


@asynccontextmanager
async def open_url(url: str, ctx: AsyncContext, token: str) -> AsyncIterator[Any]:
    """The two streams that the SDK's client wants."""
    async with (
        httpx2.AsyncClient(transport=ByHost(ctx, token), timeout=60.0) as client,
        streamable_http_client(url, http_client=client) as streams,
    ):
        yield streams
