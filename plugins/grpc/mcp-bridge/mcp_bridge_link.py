"""The client's side of one MCP session: opened, asked, lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from loom_sdk.context import AsyncContext
from loom_sdk.errors import ActionFailed, DeadlineExceeded, InvalidArguments, PluginLoadError

try:
    from mcp import Client, MCPError
    from mcp_bridge_pipes import Pipes
    from mcp_types import (
        CONNECTION_CLOSED,
        INVALID_PARAMS,
        REQUEST_TIMEOUT,
        Implementation,
        LoggingMessageNotificationParams,
        Tool,
        ToolListChangedNotification,
    )
except ImportError as error:
    raise PluginLoadError(
        f'the MCP SDK is missing ({error}): pip install "loom-host[mcp]"'
    ) from error

PAGES = 64
"""Most pages of a list of tools: a server could go on without end."""
_LEVELS = {"debug": "debug", "info": "info", "notice": "info", "warning": "warning"}
_MESSAGE_CHARS = 8_000
_LOG_CHARS = 2_000


class Lost(Exception):
    """The server is gone. `too_long`: bytes of the message for which it was ended, else 0."""

    def __init__(self, problem: str, too_long: int) -> None:
        super().__init__(problem)
        self.too_long = too_long


class Link:
    """One session with one server.

    Args:
        ctx: of the plugin's start.
        token: for a server at an address.
        on_lost: told once, when a server that had been well is gone.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        ctx: AsyncContext,
        token: str,
        on_lost: Callable[[str], None],
    ) -> None:
        self._config, self._ctx, self._token, self._on_lost = config, ctx, token, on_lost
        command = config["command"]
        self._pipes = Pipes(command, config["message_bytes"]) if command else None
        self._client: Client
        self._stopping = asyncio.Event()
        self.changed = asyncio.Event()
        """The server says that its tools changed."""

    async def open(self) -> list[Tool]:
        """Start or reach the server: its tools. Raises PluginLoadError."""
        self._ready: asyncio.Future[list[Tool]] = asyncio.get_running_loop().create_future()
        self._life = asyncio.create_task(self._live())
        limit = self._config["connect_s"]
        done, _ = await asyncio.wait({self._ready}, timeout=limit)
        if not done:
            bad = self._pipes.bad if self._pipes is not None else 0
            await self.aclose()
            told = f", and {bad} lines of its output were no messages" if bad else ""
            raise PluginLoadError(
                f"the MCP server did not tell its tools within {limit:g} s{told}: does its command "
                "run by hand? raise config.connect_s where it only needs longer"
            )
        return self._ready.result()

    async def _live(self) -> None:
        """All of it in one task, as the SDK's scopes demand."""
        try:
            async with self._make_client() as client:
                self._client = client
                self._ready.set_result(await self.tools())
                stop = asyncio.ensure_future(self._stopping.wait())
                ends = {stop} | ({self._pipes.ended} if self._pipes else set())
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                stop.cancel()
        except Exception as error:
            self._fail(error)
        finally:
            if not self._stopping.is_set() and self._ready.done():
                self._on_lost(self._why())

    def _fail(self, error: Exception) -> None:
        if not self._ready.done():
            problem = self._pipes.problem if self._pipes else ""
            text = f"no MCP session: {problem or _told(error)}"
            self._ready.set_exception(PluginLoadError(text[:_MESSAGE_CHARS]))
            self._stopping.set()

    def _make_client(self) -> Client:
        if self._pipes is not None:
            streams = self._pipes.open()
        else:
            from mcp_bridge_http import open_url

            streams = open_url(self._config["url"], self._ctx, self._token)
        return Client(
            streams, cache=None, message_handler=self._heard, logging_callback=self._logged,
            client_info=Implementation(name="loom", version="1"),
        )  # fmt: skip

    async def tools(self) -> list[Tool]:
        """All of them, as far as the configured number."""
        found: list[Tool] = []
        cursor: str | None = None
        for _ in range(PAGES):
            page = await self._client.list_tools(cursor=cursor)
            found += page.tools[: self._config["tools"] + 1]
            cursor = page.next_cursor
            if not cursor or len(found) > self._config["tools"]:
                break
        return found

    async def call(self, name: str, arguments: dict[str, Any], remaining_ms: int) -> Any:
        """The tool's `CallToolResult`; cancelling tells the server (`notifications/cancelled`).

        Raises:
            Lost: the server is gone.
            LoomError: what it answered, by kind.
        """
        self._check()
        try:
            return await self._client.call_tool(
                name, arguments, max(0.001, remaining_ms / 1000),
                meta={"loom/remaining_ms": remaining_ms},
            )  # fmt: skip
        except MCPError as error:
            self._check()
            if error.code == CONNECTION_CLOSED:
                await asyncio.sleep(0.05)  # until its end is known
                raise Lost(self._why(), self._too_long) from error
            raise _typed(name, error) from error
        except (ValueError, RuntimeError) as error:  # pydantic's, and of the output's schema
            self._check()
            text = f"{name}: the answer is not by the protocol: {_told(error)}"
            raise ActionFailed(text[:_MESSAGE_CHARS], code="MCP_BAD_ANSWER") from error

    def _check(self) -> None:
        if self._life.done() or (self._pipes is not None and self._pipes.ended.done()):
            raise Lost(self._why(), self._too_long)

    @property
    def _too_long(self) -> int:
        return self._pipes.too_long if self._pipes is not None else 0

    def _why(self) -> str:
        problem = self._pipes.problem if self._pipes is not None else ""
        return problem or "the MCP session ended"

    async def aclose(self) -> None:
        self._stopping.set()
        done, _ = await asyncio.wait({self._life}, timeout=2.0)
        if not done:
            self._life.cancel()
            await asyncio.wait({self._life})

    async def _heard(self, message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            self.changed.set()

    async def _logged(self, params: LoggingMessageNotificationParams) -> None:
        level = _LEVELS.get(params.level, "error")
        self._ctx.log(str(params.data)[:_LOG_CHARS], level, logger=str(params.logger or "")[:100])


def _typed(name: str, error: MCPError) -> Exception:
    text = f"{name}: {error.error.message}"[:_MESSAGE_CHARS]
    if error.code == INVALID_PARAMS:
        return InvalidArguments(text)
    if error.code == REQUEST_TIMEOUT:
        return DeadlineExceeded(f"{name} did not answer in time")
    return ActionFailed(text, code="MCP_ERROR", data={"code": error.code})


def _told(error: BaseException) -> str:
    """The message of what is at the bottom of exception groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
