"""A server that is this process's child: started, spoken to in lines over its pipes, ended.

Unlike the SDK's own `stdio_client` it bounds the length of a line, and tells why it ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

STOP_S, POLL_S = 0.3, 0.01
"""Time to end by itself once its input is closed, and how often that is looked at."""
_PRIVATE = ("LOOM_SOCKET", "LOOM_HOST_SOCKET", "LOOM_API_VERSIONS", "PYTHONPATH")
_BAD_LINES = 20
"""So many lines that are no messages are told of."""


class Pipes:
    """One run of a server.

    Args:
        longest: bytes of a message.
    """

    def __init__(self, command: Sequence[str], longest: int) -> None:
        self._command, self._longest = command, longest
        self.bad = 0
        """Lines that were no messages."""
        self.problem = ""
        """Why nothing more comes of it."""
        self.too_long = 0
        """Bytes of the message that was too long, as far as it was read."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Resolved when nothing more comes of it."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Any]:
        """The two streams that the SDK's client wants. Raises OSError where it cannot be run."""
        process = await asyncio.create_subprocess_exec(
            *self._command, stdin=PIPE, stdout=PIPE, limit=self._longest, start_new_session=True,
            env={name: value for name, value in os.environ.items() if name not in _PRIVATE},
        )  # fmt: skip
        heard, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        write, said = anyio.create_memory_object_stream[SessionMessage](0)
        tasks = (
            asyncio.create_task(self._hear(process, heard)),
            asyncio.create_task(self._say(process, said)),
        )
        try:
            yield read, write
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for stream in (heard, read, write, said):
                stream.close()
            await asyncio.shield(_end(process))

    async def _hear(self, process: Process, heard: Any) -> None:
        assert process.stdout is not None
        with heard:
            try:
                while line := await process.stdout.readline():
                    if line.strip():
                        await self._take(line, heard)
                code = await _code_of(process)
                self.problem = f"the MCP server ended: {_exit_text(code)}"
            except ValueError:  # of readline: longer than the limit
                self.too_long = self._longest + 1
                self.problem = f"the MCP server sent a message of over {self._longest} bytes"
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass  # the client is gone
            finally:
                if not self.ended.done():
                    self.ended.set_result(None)

    async def _take(self, line: bytes, heard: Any) -> None:
        try:
            message = jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValueError:
            self.bad += 1
            if self.bad <= _BAD_LINES:
                shown = line[:200].decode("utf-8", "replace").rstrip()
                print(f"no MCP message on stdout: {shown!r}", file=sys.stderr, flush=True)
            return
        await heard.send(SessionMessage(message))

    async def _say(self, process: Process, said: Any) -> None:
        assert process.stdin is not None
        with said, suppress(ConnectionError):
            async for message in said:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                process.stdin.write(text.encode() + b"\n")
                await process.stdin.drain()


async def _end(process: Process) -> None:
    """As MCP has it: close its input, wait, then kill it with all that it started."""
    assert process.stdin is not None
    process.stdin.close()
    until = time.monotonic() + STOP_S
    # Not process.wait(), which in Python 3.11 waits for pipes that are full or held by others, too.
    while process.returncode is None and time.monotonic() < until:  # noqa: ASYNC110
        await asyncio.sleep(POLL_S)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    # Nothing public closes such pipes; the SDK's stdio_client reaches for the same.
    transport = getattr(process, "_transport", None)
    if transport is not None:
        transport.close()


async def _code_of(process: Process) -> int | None:
    """It closed its output, and so mostly is about to end."""
    with suppress(TimeoutError):
        return await asyncio.wait_for(process.wait(), STOP_S)
    return process.returncode


def _exit_text(code: int | None) -> str:
    if code is None:
        return "it closed its output"
    return f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
