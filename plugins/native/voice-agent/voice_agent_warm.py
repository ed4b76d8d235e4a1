"""Shows the model the tools before the first question, so that its prompt cache holds them.

A small model on two cores reads the prompt with the tools' examples in about 4 s, and from its
cache in a tenth of that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from loom_sdk import AsyncContext, toolchoice
from loom_sdk.errors import LoomError

POLL_S = 0.1
MAX_POLL_S = 5.0
"""A model that loads is waited for inside the call; one that failed is asked ever more rarely."""
PATIENCE_S = 60.0
"""Models load in seconds; a provider that comes later meets a cold first question."""
QUESTION = "Hello"


async def warm_up(ctx: AsyncContext, config: Mapping[str, Any]) -> bool:
    """Returns whether it was done. Waits for the tools to be complete and the model to be there."""
    until = time.monotonic() + PATIENCE_S
    before: list[toolchoice.Tool] = []
    pause_s = POLL_S
    while time.monotonic() < until:
        try:
            tools = await _tools(ctx, config)
            if tools and tools == before:
                await _read(ctx, tools)
                return True
            before = tools
        except LoomError as error:
            ctx.log(f"the model is not warm yet: {error.message}", "debug")
            pause_s = min(2 * pause_s, MAX_POLL_S)
        await asyncio.sleep(pause_s)
    return False


async def _tools(ctx: AsyncContext, config: Mapping[str, Any]) -> list[toolchoice.Tool]:
    result = await ctx.invoke("loom.tools", timeout_ms=2000)
    return toolchoice.tools_of(result.output["tools"][: config["max_tools"]])


async def _read(ctx: AsyncContext, tools: list[toolchoice.Tool]) -> None:
    """One token of an answer to the prompt of every choice. Nobody waits for it, so it has time."""
    messages = toolchoice.messages(tools, QUESTION)
    arguments = {"messages": messages, "max_tokens": 1, "temperature": 0.0}
    await ctx.invoke("llm.chat", arguments, timeout_ms=round(PATIENCE_S * 1000))
