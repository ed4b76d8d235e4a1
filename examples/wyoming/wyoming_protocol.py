"""The Wyoming protocol: messages over a TCP or Unix socket.

A message is a line of JSON with `type` and the lengths of what follows it: `data_length` bytes of
JSON, which complete the line's own `data`, then `payload_length` bytes as they are.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from loom_sdk.errors import ActionFailed

LINE_BYTES = 1 << 20
"""Longest line: servers of the first versions send their whole `info` in it."""
PART_BYTES = 16 << 20
"""Longest data or payload; a chunk of sound is some kilobytes."""


@dataclass(frozen=True, slots=True)
class Message:
    """One event of the protocol."""

    type: str
    data: Mapping[str, Any] = field(default_factory=dict)
    payload: bytes = b""

    def encoded(self) -> bytes:
        data = json.dumps(self.data).encode() if self.data else b""
        line: dict[str, str | int] = {"type": self.type, "version": "1.0.0"}
        lengths = {"data_length": len(data), "payload_length": len(self.payload)}
        line |= {name: length for name, length in lengths.items() if length}
        return json.dumps(line).encode() + b"\n" + data + self.payload


class Connection:
    """One conversation with a server."""

    def __init__(
        self, uri: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._uri, self._reader, self._writer = uri, reader, writer

    async def send(self, type: str, data: Mapping[str, Any], payload: bytes = b"") -> None:
        self._writer.write(Message(type, data, payload).encoded())
        await self._writer.drain()

    async def receive(self) -> Message:
        """The next message.

        Raises:
            ActionFailed: WYOMING_ERROR is what the server says, WYOMING_PROTOCOL what cannot be
                read, WYOMING_CLOSED that it hung up.
        """
        try:
            message = await self._read()
        except asyncio.IncompleteReadError as error:
            text = f"{self._uri} hung up before it had answered: look into that server's log"
            raise ActionFailed(text, code="WYOMING_CLOSED") from error
        except (ValueError, TypeError, AttributeError) as error:
            text = f"{self._uri} does not speak the Wyoming protocol: {error}"
            raise ActionFailed(text, code="WYOMING_PROTOCOL") from error
        if message.type == "error":
            told = f"{message.data.get('text')!r} ({message.data.get('code') or 'no code'})"
            raise ActionFailed(f"{self._uri} says {told}", code="WYOMING_ERROR")
        return message

    async def answer(self, type: str) -> Mapping[str, Any]:
        """Data of the next message of a type; those before it are passed over."""
        while (message := await self.receive()).type != type:
            pass
        return message.data

    async def _read(self) -> Message:
        line = await self._reader.readline()
        if not line.endswith(b"\n"):
            raise asyncio.IncompleteReadError(line, None)
        head = json.loads(line)
        data = head.get("data") or {}
        if more := await self._part(head.get("data_length")):
            data |= json.loads(more)
        payload = await self._part(head.get("payload_length"))
        return Message(str(head.get("type", "")), data, payload)

    async def _part(self, length: int | None) -> bytes:
        if not length:
            return b""
        if not 0 < length <= PART_BYTES:
            raise ValueError(f"a part of {length} bytes, at most {PART_BYTES}")
        return await self._reader.readexactly(length)


@asynccontextmanager
async def connected(uri: str, timeout_s: float) -> AsyncIterator[Connection]:
    """A connection, closed at the end of the block.

    Raises:
        ActionFailed: WYOMING_UNREACHABLE: there is no such server, or no grant to reach it.
    """
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await _open(uri)
    except OSError as error:  # TimeoutError is one
        text = (
            f"no Wyoming server at {uri} ({error or 'no answer'}): start it, "
            f"or allow the plugin network = [{json.dumps(grant_of(uri))}]"
        )
        raise ActionFailed(text, code="WYOMING_UNREACHABLE") from error
    try:
        yield Connection(uri, reader, writer)
    except OSError as error:
        text = f"the connection to {uri} broke: {error}"
        raise ActionFailed(text, code="WYOMING_CLOSED") from error
    finally:
        writer.transport.abort()  # unlike close(), waits for no server that reads no more


async def _open(uri: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(uri)
    if parts.scheme == "unix":
        return await asyncio.open_unix_connection(parts.path, limit=LINE_BYTES)
    return await asyncio.open_connection(parts.hostname, parts.port, limit=LINE_BYTES)


def grant_of(uri: str) -> str:
    """The permission that reaches a server."""
    return uri.replace("://", ":", 1)
