"""Plugins that listen, as processes of their own, and what lies between them and a host."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from tests.hosting import PLUGINS
from tests.support import ROOT

OUTPOST = PLUGINS / "outpost"


class Far:
    """One process that listens, `python -m` with these arguments."""

    def __init__(self, *arguments: str | Path, folder: Path = OUTPOST) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT / "sdk" / "python")},
        )
        self.pid = self._process.pid
        self.address, self.port = "", 0

    def listening(self) -> Far:
        """Wait until it listens; AssertionError with what it wrote where it does not."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(self.end())
        self.address = line.removeprefix("listening on ").strip()
        self.port = int(self.address.rpartition(":")[2])
        return self

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """As a machine that loses its power."""
        self.send(signal.SIGKILL)
        self.end()

    def end(self, timeout: float = 10) -> str:
        """Wait for its end; what it wrote to stderr."""
        _, errors = self._process.communicate(timeout=timeout)
        return errors

    @property
    def code(self) -> int | None:
        return self._process.poll()

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()


def outpost_at(address: str, *arguments: str | Path) -> Far:
    entry = "outpost_plugin:Outpost"
    return Far("loom_sdk.serve", entry, "--listen", address, *arguments)


@contextmanager
def far(address: str, *arguments: str | Path) -> Iterator[Far]:
    with running(outpost_at(address, *arguments)) as process:
        yield process


@contextmanager
def running(process: Far) -> Iterator[Far]:
    """Listening, and ended afterwards."""
    try:
        yield process.listening()
    finally:
        process.close()


@contextmanager
def two_far(*arguments: str | Path) -> Iterator[tuple[Far, Far]]:
    """Two on one port, at 127.0.0.1 and 127.0.0.2."""
    port = free_port()
    both = [outpost_at(f"127.0.0.{host}:{port}", *arguments) for host in (1, 2)]
    try:
        yield both[0].listening(), both[1].listening()
    finally:
        for process in both:
            process.close()


def free_port() -> int:
    """Free on 127.0.0.1 and 127.0.0.2."""
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        port = int(one.getsockname()[1])
        two.bind(("127.0.0.2", port))
        return port


class Wire:
    """A TCP proxy that can stop forwarding, as a cable that is cut: nobody is told."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open = asyncio.Event()
        self._open.set()
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    def cut(self) -> None:
        self._open.clear()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, far_writer]
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._carry(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self._open.wait()
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()

    async def aclose(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def wire(port: int) -> AsyncIterator[Wire]:
    between = Wire(port)
    server = await asyncio.start_server(between.accept, "127.0.0.1", 0)
    between.port = server.sockets[0].getsockname()[1]
    try:
        yield between
    finally:
        server.close()
        await between.aclose()
