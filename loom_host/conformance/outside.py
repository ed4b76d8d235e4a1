"""What lies around a plugin that it was not given: a file, a variable, servers that count."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARIABLE = "LOOM_CONFORMANCE_UNASKED"
CONTENT = "for nobody but the host"
DEVICES = ("/dev/kmsg", "/dev/mem", "/dev/fuse", "/dev/net/tun")
"""No grant by a name opens these."""
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"


@dataclass(slots=True)
class Outside:
    """Where it all is. `reached` grows with whoever gets to a server."""

    folder: Path
    tcp_port: int = 0
    udp_port: int = 0
    reached: int = 0

    @property
    def file(self) -> Path:
        return self.folder / "file"

    @property
    def unix(self) -> Path:
        return self.folder / "socket"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.tcp_port}"

    def untouched(self) -> bool:
        return self.file.read_text() == CONTENT

    async def serve(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reached += 1
        writer.write(_ANSWER)
        writer.close()


@asynccontextmanager
async def outside() -> AsyncIterator[Outside]:
    """Open to every user of the machine: what keeps a plugin from it is its tier alone."""
    async with AsyncExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="loom-outside-"))
        found = Outside(Path(place))
        found.folder.chmod(0o777)
        found.file.write_text(CONTENT)
        found.file.chmod(0o666)
        tcp = await asyncio.start_server(found.serve, "127.0.0.1", 0)
        unix = await asyncio.start_unix_server(found.serve, found.unix)
        found.unix.chmod(0o666)
        found.tcp_port = tcp.sockets[0].getsockname()[1]
        for server in (tcp, unix):
            stack.callback(server.close)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Counting(found), ("127.0.0.1", 0), family=socket.AF_INET
        )
        stack.callback(transport.close)
        found.udp_port = transport.get_extra_info("sockname")[1]
        os.environ[VARIABLE] = CONTENT
        stack.callback(os.environ.pop, VARIABLE, None)
        yield found


class _Counting(asyncio.DatagramProtocol):
    """Answers, too, so that who sends learns that it was heard."""

    def __init__(self, found: Outside) -> None:
        self._found = found

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._found.reached += 1
        self._transport.sendto(b"heard", addr)


def devices() -> list[str]:
    """Those that this machine has and the host itself may open."""
    found = []
    for path in DEVICES:
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        except OSError:
            continue
        found.append(path)
    return found
