"""One port for debuggers, whichever process the plugin is in now."""

from __future__ import annotations

import asyncio
import contextlib

from loom_sdk.errors import ConfigError

from .debug import LOOPBACK

CHUNK = 64 * 1024


class Doorway:
    """Carries connections to the newest port that answers. On loopback only."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        """Of the plugin's processes, the oldest first."""
        self.port = 0
        self._server: asyncio.Server | None = None
        self._carrying: set[asyncio.Task[None]] = set()

    async def open(self, port: int) -> None:
        """Listen; 0 takes any. Raises ConfigError where the port is taken."""
        try:
            self._server = await asyncio.start_server(self._enter, LOOPBACK, port)
        except OSError as error:
            raise ConfigError(
                f"port {port} for the debugger is taken: say another, as --debug=5680"
            ) from error
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def aclose(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)
        try:
            inside = await self._inside()
            if inside is not None:
                await _both((reader, writer), inside)
        except asyncio.CancelledError:
            pass  # the workbench closes: asyncio would tell of it as an error of this task
        finally:
            writer.close()

    async def _inside(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for port in reversed(self.ports):
            with contextlib.suppress(OSError):
                return await asyncio.open_connection(LOOPBACK, port)
        return None


Way = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _both(one: Way, other: Way) -> None:
    """Until either side ends: a debugger's session is nothing without both."""
    tasks = {
        asyncio.create_task(_carry(one[0], other[1])),
        asyncio.create_task(_carry(other[0], one[1])),
    }
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        other[1].close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
