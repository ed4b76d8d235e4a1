"""`/metrics` and `/healthz` over HTTP/1.1 on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from .metrics import Meter

HEAD_MAX = 8 * 1024
"""Bytes of a request's head."""
TIMEOUT_S = 5.0
"""For reading one request and for writing its answer."""
CONNECTIONS_MAX = 32

Health = Callable[[], tuple[bool, dict[str, Any]]]


class MetricsServer:
    """Answers GET, one request per connection, on 127.0.0.1 only.

    Args:
        health: whether the host is well, and details; `/healthz` says 200 or 503.
        port: 0 picks a free one, see `port` after `start`.
    """

    def __init__(self, meter: Meter, health: Health, port: int) -> None:
        self.port = port
        self._meter = meter
        self._health = health
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Raises OSError where the port is taken."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, limit=HEAD_MAX
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def __aenter__(self) -> MetricsServer:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        busy = len(self._open) >= CONNECTIONS_MAX
        self._open.add(task)
        try:
            async with asyncio.timeout(2 * TIMEOUT_S):
                answer = (
                    _error(HTTPStatus.SERVICE_UNAVAILABLE) if busy else await self._hear(reader)
                )
                writer.write(answer)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # the client is gone, too slow, or the host stops
        finally:
            self._open.discard(task)
            writer.close()

    async def _hear(self, reader: asyncio.StreamReader) -> bytes:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        except asyncio.IncompleteReadError:
            return _error(HTTPStatus.BAD_REQUEST)
        except TimeoutError:
            return _error(HTTPStatus.REQUEST_TIMEOUT)
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _error(HTTPStatus.BAD_REQUEST)
        if words[0] != "GET":
            return _error(HTTPStatus.METHOD_NOT_ALLOWED, "Allow: GET\r\n")
        return self._answer(words[1].partition("?")[0])

    def _answer(self, path: str) -> bytes:
        if path == "/metrics":
            text = self._meter.render_prometheus()
            return _response(HTTPStatus.OK, "text/plain; version=0.0.4; charset=utf-8", text)
        if path == "/healthz":
            well, details = self._health()
            body = json.dumps({"status": "ok" if well else "unhealthy", **details}) + "\n"
            status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
            return _response(status, "application/json", body)
        return _error(HTTPStatus.NOT_FOUND)


def _error(status: HTTPStatus, headers: str = "") -> bytes:
    return _response(status, "text/plain; charset=utf-8", f"{status.phrase}\n", headers)


def _response(status: HTTPStatus, kind: str, text: str, headers: str = "") -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n{headers}Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + body
