"""A plugin that is an MCP server: its tools are capabilities, learnt at the start.

The server is this process's child, in the same sandbox, or at an address that the host reaches.
When it ends this process ends, too, and is started again like any plugin that crashed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable
from typing import Any

from mcp_bridge_link import Link, Lost
from mcp_bridge_tools import capabilities, result_of

from loom_sdk import Plugin, Result
from loom_sdk.context import AsyncContext
from loom_sdk.errors import PluginCrashed, PluginLoadError, QuotaExceeded
from loom_sdk.plugin import CapabilitySpec

LAST_WORDS_S = 0.2
"""For the calls in flight to be told, once the server is gone."""
RELIST_S = 5.0
"""A server that says again and again that its tools changed is asked no more often, nor waited
for longer."""
PROBLEM_CHARS = 500


class McpBridge(Plugin):
    """One MCP server."""

    _link: Link

    async def start(self, ctx: AsyncContext) -> None:
        config = self.config
        if not (config["command"] or config["url"]):
            raise PluginLoadError(
                'name the server in loom.toml: [plugins.NAME] mcp = ["command", "argument"]'
            )
        name = config["token_secret"]
        token = await ctx.secret(name) if name else ""
        self._problem = ""
        self._link = Link(config, ctx, token, self._lost)
        tools = await self._link.open()
        self._tools, left_out = capabilities(config["name"], tools, config["tools"])
        for line in left_out[:10]:
            ctx.log(f"tool left out: {line}", "warning")
        self._watching = asyncio.create_task(self._watch(ctx))

    async def stop(self, ctx: AsyncContext) -> None:
        self._watching.cancel()
        await self._link.aclose()

    def health(self) -> str:
        return self._problem

    def offers(self) -> Iterable[CapabilitySpec]:
        return [spec for _, spec in self._tools.values()]

    async def serve(self, ctx: AsyncContext, /, **arguments: Any) -> Result:
        name = self._tools[ctx.capability][0]
        try:
            answer = await self._link.call(name, arguments, ctx.remaining_ms())
        except Lost as lost:
            raise self._as_quota(lost, ctx.plugin_id) from None
        result, items = result_of(ctx.capability, answer)
        for item in items:
            await ctx.emit(item.output, item.payload, item.content_type)
        return result

    def _as_quota(self, lost: Lost, plugin_id: str) -> Exception:
        if not lost.too_long:
            return PluginCrashed(str(lost), plugin_id=plugin_id)
        limit = self.config["message_bytes"]
        return QuotaExceeded(
            plugin_id=plugin_id, quota="message_bytes", limit=limit, used=lost.too_long
        )

    def _lost(self, problem: str) -> None:
        print(problem, file=sys.stderr, flush=True)
        asyncio.get_running_loop().call_later(LAST_WORDS_S, os._exit, 1)

    async def _watch(self, ctx: AsyncContext) -> None:
        """Grants were given for the tools of the start: others are told of, not taken."""
        while True:
            await self._link.changed.wait()
            self._link.changed.clear()
            self._problem = await self._changes(ctx)
            await asyncio.sleep(RELIST_S)

    async def _changes(self, ctx: AsyncContext) -> str:
        """What is wrong with the tools now; empty for nothing."""
        config, own = self.config, ctx.plugin_id.rpartition("/")[2]
        try:
            async with asyncio.timeout(RELIST_S):
                tools = await self._link.tools()
            now, _ = capabilities(config["name"], tools, config["tools"])
        except TimeoutError:
            return f"its tools changed, and it did not list them within {RELIST_S:g} s"
        except Exception as error:  # a stranger's answer: whatever it is, watching goes on
            return f"its tools changed, and it could not list them: {error}"[:PROBLEM_CHARS]
        if now != self._tools:
            return f"its tools are not those of its start: `loom swap {own}` takes them up"
        return ""
