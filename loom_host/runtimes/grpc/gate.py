"""The host's end of the socket to `confine/enter.py`: who it is, its orders, its report."""

from __future__ import annotations

import asyncio
import marshal
import socket
import struct
from contextlib import suppress
from typing import Any

from loom_sdk.errors import PluginLoadError

TIMEOUT_S = 10.0
"""For an interpreter and bubblewrap to start; longer only on a machine that has stopped."""
_REPORT = 1 << 16
_CREDENTIALS = struct.Struct("3i")


class Gate:
    """Messages are whole (SOCK_SEQPACKET) and bear the sender's process id as the host sees it."""

    def __init__(self) -> None:
        self._host, self._child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._host.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._host.setblocking(False)
        self._ready: asyncio.Future[None] | None = None
        """Of whoever waits for a message."""

    @property
    def descriptor(self) -> int:
        """What the child inherits."""
        return self._child.fileno()

    def started(self) -> None:
        """The child has its end: with this one closed too, its end is the end of the child."""
        self._child.close()

    async def hello(self) -> int:
        """The child's process id. Raises PluginLoadError."""
        _, pid = await self._receive()
        return pid

    async def order(self, order: dict[str, Any]) -> dict[str, str]:
        """Layer to what became of it. Raises PluginLoadError."""
        try:
            self._host.send(marshal.dumps(order))
        except OSError as error:
            raise PluginLoadError(f"ended at the door of its sandbox ({error})") from error
        text, _ = await self._receive()
        return dict(line.split("\t", 1) for line in text.decode().splitlines())

    async def _receive(self) -> tuple[bytes, int]:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._readable()
        except TimeoutError as error:
            raise PluginLoadError(f"did not enter its sandbox within {TIMEOUT_S:g} s") from error
        data, extra = b"", list[Any]()
        with suppress(OSError):  # closed meanwhile
            data, extra, _, _ = self._host.recvmsg(_REPORT, socket.CMSG_SPACE(_CREDENTIALS.size))
        if not data:
            raise PluginLoadError("ended before it was in its sandbox")
        pids = [
            _CREDENTIALS.unpack(value[: _CREDENTIALS.size])[0]
            for level, kind, value in extra
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
        ]
        return data, pids[0]

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = self._ready = loop.create_future()
        loop.add_reader(self._host, _done, ready)
        try:
            await ready
        finally:
            self._wait_no_more()

    def _wait_no_more(self) -> None:
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.get_loop().remove_reader(self._host)
            _done(ready)

    def close(self) -> None:
        """Whoever waits is told that the child has ended.

        The loop must forget the socket first: its number is at once that of another file, such as
        the next child's, whose end would then never be seen.
        """
        self._wait_no_more()
        self._host.close()
        self._child.close()


def _done(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
